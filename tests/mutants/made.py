"""The mutants of a module: mutmut's, without those that no test should notice."""

import difflib
import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple


class Mutant(NamedTuple):
    """A module with one small change."""

    file: str  # of the module, from the root of the repository
    source: str
    line: int  # where the change is
    change: tuple[str, ...]  # lines of a diff, without what is the same

    @property
    def id(self) -> str:
        """Return what tells it from all others, for as long as nothing else of its module changes."""
        return _hash(self.file, self.source)


class Draft(NamedTuple):
    """A mutant that is not written out yet, which takes longer than to find it."""

    file: str
    lot: str  # what a sample is drawn by: it stays when other lines of the module change
    module: Any
    mutation: Any

    def written(self) -> Mutant:
        """Return the mutant."""
        mutated = self.module.deep_replace(self.mutation.original_node, self.mutation.mutated_node).code
        return Mutant(self.file, mutated, *_difference(self.module.code, mutated))


def drafts(file: str, source: str) -> Iterator[Draft]:
    """Yield the mutants of a module.

    Mutmut leaves out annotations, docstrings, decorators and what is decorated. Left out beside these: words of errors,
    which are for people (what else stands in them is mutated); all but one of mutmut's three mutants of a string; and
    names of types.
    """
    from mutmut.mutation.file_mutation import create_mutations

    module, mutations, _, _ = create_mutations(file, source)
    left_out, alike = _left_out(module), Counter[tuple[str, str]]()
    for mutation in mutations:
        old, new = mutation.original_node, mutation.mutated_node
        if id(old) in left_out or (_is_string(old) and "XX" not in new.value):
            continue
        change = module.code_for_node(old), module.code_for_node(new)
        alike[change] += 1
        yield Draft(file, _hash(file, *change, str(alike[change])), module, mutation)


def _left_out(module: Any) -> set[int]:
    """Return the identities of the nodes that are not mutated."""
    import libcst
    import libcst.matchers as m

    errors = m.findall(module, m.Raise() | m.Call(func=m.Name(value=m.MatchRegex(".*(Error|_refusal|_broken)"))))
    words = {id(found) for error in errors for found in m.findall(error, m.SimpleString() | m.FormattedString())}
    types = {
        id(small)
        for line in module.body
        if isinstance(line, libcst.SimpleStatementLine)
        for small in line.body
        if m.matches(small, m.Assign(value=m.Subscript()))
    }
    return words | types


def _is_string(node: Any) -> bool:
    import libcst

    return isinstance(node, libcst.SimpleString)


def _difference(source: str, mutated: str) -> tuple[int, tuple[str, ...]]:
    lines, others = source.splitlines(), mutated.splitlines()
    same = next((number for number, (one, other) in enumerate(zip(lines, others, strict=False)) if one != other), 0)
    found = difflib.unified_diff(lines, others, n=0, lineterm="")
    return same + 1, tuple(line for line in found if line[0] in "+-" and line[:3] not in ("+++", "---"))


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
