"""`make mutants`: which changes to the code it makes, and what it says of those that no test noticed."""

import pytest

from tests.mutants.__main__ import report
from tests.mutants.made import Mutant, drafts

SOURCE = '''"""Adds."""

Sum = tuple[int, int]


def add(one: int = 1, *, name: str) -> int:
    """Add."""
    if one < 0:
        raise ValueError(f"{name}: found {one - 1}, " + "expected more")
    return one + len(name.strip("x"))
'''


def test_all_is_changed_but_words_for_people_and_types():
    pytest.importorskip("mutmut", reason="mutmut is not installed: make mutants")
    found = [draft.written() for draft in drafts("a.py", SOURCE)]
    assert {(mutant.line, mutant.change[1]) for mutant in found} == {
        (6, "+def add(one: int = 2, *, name: str) -> int:"),
        (8, "+    if one <= 0:"),
        (8, "+    if one < 1:"),
        (9, "+        raise ValueError(None)"),
        (9, '+        raise ValueError(f"{name}: found {one + 1}, " + "expected more")'),
        (9, '+        raise ValueError(f"{name}: found {one - 2}, " + "expected more")'),
        (9, '+        raise ValueError(f"{name}: found {one - 1}, " - "expected more")'),
        (10, '+    return one - len(name.strip("x"))'),
    }
    assert len({mutant.id for mutant in found}) == len(found)
    assert {draft.lot for draft in drafts("a.py", SOURCE)} == {draft.lot for draft in drafts("a.py", f"\n{SOURCE}")}


@pytest.mark.parametrize(("survivors", "status"), [(3, 0), (4, 1)])
def test_too_many_survivors_fail_and_each_is_shown(survivors, status, capsys):
    results = ["survived"] * survivors + ["timed out"] + ["killed"] * (19 - survivors)
    done = [(Mutant("a.py", "", line, ("-old", "+new")), result) for line, result in enumerate(results)]
    assert report(done) == status
    said = capsys.readouterr().out
    assert f"20 {19 - survivors:7} {1:10} {survivors:9}   {1 - survivors / 20:.1%}" in said
    assert f"a.py:{survivors - 1}\n    -old\n    +new\n" in said
    assert f"a.py:{survivors}" not in said
