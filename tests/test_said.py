"""What tests of error texts hold, and what they leave free."""

import pytest

from tests import said

TEXT = "out/a.csv, row 3: found -7 of 1,024 bytes, expected 9.5; run 'make records CSV=a.csv OUT=out'"


@pytest.mark.parametrize(
    "parts",
    [
        ("out/a.csv, row 3:", "found -7", "expected 9.5", "'make records CSV=a.csv OUT=out'"),
        ("row 3", "-7", "1,024 bytes", "9.5", "make records CSV=a.csv OUT=out"),
        ("7", "7"),
        ("found -7; 7 7,", "of 1,024"),
        ("out/a.", ", row 3"),
    ],
)
def test_the_words_between_are_free(parts):
    said.must_name(TEXT.replace("found -7", "it holds found -7; 7 7,"), *parts)


@pytest.mark.parametrize(
    ("parts", "missing"),
    [
        (("b.csv",), "b.csv"),
        (("expected 9.5", "found -7"), "found -7"),
        (("row 3", "row 3"), "row 3"),
        (("a.csv, row",), "a.csv, row"),
        (("found 7",), "found 7"),
        (("7 of",), "7 of"),
        (("of 1",), "of 1"),
        (("of 1,",), "of 1,"),
        (("expected 9.",), "expected 9."),
        (("024 bytes",), "024 bytes"),
        (("expected 9",), "expected 9"),
        (("5; run",), "5; run"),
        (("CSV=a",), "CSV=a"),
        (("found -7", "make record"), "make record"),
        (("/a.csv",), "/a.csv"),
    ],
)
def test_what_is_not_there_as_a_whole_and_in_its_place_is_said(parts, missing):
    with pytest.raises(AssertionError) as caught:
        said.must_name(TEXT, *parts)
    assert f"{missing!r} is not named" in str(caught.value)
    assert TEXT in str(caught.value)


def test_to_name_nothing_is_no_test():
    with pytest.raises(AssertionError):
        said.must_name(TEXT)


@pytest.mark.parametrize("text", ["", "error: no end", "Traceback\nerror: two lines\n", "error: and\n more"])
def test_a_line_is_all_that_is_said(text):
    assert said.one_line("error: a line\n") == "error: a line"
    with pytest.raises(AssertionError, match="not one line"):
        said.one_line(text)
