"""Streams CSV files of any size as numbered rows, in parallel, and says exactly which rows are bad and why.

A CSV file cannot be cut at just any line, since a quoted field may hold line ends. So one cheap pass cuts a file into
pieces that end where rows end (`split_source`), and each piece is then read on its own (`read_piece`). Both walk the
file with the same `_Scanner`, whose only state is its position: they cannot disagree about a row.

The grammar is that of Python's `csv` in strict mode, with "," and '"', over bytes. `csv` itself does not serve: its
limit on fields is a setting of the whole process, it refuses NUL up to Python 3.10, an open quote takes the good lines
after it along, and over texts of a paragraph or more one regular expression a row is over twice as fast.
"""

import codecs
import difflib
import glob
import gzip
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, cast

from records.errors import RemaskError

MAX_RECORD_BYTES = 64 << 20
"""A row with its line end may have this many bytes. It bounds what one open quote can make us hold."""

_BLOCK_BYTES = 1 << 18
_HEADER_BYTES = 1 << 18
_EXTRA_FIELDS = 100  # a row with more than that too many is not followed to its end: or hostile files take forever

_FIELD = rb'(?:"[^"]*"(?:"[^"]*"){0,999}|[^",\r\n][^,\r\n]*|)'  # {0,999} and no *: `re` takes 150 bytes for each turn
_PLAIN_FIELD = re.compile(rb"[^,\r\n]*")
_BLANK_LINES = re.compile(rb"(?:[\r\n]*\n)?")
_RETURNS = re.compile(rb"\r*")
_LINE_END = re.compile(rb"\r*(?:\n|\Z)")
_NO_END = "the row does not end: a quote is left open, or text follows a closing quote"


class Row(NamedTuple):
    """One good row of a file."""

    number: int  # in the file, from 1; the header is not counted
    text: str  # of the wanted column
    recoded: bool  # the text did not decode in the encoding of the file, and was read as ISO-8859-1


class BadRow(NamedTuple):
    """One row that cannot be read."""

    number: int  # counted together with the good rows
    line: int  # in the file, from 1
    reason: str
    raw: bytes  # as it stands in the file, line end included


@dataclass(frozen=True)
class Piece:
    """A stretch of a file from the start of a row to the end of a row."""

    path: str
    source: int  # number of the file
    start: int  # its first byte, counted in unpacked bytes if the file is a .gz
    length: int | None  # in bytes; None: to the end of the file
    first_row: int
    first_line: int


def find_sources(patterns: Sequence[str]) -> tuple[str, ...]:
    """Return the files that paths and globs (with `**`) stand for, sorted, each once.

    Raises:
        RemaskError: a pattern that stands for no file, or for a directory.
    """
    found: set[str] = set()
    for pattern in patterns:
        _refuse_cloud(pattern)
        if os.path.isdir(pattern):
            raise RemaskError(f"{pattern}: is a directory, expected CSV files: give '{os.path.join(pattern, '*.csv')}'")
        paths = [pattern] if os.path.exists(pattern) else glob.glob(pattern, recursive=True)
        files = [os.path.normpath(path) for path in paths if not os.path.isdir(path)]
        if not files:
            raise RemaskError(f"no such file: {pattern}")
        found.update(files)
    return tuple(sorted(found))


def check_source(path: str, *, column: str, encoding: str) -> None:
    """Read the header of a CSV file, so that what can never work fails at once.

    Raises:
        RemaskError: the file cannot be read, has no header or no such column, or `encoding` is not one in which
            commas, quotes and line ends are the bytes of ASCII.
    """
    _check_encoding(encoding)
    with _open(path) as stream:
        _column_index(path, _read_header(path, stream), column=column, encoding=encoding)


def split_source(path: str, *, source: int, piece_bytes: int = 4 << 20) -> Iterator[Piece]:
    """Cut a CSV file into pieces, from the end of its header to its last byte.

    A piece ends with the first row that brings it to `piece_bytes`. A .gz file, which can only be read from its start,
    is one piece.

    Args:
        path: the file.
        source: its number, for the pieces.
        piece_bytes: least size of each piece but the last.

    Raises:
        RemaskError: the file or its header cannot be read.
    """
    with _open(path) as stream:
        header = _read_header(path, stream)
        start, row, line = header.end, 1, header.lines + 1
        if path.endswith(".gz"):
            yield Piece(path, source, start, None, row, line)
            return
        scanner = _Scanner(path, stream, header=header)
        for number, (end, *_) in enumerate(scanner, 1):
            if end - start >= piece_bytes:
                yield Piece(path, source, start, end - start, row, line)
                start, row, line = end, number + 1, scanner.line_at(end)
        if start < scanner.end:
            yield Piece(path, source, start, scanner.end - start, row, line)


def read_piece(piece: Piece, *, column: str, encoding: str) -> Iterator[Row | BadRow]:
    """Read the rows of a piece in order. Each line that is not blank belongs to exactly one `Row` or `BadRow`.

    A row with too few or too many fields is bad as a whole. A row that does not parse (an open quote, text after a
    closing quote, a carriage return on its own, more than `MAX_RECORD_BYTES`) is bad with its first line alone, and
    reading goes on at the next line: an open quote never takes the rows after it along. If the row did have further
    lines, they are then read as rows themselves. Most have the wrong number of fields, but one that happens to look
    like a row is taken for one.

    Memory is bounded by `MAX_RECORD_BYTES` and in practice by the longest row, whatever the size of the file.

    Args:
        piece: from `split_source`.
        column: name of the column of the text.
        encoding: of the file; a text that does not decode in it is read as ISO-8859-1, in which everything decodes.

    Raises:
        RemaskError: the file cannot be read, is damaged, or is no longer the file that was split.
    """
    with _open(piece.path) as stream:
        header = _read_header(piece.path, stream)
        wanted = _column_index(piece.path, header, column=column, encoding=encoding)
        scanner = _Scanner(piece.path, stream, header=header, piece=piece, wanted=wanted)
        for number, (_, line, data, reason) in enumerate(scanner, piece.first_row):
            yield BadRow(number, line, reason, data) if reason else Row(number, *_decode(_unquoted(data), encoding))


class _Header(NamedTuple):
    names: tuple[bytes, ...]
    end: int  # the byte after it
    lines: int  # in it and before it


class _Scanner:
    """Walks the rows of a stream: yields (end, line, data, reason) for each.

    `end` is the byte after the row. A good row has reason "", its wanted field as `data`, and line 0, since counting
    lines costs time and few want to know. A bad row has its bytes as `data`.
    """

    def __init__(
        self, path: str, stream: BinaryIO, *, header: _Header, piece: Piece | None = None, wanted: int = 0
    ) -> None:
        self._path, self._stream, self._columns, self._wanted = path, stream, len(header.names), wanted
        self._base, self._line = (piece.start, piece.first_line) if piece else (header.end, header.lines + 1)
        self._stop = piece.start + piece.length if piece and piece.length is not None else None
        self._buffer = b""  # the bytes from `_base` on
        self._counted = 0  # where in the buffer line `_line` is
        self._complete = False  # nothing follows the buffer
        stream.seek(self._base)

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


def _unquoted(field: bytes) -> bytes:
    return field[1:-1].replace(b'""', b'"') if field.startswith(b'"') else field


def _fields(count: int) -> str:
    return f"{count} field{'' if count == 1 else 's'}"


def _decode(field: bytes, encoding: str) -> tuple[str, bool]:
    """Return the text of a field, and whether it had to be read as ISO-8859-1."""
    try:
        return field.decode(encoding), False
    except UnicodeError:
        return field.decode("iso-8859-1"), True


def _read_header(path: str, stream: BinaryIO) -> _Header:
    data = stream.read(_HEADER_BYTES)
    _refuse_other_formats(path, data)
    start = _match_end(_BLANK_LINES, data, len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0)
    if _match_end(_RETURNS, data, start) == len(data):
        raise RemaskError(f"{path}: is empty, expected a first line with the names of the columns")
    fields, end, fault = _parse_fields(data, start, columns=len(data))
    if not fault and len(data) == _HEADER_BYTES and not data.endswith(b"\n", start, end):
        fault = f"it does not end within {_HEADER_BYTES:,} bytes"
    if fault:
        old_mac = f"; if every line ends so, first run: tr '\\r' '\\n' < {path} > new.csv" if "return" in fault else ""
        raise RemaskError(f"{path}: the line with the names of the columns cannot be read: {fault}{old_mac}")
    names = tuple(_unquoted(data[first:after]) for first, after in fields)
    return _Header(names, end, data.count(b"\n", 0, end))


def _refuse_other_formats(path: str, data: bytes) -> None:
    if data.startswith(b"\x1f\x8b"):
        raise RemaskError(f"{path}: is compressed with gzip, expected CSV text: give it a name that ends in .gz")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in data.partition(b"\n")[0]:
        raise RemaskError(
            f"{path}: looks like UTF-16 or UTF-32, or is no text at all, expected text in which a comma is one byte: "
            f"convert it first with iconv -f UTF-16 -t UTF-8 {path} > new.csv"
        )


def _column_index(path: str, header: _Header, *, column: str, encoding: str) -> int:
    names = [_decode(name, encoding)[0] for name in header.names]
    places = [place for place, name in enumerate(names) if name == column]
    if len(places) == 1:
        return places[0]
    if places:
        found = " and ".join(str(place + 1) for place in places)
        raise RemaskError(f"{path}: columns {found} are all named {column!r}, expected one: rename the others")
    alike = {name.strip().lower(): name for name in names}
    close = difflib.get_close_matches(column.strip().lower(), alike, n=1)
    meant = f" (did you mean {alike[close[0]]!r}?)" if close else ""
    shown = ", ".join(repr(name if len(name) <= 40 else name[:37] + "...") for name in names[:20])
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    raise RemaskError(f"{path}: has no column {column!r}{meant}, found {shown}{more}: name one of these with --column")


def _check_encoding(encoding: str) -> None:
    """Refuse an encoding that is unknown, or that uses the bytes of commas, quotes or line ends for anything else."""
    ascii_bytes, others = bytes(range(128)), "".join(map(chr, range(0x80, 0xD800)))
    try:
        alike = ascii_bytes.decode(encoding) == ascii_bytes.decode("ascii")
        alike = alike and not set(b',"\r\n') & set(others.encode(encoding, "ignore"))
    except LookupError:
        raise RemaskError(f"encoding: Python knows no text encoding {encoding!r}, expected one such as utf-8") from None
    except ValueError:
        alike = False
    if not alike:
        raise RemaskError(
            f"encoding: found {encoding!r}, expected one in which commas, quotes and line ends are the bytes of ASCII: "
            f"convert the files first with iconv -f {encoding} -t UTF-8, and read them as utf-8"
        )


@contextmanager
def _open(path: str) -> Iterator[BinaryIO]:
    """Open a file for reading, unpacked if its name ends in .gz: the one place that touches the content of files.

    Raises:
        RemaskError: whatever goes wrong in opening or, in the body of the `with`, in reading.
    """
    _refuse_cloud(path)
    try:
        with open(path, "rb") as stream:
            yield cast(BinaryIO, gzip.GzipFile(fileobj=stream)) if path.endswith(".gz") else stream
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise RemaskError(f"{path}: is not a whole gzip file, as its name says it is: {error}") from error
    except OSError as error:
        raise RemaskError(f"{path}: cannot be read: {error.strerror or error}") from error


def _refuse_cloud(path: str) -> None:
    if path.startswith("gs://"):
        raise RemaskError(f"{path}: gs:// paths are not read yet")
