"""Reads JSON into a dataclass, and refuses whatever the dataclass does not say, by file and field.

The types of the fields are the whole description: `int` takes neither 1.0, "1" nor true, a tuple takes a list of its
items, a nested dataclass an object with its fields. What JSON allows and nobody can rely on is refused as well: a key
that is given twice, NaN and Infinity, bytes that are not UTF-8.
"""

import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

from annotated_types import Ge, Le

from records.errors import RemaskError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")

Int64 = Annotated[int, Ge(-(2**63)), Le(2**63 - 1)]
Count = Annotated[int, Ge(0), Le(2**63 - 1)]
"""A number of things, or an id: never negative, and no larger than an array can hold."""


@dataclass(frozen=True)
class Matches:
    """Says of a text field that all of it has to match a pattern: `Annotated[str, Matches("[0-9]+", "digits")]`."""

    pattern: str
    what: str  # for people

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self._matching, handler(source))

    def _matching(self, text: str) -> str:
        if re.fullmatch(self.pattern, text) is None:
            raise ValueError(f"found {_shown(text)}, expected {self.what}")
        return text


FileName = Annotated[str, Matches(r"[^/\\\0]*[^/\\\0.][^/\\\0]*", "the name of a file in the folder")]

_SHOWN = 60  # letters of what was found


def read(cls: type[T], content: bytes, *, name: str, advice: str, others: bool = False) -> T:
    """Make a dataclass from JSON.

    What it checks in its `__post_init__` with a ValueError or a RemaskError is refused in the same way.

    Args:
        cls: the dataclass; its fields may be dataclasses, tuples and mappings of them.
        content: the JSON, in UTF-8.
        name: of the file.
        advice: what to do where it is refused, a sentence without capital and full stop.
        others: whether keys that are no fields are allowed, as in a file whose format is not ours; they are not read.

    Raises:
        RemaskError: names the file, the field, what was found, what was expected, and the advice.

    >>> @dataclass(frozen=True)
    ... class Shard:
    ...     file: str
    ...     examples: Count
    >>> read(Shard, b'{"file": "a", "examples": 3}', name="shard.json", advice="make it again")
    Shard(file='a', examples=3)
    >>> read(Shard, b'{"file": "a", "examples": -3}', name="shard.json", advice="make it again")
    Traceback (most recent call last):
    records.errors.RemaskError: shard.json: examples: found -3, expected at least 0; make it again
    """
    from pydantic import ValidationError  # only by who reads JSON: it takes 0.1 s and 15 MB

    parse(content, name=name, advice=advice)
    try:
        made: T | None = _adapter(cast(Any, cls), others).validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _refusal(name, advice, _path(first["loc"]), _said(dict(first))) from None
    except RemaskError as error:
        raise _refusal(name, advice, "", str(error)) from None
    assert made is not None  # `parse` has seen an object
    return made


def parse(content: bytes, *, name: str, advice: str) -> dict[str, Any]:
    """Return the object that a JSON file holds, of whatever keys and values.

    Args:
        content: the JSON, in UTF-8.
        name: of the file.
        advice: what to do where it is refused.

    Raises:
        RemaskError: it is no JSON, or no object; a key that is there twice, a number that is none.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise _refusal(name, advice, f"byte {error.start}", "found bytes that are not UTF-8, expected JSON") from None
    try:
        found = json.loads(text, object_pairs_hook=_once, parse_float=_finite, parse_constant=_finite)
        if "\\ud" in text.lower():  # half a letter, which no file can hold and no terminal show
            json.dumps(found, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        rest = _short(text[error.pos :].partition("\n")[0]) or "nothing"
        raise _refusal(name, advice, where, f"found {rest}, expected JSON ({error.msg})") from None
    except _NotExact as error:
        raise _refusal(name, advice, "", str(error)) from None
    except UnicodeEncodeError:
        raise _refusal(name, advice, "", "found half of a letter (a lone surrogate), expected text") from None
    except RecursionError:
        raise _refusal(name, advice, "", "found lists or objects within each other without end") from None
    except ValueError:  # Python reads no number of more than 4,300 digits
        raise _refusal(name, advice, "", "found a number of thousands of digits, expected one of 64 bits") from None
    if not isinstance(found, dict):
        raise _refusal(name, advice, "", f"found {_shown(found)}, expected a JSON object")
    return found


@lru_cache
def _adapter(cls: Any, others: bool) -> "TypeAdapter[Any]":
    from pydantic import ConfigDict, TypeAdapter

    config = ConfigDict(strict=True, extra="ignore" if others else "forbid", allow_inf_nan=False)
    # pydantic gives no config to a dataclass alone, lest its own be lost; within another type it takes it over.
    return TypeAdapter(cls | None, config=config)


class _NotExact(ValueError):
    """JSON that readers take in different ways."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise _NotExact(f"found the key {_shown(twice)} twice in one object, expected it once")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _NotExact(f"found {_short(text)}, expected finite numbers")
    return number


def _said(reason: dict[str, Any]) -> str:
    """Return what was found and what was expected, from what pydantic says of it."""
    kind, message, limits = reason["type"], reason["msg"], reason.get("ctx", {})
    if kind == "value_error":
        return str(limits["error"])
    if kind == "missing":
        return "found nothing, expected a value"
    if kind == "unexpected_keyword_argument":
        return "found a field that this remask does not know"
    if kind == "json_invalid":  # to pydantic's parser alone, such as a thousand lists within each other
        return message
    expected = {
        "greater_than_equal": f"at least {limits.get('ge')}",
        "less_than_equal": f"at most {limits.get('le')}",
        "tuple_type": "a list",
    }.get(kind, message.removeprefix("Input should be "))
    return f"found {_shown(reason['input'])}, expected {expected}"


def _path(places: tuple[int | str, ...]) -> str:
    """Return where something stands in an object.

    >>> _path(("data", "splits", "train", 3, "bytes"))
    'data.splits.train[3].bytes'
    """
    return "".join(f"[{place}]" if isinstance(place, int) else f".{place}" for place in places).lstrip(".")


def _refusal(name: str, advice: str, where: str, said: str) -> RemaskError:
    return RemaskError(f"{name}: {f'{_short(where)}: ' if where else ''}{said}; {advice}")


def _shown(value: object) -> str:
    return _short(json.dumps(value, default=repr))


def _short(text: str) -> str:
    printable = text if text.isprintable() else ascii(text)[1:-1]
    return printable if len(printable) <= _SHOWN else f"{printable[: _SHOWN - 3]}..."
