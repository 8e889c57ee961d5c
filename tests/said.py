"""What an error says, by what it must name: where, what was found, what was expected, what to do next.

The words between are free, so that a text may be put better without a test that turns red.
"""

import re


def must_name(text: str, *parts: str) -> None:
    """Check that a text names each of these, one after the other.

    Each counts where it stands as a whole: `found 7` is not in `found 70`, `found 7,000` or `found 7.5`, nor `found 7,`
    in the second of these, and neither is `out` in `out/records`.

    Raises:
        AssertionError: one is missing, or stands before those that are to come first; with the text and that part.

    Example:
        >>> must_name("a.csv, row 3: 2 fields, expected 3; mend it", "a.csv, row 3:", "2 fields", "expected 3", "mend")
        >>> must_name("a.csv, row 31: 2 fields", "a.csv, row 3", "2 fields")
        Traceback (most recent call last):
        AssertionError: 'a.csv, row 3' is not named in: a.csv, row 31: 2 fields
    """
    __tracebackhide__ = True
    if not parts:
        raise AssertionError("nothing is to be named")
    end, before = 0, ""
    for part in parts:
        found = _whole(part).search(text, end)
        if not found:
            raise AssertionError(f"{part!r} is not named{before} in: {text}")
        end, before = found.end(), f" behind {part!r}"


def one_line(said: str) -> str:
    """Return the only line of what a command has said.

    Raises:
        AssertionError: it is not one line; with what was said, such as a traceback.
    """
    __tracebackhide__ = True
    if said.count("\n") != 1 or not said.endswith("\n"):
        raise AssertionError(f"not one line: {said}")
    return said.removesuffix("\n")


def _whole(part: str) -> re.Pattern:
    before = r"(?<![\w.,/-])" if re.match(r"[\w/]", part) else ""
    after = ""
    if re.search(r"\w$", part):
        after = r"(?![.,/-]?\w)"
    elif re.search(r"\d[.,]$", part):  # of a number, as far as a digit follows
        after = r"(?!\d)"
    return re.compile(before + re.escape(part) + after)
