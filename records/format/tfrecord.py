"""The frame of a TFRecord file: length, CRC of the length, payload, CRC of the payload.

The format is TensorFlow's (tensorflow/core/lib/io/record_writer.h): little-endian, CRC-32C, masked so that a CRC may be
stored among data that is itself checked by CRC. Nothing here needs TensorFlow, so a Beam worker does not.
"""

import gzip
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, Protocol, TypeVar

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from records.errors import Damaged

HEADER_BYTES, FOOTER_BYTES = 12, 4

Crc = TypeVar("Crc", int, NDArray[np.int64])

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")


class Writable(Protocol):
    """As much of a binary file as writing needs."""

    def write(self, content: bytes, /) -> object:
        """Write bytes."""

    def writelines(self, contents: Iterable[bytes], /) -> None:
        """Write each."""

    def flush(self) -> object:
        """Pass on what is held back."""


def masked_crc(content: bytes) -> int:
    """Return the CRC-32C of `content`, rotated and offset as TFRecord files store it.

    >>> hex(masked_crc(b"remask"))
    '0x606ca65'
    """
    return masked(google_crc32c.value(content))


def masked(crc: Crc) -> Crc:
    """Return a CRC, or an int64 array of them, rotated and offset as TFRecord files store them."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def framed(payload: bytes) -> bytes:
    """Return one record as it stands in the file."""
    length = len(payload).to_bytes(8, "little")
    return b"".join((length, _FOOTER.pack(masked_crc(length)), payload, _FOOTER.pack(masked_crc(payload))))


def write(file: Writable, records: Iterable[bytes], *, compress: bool = False) -> None:
    """Write framed records, one or many at once, to an open file.

    The same records give the same bytes; compressed, if it is the same zlib.

    >>> import io
    >>> file = io.BytesIO()
    >>> write(file, [framed(b"one"), framed(b"two")])
    >>> len(file.getvalue()), list(read(io.BytesIO(file.getvalue()), name="file"))
    (38, [b'one', b'two'])
    """
    if compress:
        with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=6, mtime=0, filename="") as zipped:
            zipped.writelines(records)
    else:
        file.writelines(records)


def read(file: IO[bytes], *, name: str, compress: bool = False) -> Iterator[bytes]:
    """Yield the payloads of an open file, checking both CRCs of each.

    Raises:
        Damaged: a record is cut short or fails its CRC; the text names the file and the record, counted from 0.
    """
    stream: IO[bytes] = gzip.GzipFile(fileobj=file, mode="rb") if compress else file  # type: ignore[assignment]
    index = 0
    try:
        while header := stream.read(_HEADER.size):
            if len(header) < _HEADER.size:
                raise Damaged(f"{name}, record {index}: the file ends inside the record's header")
            length, length_crc = _HEADER.unpack(header)
            if masked_crc(header[:8]) != length_crc:
                raise Damaged(f"{name}, record {index}: the CRC of its length is wrong")
            payload, footer = stream.read(length), stream.read(_FOOTER.size)
            if len(payload) < length or len(footer) < _FOOTER.size:
                raise Damaged(f"{name}, record {index}: the file ends inside the record")
            if _FOOTER.pack(masked_crc(payload)) != footer:
                raise Damaged(f"{name}, record {index}: the CRC of its content is wrong")
            yield payload
            index += 1
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise Damaged(f"{name}, record {index}: the compressed file is damaged ({error})") from error
