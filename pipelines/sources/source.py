"""Streams CSV files of any size as numbered rows, in parallel, and says exactly which rows are bad and why.

A CSV file cannot be cut at just any line, since a quoted field may hold line ends. So one cheap pass cuts a file into
pieces that end where rows end (`split_source`), and each piece is then read on its own (`read_piece`). Both walk the
file with the same `rows.Scanner`, whose only state is its position: they cannot disagree about a row.
"""

import codecs
import dataclasses
import difflib
import glob
import gzip
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, cast

from pipelines.sources.rows import Scanner, parse_first_row, unquoted
from records import storage, typed_json
from records.errors import RemaskError
from records.storage import disk

_HEADER_BYTES = 1 << 18


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
    generation: int  # of the file, when it was split


def find_sources(patterns: Sequence[str]) -> tuple[str, ...]:
    """Return the files that paths and globs (with `**`) stand for, sorted, each once.

    Raises:
        RemaskError: a pattern that stands for no file, or for a directory.
    """
    found: dict[str, str] = {}  # by real path: the same file by two names would be all duplicates
    for pattern in patterns:
        if storage.is_remote(pattern):
            files = storage.matching(pattern)
            found.update(zip(files, files, strict=True))
        else:
            paths = [pattern] if os.path.exists(pattern) else glob.glob(pattern, recursive=True)
            files = [os.path.normpath(path) for path in paths if not os.path.isdir(path)]
            disk.check_names(files)
            found.update((os.path.realpath(file), file) for file in files)
        if not files and storage.exists(pattern):
            raise RemaskError(f"{pattern}: is a directory, expected CSV files: give '{storage.join(pattern, '*.csv')}'")
        if not files:
            raise RemaskError(f"no such file: {pattern}")
    return tuple(sorted(found.values()))


def names(paths: Sequence[str]) -> tuple[str, ...]:
    """Return what to call files in a manifest: their paths from the folder that holds them all.

    >>> names(["gs://bucket/a/1.csv", "gs://bucket/a/b/2.csv"])
    ('1.csv', 'b/2.csv')
    """
    if all(map(storage.is_remote, paths)):
        full = list(paths)
    elif any(map(storage.is_remote, paths)):
        return tuple(paths)
    else:
        full = [os.path.abspath(path) for path in paths]
    folder = os.path.commonpath([os.path.dirname(path) for path in full])
    return tuple(os.path.relpath(path, folder) for path in full)


@dataclass(frozen=True)
class Listed:
    """One file of the input."""

    path: str
    name: str  # in the manifest


@dataclass(frozen=True)
class _List:
    """All files of the input, in the order of their numbers."""

    sources: tuple[Listed, ...]


def write_list(path: str, sources: Sequence[str]) -> None:
    """Write down what the files of the input are, for the workers."""
    listed = _List(tuple(Listed(*each) for each in zip(sources, names(sources), strict=True)))
    storage.write_bytes(path, json.dumps(dataclasses.asdict(listed)).encode())


def read_list(path: str) -> tuple[Listed, ...]:
    """Return what was written down."""
    return typed_json.read(_List, storage.read_bytes(path), name=path, advice="run the same command again").sources


def check_source(path: str, *, column: str, encoding: str) -> None:
    """Read the header of a CSV file, so that what can never work fails at once.

    Raises:
        RemaskError: the file cannot be read, has no header or no such column, or `encoding` is not one in which
            commas, quotes and line ends are the bytes of ASCII.
    """
    _check_encoding(encoding)
    with _open(path, until=_HEADER_BYTES) as stream:
        _column_index(path, _read_header(path, stream), column=column, encoding=encoding)


def split_source(path: str, *, source: int, piece_bytes: int = 4 << 20) -> Iterator[Piece]:
    """Cut a CSV file into pieces, from the end of its header to its last byte.

    A piece ends with the first row that brings it to `piece_bytes`. A file that is no larger is one piece, which nobody
    has to look at before; so is a .gz file, which can only be read from its start.

    Args:
        path: the file.
        source: its number, for the pieces.
        piece_bytes: least size of each piece but the last.

    Raises:
        RemaskError: the file or its header cannot be read.
    """
    generation = storage.generation(path)
    with _open(path) as stream:
        header = _read_header(path, stream)
        start, row, line = header.end, 1, header.lines + 1
        if path.endswith(".gz"):
            yield Piece(path, source, start, None, row, line, generation)
            return
        size = stream.seek(0, os.SEEK_END)
        if size - start <= piece_bytes:
            if size > start:
                yield Piece(path, source, start, size - start, row, line, generation)
            return
        scanner = Scanner(stream, path=path, columns=len(header.names), start=start, line=line)
        for number, (end, *_) in enumerate(scanner, 1):
            if end - start >= piece_bytes:
                yield Piece(path, source, start, end - start, row, line, generation)
                start, row, line = end, number + 1, scanner.line_at(end)
        if start < scanner.end:
            yield Piece(path, source, start, scanner.end - start, row, line, generation)


def read_piece(piece: Piece, *, column: str, encoding: str) -> Iterator[Row | BadRow]:
    """Read the rows of a piece in order. Each line that is not blank belongs to exactly one `Row` or `BadRow`.

    A row with too few or too many fields is bad as a whole. A row that does not parse (an open quote, text after a
    closing quote, a carriage return on its own, more than `rows.MAX_RECORD_BYTES`) is bad with its first line alone,
    and reading goes on at the next line: an open quote never takes the rows after it along. If the row did have
    further lines, they are then read as rows themselves. Most have the wrong number of fields, but one that happens to
    look like a row is taken for one.

    Memory is bounded by `rows.MAX_RECORD_BYTES` and in practice by the longest row, whatever the size of the file.

    Args:
        piece: from `split_source`.
        column: name of the column of the text.
        encoding: of the file; a text that does not decode in it is read as ISO-8859-1, in which everything decodes.

    Raises:
        RemaskError: the file cannot be read, is damaged, or is no longer the file that was split.
    """
    stop = None if piece.length is None else piece.start + piece.length
    with _open(piece.path, until=stop) as stream:
        header = _read_header(piece.path, stream)
        wanted = _column_index(piece.path, header, column=column, encoding=encoding)
        columns, start, line = len(header.names), piece.start, piece.first_line
        scanner = Scanner(stream, path=piece.path, columns=columns, start=start, line=line, stop=stop, wanted=wanted)
        for number, (_, line, data, reason) in enumerate(scanner, piece.first_row):
            yield BadRow(number, line, reason, data) if reason else Row(number, *decode(unquoted(data), encoding))
    if storage.generation(piece.path) != piece.generation:  # cut at the places of another file, rows would get lost
        raise RemaskError(f"{piece.path}: replaced while the job read it; run the same command again")


class _Header(NamedTuple):
    names: tuple[bytes, ...]
    end: int  # the byte after it
    lines: int  # in it and before it


def decode(field: bytes, encoding: str) -> tuple[str, bool]:
    """Return the text of a field, and whether it had to be read as ISO-8859-1."""
    try:
        return field.decode(encoding), False
    except UnicodeError:
        return field.decode("iso-8859-1"), True


def _read_header(path: str, stream: BinaryIO) -> _Header:
    data = stream.read(_HEADER_BYTES)
    _refuse_other_formats(path, data)
    row = parse_first_row(data, len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0)
    if row is None:
        raise RemaskError(f"{path}: is empty, expected a first line with the names of the columns")
    names, end, fault = row
    if not fault and len(data) == _HEADER_BYTES and data[end - 1 : end] != b"\n":
        fault = f"it does not end within {_HEADER_BYTES:,} bytes"
    if fault:
        old_mac = f"; if every line ends so, first run: tr '\\r' '\\n' < {path} > new.csv" if "return" in fault else ""
        raise RemaskError(f"{path}: the line with the names of the columns cannot be read: {fault}{old_mac}")
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
    names = [decode(name, encoding)[0] for name in header.names]
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
def _open(path: str, *, until: int | None = None) -> Iterator[BinaryIO]:
    """Open a file for reading, unpacked if its name ends in .gz: the one place that touches the content of files.

    Args:
        path: of the file.
        until: the byte of the file before which reading will stop, where that is known.

    Raises:
        RemaskError: whatever goes wrong in opening or, in the body of the `with`, in reading.
    """
    try:
        with storage.open_read(path, until=until) if storage.is_remote(path) else open(path, "rb") as stream:
            yield cast(BinaryIO, gzip.GzipFile(fileobj=stream) if path.endswith(".gz") else stream)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise RemaskError(f"{path}: is not a whole gzip file, as its name says it is: {error}") from error
    except OSError as error:
        raise RemaskError(f"{path}: cannot be read: {error.strerror or error}") from error
