import glob
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from records.storage import globs

NAMES = [
    "1.csv",
    "2.csv",
    ".3.csv",
    "[1].csv",
    "{1}.csv",
    "a/1.csv",
    "a/b/1.csv",
    "a/b/c/2.tsv",
    "a/.b/1.csv",
    "ab/1.csv",
]
PATTERNS = [
    "*",
    "*.csv",
    "?.csv",
    "[12].csv",
    "[!1].csv",
    "[[]1].csv",
    "{1}.csv",
    ".*.csv",
    "a/*",
    "a/**",
    "**",
    "**/*.csv",
]
PATTERNS += [
    "a/**/1.csv",
    "**/b/*",
    "a*/1.csv",
    "*/*/*.csv",
    "**/**/2.tsv",
    "a/.b/*",
    "a/**/.b/*",
    "a/b/1.csv",
    "a",
    "none",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("globs")
    for name in NAMES:
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).touch()
    return made


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_matches_what_it_matches_on_the_local_disk(folder, pattern):
    found = glob.glob(pattern, root_dir=folder, recursive=True)
    assert {name for name in NAMES if globs.matches(name, pattern)} == {
        name for name in found if os.path.isfile(folder / name)
    }


def of_google(pattern: str) -> re.Pattern[str]:
    """Return what Google Cloud Storage's documentation says of a pattern, of the signs that `loosened` leaves."""
    words = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile(
        "".join(words.get(each) or re.escape(each) for each in re.findall(r"\*\*|\*|\?|.", pattern)), re.S
    )


def test_what_marks_a_folder_is_no_file():
    assert not [pattern for pattern in ("data/*", "data/**", "data/**/*", "**") if globs.matches("data/", pattern)]


@given(
    st.text("ab/.{}[]1*?!-", max_size=8),
    st.lists(st.sampled_from(["*", "**", "?", "/", "a", "[ab]", "[!a]", "{", "}", ".", "["])),
)
def test_what_the_service_is_asked_for_is_enough(name, pattern):
    pattern = "".join(pattern)
    if globs.matches(name, pattern):
        assert name.startswith(globs.literal(pattern))
        assert of_google(globs.loosened(pattern)).fullmatch(name)
