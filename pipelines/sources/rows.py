"""Parses the rows of CSV: where each ends, its fields, and what exactly is wrong with those that are bad.

The grammar is that of Python's `csv` in strict mode, with "," and '"', over bytes. `csv` itself does not serve: its
limit on fields is a setting of the whole process, it refuses NUL up to Python 3.10, an open quote takes the good lines
after it along, and over texts of a paragraph or more one regular expression a row is over twice as fast.
"""

import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from records.errors import RemaskError

MAX_RECORD_BYTES = 64 << 20
"""A row with its line end may have this many bytes. It bounds what one open quote can make us hold."""

_BLOCK_BYTES = 1 << 18
_EXTRA_FIELDS = 100  # a row with more than that too many is not followed to its end: or hostile files take forever

_FIELD = rb'(?:"[^"]*"(?:"[^"]*"){0,999}|[^",\r\n][^,\r\n]*|)'  # {0,999} and no *: `re` takes 150 bytes for each turn
_PLAIN_FIELD = re.compile(rb"[^,\r\n]*")
_BLANK_LINES = re.compile(rb"(?:[\r\n]*\n)?")
_RETURNS = re.compile(rb"\r*")
_LINE_END = re.compile(rb"\r*(?:\n|\Z)")
_NO_END = "the row does not end: a quote is left open, or text follows a closing quote"


class Scanner:
    r"""Walks the rows of a stream, once: yields (end, line, data, reason) for each.

    `end` is the byte after the row. A good row has reason "", its wanted field as `data`, as it stands (see
    `unquoted`), and line 0, since counting lines costs time and few want to know. A bad row has its bytes as `data`.

    A row with too few or too many fields is bad as a whole, one that does not parse with its first line alone. Blank
    lines are no rows. The buffer never holds more than `MAX_RECORD_BYTES`.

    Args:
        stream: what to read, by its bytes; it must be able to seek.
        path: its name, for errors.
        columns: fields of a good row.
        start: byte at which a row starts.
        line: number of the line there.
        stop: byte after the last row, None for the end of the stream.
        wanted: which field to yield, from 0.

    Raises:
        RemaskError: the stream ends before `stop`.

    Example:
        >>> import io
        >>> stream = io.BytesIO(b'1,"a,b"\n2\n')
        >>> list(Scanner(stream, path="x.csv", columns=2, start=0, line=1, wanted=1))
        [(8, 0, b'"a,b"', ''), (10, 2, b'2\n', '1 field, expected 2')]
    """

    def __init__(
        self,
        stream: BinaryIO,
        *,
        path: str,
        columns: int,
        start: int,
        line: int,
        stop: int | None = None,
        wanted: int = 0,
    ) -> None:
        self._stream, self._path, self._columns, self._wanted = stream, path, columns, wanted
        self._base, self._line, self._stop = start, line, stop
        self._buffer = b""  # the bytes from `_base` on
        self._counted = 0  # where in the buffer line `_line` is
        self._complete = False  # nothing follows the buffer
        stream.seek(start)

    @property
    def end(self) -> int:
        """The byte after all that was read."""
        return self._base + len(self._buffer)

    def line_at(self, byte: int) -> int:
        """Return the line of a byte in the buffer, which may not be before the byte of an earlier call."""
        at = byte - self._base
        self._line += self._buffer.count(b"\n", self._counted, at)
        self._counted = at
        return self._line

    def __iter__(self) -> Iterator[tuple[int, int, bytes, str]]:
        ordinary, at = _row_pattern(self._columns, wanted=self._wanted), 0
        while True:
            for match in ordinary.finditer(self._buffer, at):
                field = match[1]
                if field is None:
                    break
                at = match.end()
                yield self._base + at, 0, field, ""
            start = _match_end(_BLANK_LINES, self._buffer, at)
            row = _parse_row(self._buffer, start, columns=self._columns, complete=self._complete)
            if row is None:
                if self._complete:
                    return
                self._more(start)
                at = 0
            elif not row.reason:
                at = row.end
                yield self._base + at, 0, self._buffer[slice(*row.fields[self._wanted])], ""
            else:
                line, data = self.line_at(self._base + start), self._buffer[start : row.end]
                at = row.end if data.endswith(b"\n") else self._skip_line()
                yield self._base + at, line, data, row.reason

    def _more(self, start: int) -> None:
        """Drop the buffer before `start` and read on, or find that nothing follows."""
        self.line_at(self._base + start)
        rest = self._buffer[start:]
        self._buffer, self._base, self._counted = rest, self._base + start, 0
        size = min(max(_BLOCK_BYTES, len(rest)), MAX_RECORD_BYTES - len(rest))  # doubled each time: linear
        if self._stop is not None:
            size = min(size, self._stop - self.end)
        block = self._stream.read(size) if size else b""
        if size and not block and self._stop is not None:
            raise RemaskError(
                f"{self._path}: ends at byte {self.end:,}, expected {self._stop:,}: the file was changed during the "
                "run: start again"
            )
        self._buffer, self._complete = rest + block, not block

    def _skip_line(self) -> int:
        """Drop the buffer and the rest of the line it ends in; return where in the buffer the next line starts."""
        while not self._complete:
            self._more(len(self._buffer))
            if next_line := self._buffer.find(b"\n") + 1:
                return next_line
        return len(self._buffer)


class FirstRow(NamedTuple):
    """A row of any number of fields."""

    fields: tuple[bytes, ...]  # without their quotes
    end: int  # the byte after it, or where parsing stopped
    fault: str  # why it does not parse, or ""


def parse_first_row(data: bytes, start: int) -> FirstRow | None:
    r"""Parse the first row at or after `start`, or return None if there is none, only blank lines.

    The end of `data` ends the row, as it ends the last row of a file.

    Example:
        >>> parse_first_row(b'\nid,"te""xt"\n1,a\n', 0)
        FirstRow(fields=(b'id', b'te"xt'), end=13, fault='')
    """
    start = _match_end(_BLANK_LINES, data, start)
    if _match_end(_RETURNS, data, start) == len(data):
        return None
    fields, end, fault = _parse_fields(data, start, columns=len(data))
    return FirstRow(tuple(unquoted(data[first:after]) for first, after in fields), end, fault)


def unquoted(field: bytes) -> bytes:
    """Return what a field says: without the quotes around it, and each pair of quotes in it as one.

    Example:
        >>> unquoted(b'"a ""b"" c"'), unquoted(b'5" disk')
        (b'a "b" c', b'5" disk')
    """
    return field[1:-1].replace(b'""', b'"') if field.startswith(b'"') else field


def _row_pattern(columns: int, *, wanted: int) -> re.Pattern[bytes]:
    """Return what matches one good row with its line end, or else all the rest; group 1 is a row's wanted field.

    It takes one step of Python a row, and takes nearly all good rows; whatever it does not is for `_parse_row`.
    """
    fields = [_FIELD] * columns
    fields[wanted] = b"(" + _FIELD + b")"
    return re.compile(rb"(?:[\r\n]*\n)?(?![\r\n])" + b",".join(fields) + rb"\r*\n|(?s:.+)")


class _ParsedRow(NamedTuple):
    end: int  # the byte after it
    fields: list[tuple[int, int]]  # first byte, byte after
    reason: str  # why it is bad, or ""


def _parse_row(buffer: bytes, start: int, *, columns: int, complete: bool) -> _ParsedRow | None:
    r"""Parse the row at `start`, or return None if there is none so far: nothing, or a row without its end.

    The result depends on the bytes of the row alone: not on how many more are in the buffer, nor on whether the buffer
    is `complete`, with nothing to follow. So a piece may end after any row, good or bad.

    Example:
        >>> _parse_row(b'1,"a,b"\n2,c\n', 0, columns=2, complete=False)
        _ParsedRow(end=8, fields=[(0, 1), (2, 7)], reason='')
        >>> _parse_row(b'1,"a"b\n2,c\n', 0, columns=2, complete=False).reason
        'text after the closing quote in field 2'
        >>> _parse_row(b'1,"a', 0, columns=2, complete=False)
    """
    full = len(buffer) - start >= MAX_RECORD_BYTES
    if not full and _match_end(_RETURNS, buffer, start) == len(buffer):
        return None
    fields, stop, fault = _parse_fields(buffer, start, columns=columns)
    if not fault and (buffer.endswith(b"\n", start, stop) or (complete and not full)):
        wrong = "" if len(fields) == columns else f"{_fields(len(fields))}, expected {columns}"
        return _ParsedRow(stop, fields, wrong)
    next_line = buffer.find(b"\n", start) + 1
    if not (complete or full) and (stop == len(buffer) or not next_line):
        return None
    end = next_line or len(buffer)
    if full and not next_line:
        fault = f"a line of {MAX_RECORD_BYTES:,} bytes or more, of which these are the first"
    elif stop >= end:
        fault = _NO_END  # whether a later line or the end of the piece stopped it: the reason is the same
    return _ParsedRow(end, fields, fault)


def _parse_fields(buffer: bytes, start: int, *, columns: int) -> tuple[list[tuple[int, int]], int, str]:
    """Return the fields of the row at `start`, where parsing stopped, and why if that is not the end of the row."""
    fields: list[tuple[int, int]] = []
    at = start
    while True:
        quoted = buffer.startswith(b'"', at)
        stop = _quoted_end(buffer, at) if quoted else _match_end(_PLAIN_FIELD, buffer, at)
        if stop < 0:
            return fields, len(buffer), _NO_END
        fields.append((at, stop))
        if not buffer.startswith(b",", stop):
            break
        if len(fields) == columns + _EXTRA_FIELDS:
            return fields, stop, f"more than {_fields(len(fields))}, expected {columns}"
        at = stop + 1
    end = _match_end(_LINE_END, buffer, stop)
    if end >= 0:
        return fields, end, ""
    found = "a carriage return on its own" if buffer.startswith(b"\r", stop) else "text after the closing quote"
    return fields, stop, f"{found} in field {len(fields)}"


def _quoted_end(buffer: bytes, start: int) -> int:
    """Return the byte after the quoted field at `start`, -1 if it does not end."""
    at = start
    while (at := buffer.find(b'"', at + 1)) >= 0:
        if not buffer.startswith(b'"', at + 1):
            return at + 1
        at += 1
    return -1


def _match_end(pattern: re.Pattern[bytes], buffer: bytes, start: int) -> int:
    match = pattern.match(buffer, start)
    return match.end() if match else -1


def _fields(count: int) -> str:
    return f"{count} field{'' if count == 1 else 's'}"
