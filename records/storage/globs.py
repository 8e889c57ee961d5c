"""Globs as Python's `glob` knows them on the local disk, for names in a bucket."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase


def literal(pattern: str) -> str:
    """Return what all names begin with that a pattern matches: the pattern itself where it has no wildcards.

    >>> literal("reviews/2024-*/[ab].csv")
    'reviews/2024-'
    """
    return re.split(r"[*?[]", pattern, maxsplit=1)[0]


def loosened(pattern: str) -> str:
    """Return a pattern of Google Cloud Storage's that matches all names that ours does, and maybe more.

    There, `**` is any text, slashes included, braces are alternatives, and `[` has rules of its own.

    >>> loosened("a/**/[!b]*{1}.csv")
    'a/**?*?1?.csv'
    """
    return re.sub(r"\[.[^]]*\]|[{}\\]", "?", re.sub(r"\*\*/?", "**", pattern))


def matches(name: str, pattern: str) -> bool:
    """Say whether a pattern matches a name: `*` and `?` stop at slashes, `**` is any folders, also none.

    As on the local disk, what begins with a dot is found only by a pattern that begins so, too.

    >>> [matches(name, "a/**/*.csv") for name in ("a/1.csv", "a/b/c/1.csv", "b/1.csv", "a/.work/1.csv")]
    [True, True, False, False]
    """
    # What ends with a slash is no file: the Cloud Console marks folders with such objects.
    return not name.endswith("/") and _match(name.split("/"), pattern.split("/"))


def _match(names: Sequence[str], patterns: Sequence[str]) -> bool:
    if not patterns:
        return not names
    first, *rest = patterns
    if first == "**":
        visible = next((place for place, name in enumerate(names) if name.startswith(".")), len(names))
        if not rest:
            return visible == len(names)
        return any(_match(names[skipped:], rest) for skipped in range(visible + 1))
    if not names or (names[0].startswith(".") and not first.startswith(".")):
        return False
    return fnmatchcase(names[0], first) and _match(names[1:], rest)
