import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from records import typed_json
from records.errors import RemaskError
from records.typed_json import Count, Int64
from tests import processes


@dataclass(frozen=True)
class Inner:
    file: str
    bytes: Count

    def __post_init__(self) -> None:
        if "/" in self.file:
            raise ValueError(f"found the file {self.file!r}, expected a name without a slash")


@dataclass(frozen=True)
class Outer:
    kind: Literal["a", "b"]
    shift: Int64
    share: float
    held: Mapping[str, tuple[Inner, ...]]
    free: Mapping[str, Any]
    note: str | None = None


GOOD = {
    "kind": "a",
    "shift": -3,
    "share": 0.5,
    "held": {"train": [{"file": "x", "bytes": 1}, {"file": "y", "bytes": 2}]},
    "free": {"any": [1, {"thing": None}]},
    "note": "n",
}
MADE = Outer("a", -3, 0.5, {"train": (Inner("x", 1), Inner("y", 2))}, {"any": [1, {"thing": None}]}, "n")


def read(content: bytes, *, others: bool = False) -> Outer:
    return typed_json.read(Outer, content, name="run/it.json", advice="make it again", others=others)


def refusal(content: bytes) -> str:
    with pytest.raises(RemaskError) as caught:
        read(content)
    said = str(caught.value)
    assert said.startswith("run/it.json: ")
    assert said.endswith("; make it again")
    assert len(said.splitlines()) == 1
    assert said.isprintable()
    return said.removeprefix("run/it.json: ").removesuffix("; make it again")


def but(*path: str | int, value: object) -> bytes:
    """Return the good JSON with one value replaced."""
    changed = json.loads(json.dumps(GOOD))
    place = changed
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return json.dumps(changed).encode()


def test_what_is_right_is_read():
    assert read(json.dumps(GOOD).encode()) == MADE
    assert read(json.dumps(asdict(MADE), indent=1, sort_keys=True).encode()) == MADE


def test_a_field_with_a_default_may_be_left_out():
    without = {key: value for key, value in GOOD.items() if key != "note"}
    assert read(json.dumps(without).encode()) == replace(MADE, note=None)


def test_a_whole_number_is_a_float_too():
    assert read(but("share", value=1)).share == 1.0


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (but("held", "train", 1, "bytes", value=None), ("held.train[1].bytes:", "null", "integer")),
        (but("held", "train", 1, "bytes", value=[7]), ("held.train[1].bytes:", "[7]", "integer")),
        (but("held", "train", 1, "bytes", value=1.0), ("held.train[1].bytes:", "1.0", "integer")),
        (but("held", "train", 1, "bytes", value="1"), ("held.train[1].bytes:", '"1"', "integer")),
        (but("held", "train", 1, "bytes", value=True), ("held.train[1].bytes:", "true", "integer")),
        (but("held", "train", 1, "bytes", value=-1), ("held.train[1].bytes:", "-1", "at least 0")),
        (but("held", "train", 1, "bytes", value=2**63), ("held.train[1].bytes:", str(2**63), "at most")),
        (but("shift", value=-(2**63) - 1), ("shift:", "at least")),
        (but("held", "train", 0, "file", value=5), ("held.train[0].file:", "5", "string")),
        (but("held", "train", 0, "file", value="a/b"), ("held.train[0]:", "a/b", "without a slash")),
        (but("held", "train", 0, value={"file": "x"}), ("held.train[0].bytes:", "nothing")),
        (but("held", "train", 0, value=3), ("held.train[0]:", "3", "object")),
        (but("held", "train", value={}), ("held.train:", "{}", "list")),
        (but("held", value=[]), ("held:", "[]", "object")),
        (but("kind", value="c"), ("kind:", '"c"', "'a' or 'b'")),
        (but("kind", value="{ge}"), ("kind:", "{ge}", "'a' or 'b'")),
        (but("note", value=1), ("note:", "1", "string")),
        (but("more", value=1), ("more:", "does not know")),
        (but("share", value="x" * 200), ("share:", '"xxx', "...", "number")),
    ],
)
def test_a_wrong_value_is_refused_by_its_place(content, names):
    said = refusal(content)
    assert said.startswith(names[0])
    assert [name for name in names if name not in said] == []
    assert len(said) < 200


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"", ("line 1, column 1", "nothing", "JSON")),
        (b'{"a": 1', ("line 1, column 8", "nothing")),
        (b'{\n "a": oops\x07 }', ("line 2, column 7", r"oops\x07 }")),
        (b"\xff\xfe{\x00}\x00", ("byte 0", "not UTF-8")),
        (b'{"a": "\xe9"}', ("byte 7", "not UTF-8")),
        (b"[]", ("[]", "object")),
        (b"3", ("3", "object")),
        (b"null", ("null", "object")),
        (b'{"a": 1, "a": 1}', ('"a"', "twice")),
        (b'{"free": {"b": 1, "b": 2}}', ('"b"', "twice")),
        (b'{"a": NaN}', ("NaN", "finite")),
        (b'{"a": -Infinity}', ("-Infinity", "finite")),
        (b'{"a": 1e999}', ("1e999", "finite")),
        (b'{"a": ' + b"9" * 5000 + b"}", ("digits",)),
        (b'{"a": ' + b"[" * 100_000, ("within each other",)),
        (b'{"a": "\\ud800"}', ("half of a letter",)),
        (but("free", value="x").replace(b'"x"', b'{"a":' * 500 + b"1" + b"}" * 500), ()),
    ],
    ids=lambda each: "" if isinstance(each, bytes) else " ".join(each),
)
def test_what_is_no_json_that_all_agree_on_is_refused(content, names):
    said = refusal(content)
    assert [name for name in names if name not in said] == []


def test_keys_of_others_are_passed_over_where_they_may_be_there():
    assert read(but("more", value=1), others=True) == MADE


def test_no_more_than_what_holds_them_is_loaded_before_json_is_read():
    program = "import sys, records.typed_json; print('pydantic' in sys.modules)"
    done = processes.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def paths(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, each in inner for found in paths(each, (*path, key)))]


@given(st.sampled_from(paths(GOOD)[1:]), JSON)
def test_whatever_stands_anywhere_is_read_as_it_is_or_refused(path, value):
    try:
        made = read(but(*path, value=value))
    except RemaskError as error:
        assert "; make it again" in str(error)  # noqa: PT017 - what is not refused is looked at below
        return
    assert json.loads(json.dumps(asdict(made))) == json.loads(but(*path, value=value))
