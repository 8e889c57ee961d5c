"""The layout of a record in its file, byte by byte: what the writer fills in, and where the reader looks.

All records of a data set have the same layout. Protobuf leaves open how long a varint is: `85 80 00` is a 5 as `05` is,
only not the shortest, and every parser reads it. So all ids are written with as many bytes as the largest of the
vocabulary needs, and each example_id with nine. Then lengths, tags and names are the same bytes in all records, and a
shard is a table of bytes, which numpy writes and TensorFlow reads without a loop over records. To everybody else it is
a TFRecord file of `tf.train.Example`s.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from records.format import tfrecord
from records.format.schema import EXAMPLE_ID, INPUT_IDS, features

SUM_MULTIPLIER = 0x9E3779B97F4A7C15
"""2**64 / golden ratio, by which the sums of rows are mixed."""

_EXAMPLE_ID_BYTES = 9  # a varint of 63 bits


@dataclass(frozen=True)
class Frame:
    """Where things stand in a record, its length and its CRCs included.

    >>> Frame(max_seq_length=128, vocab_size=30_522).size
    455
    """

    max_seq_length: int
    vocab_size: int

    @property
    def id_bytes(self) -> int:
        """Bytes of each of the `input_ids`, seven bits a byte, the lowest first."""
        return max(1, -(-(self.vocab_size - 1).bit_length() // 7))

    @property
    def size(self) -> int:
        """Bytes of a record."""
        return len(self.template)

    @property
    def input_ids(self) -> slice:
        """Where the `input_ids` stand."""
        end = self.size - tfrecord.FOOTER_BYTES
        return slice(end - self.max_seq_length * self.id_bytes, end)

    @property
    def example_id(self) -> slice:
        """Where the nine bytes of `example_id` stand."""
        end = self.size - tfrecord.FOOTER_BYTES - len(_entry(INPUT_IDS, self._zeros[INPUT_IDS]))
        return slice(end - _EXAMPLE_ID_BYTES, end)

    @property
    def payload(self) -> slice:
        """Where the serialized `tf.train.Example` stands."""
        return slice(tfrecord.HEADER_BYTES, self.size - tfrecord.FOOTER_BYTES)

    @cached_property
    def template(self) -> NDArray[np.uint8]:
        """The record in which all numbers are 0, `[size]`."""
        entries = [_entry(name, self._zeros[name]) for name, _ in features(self.max_seq_length)]
        return np.frombuffer(tfrecord.framed(_message(1, b"".join(entries))), np.uint8)

    @cached_property
    def varies(self) -> NDArray[np.uint8]:
        """The bits in which records differ, `[size]`: those of the numbers, and the CRC."""
        bits = np.zeros(self.size, np.uint8)
        bits[self.input_ids] = bits[self.example_id] = 0x7F
        bits[self.payload.stop :] = 0xFF
        return bits

    @property
    def padding(self) -> int:
        """Bytes of 0 that make a record a row of 64-bit words."""
        return -self.size % 8

    @property
    def sum_keys(self) -> NDArray[np.uint64]:
        """Odd numbers by which the words of a row are multiplied in `Sum64`."""
        words = (self.size + self.padding) // 8
        return np.frombuffer(hashlib.shake_128(b"sum64").digest(8 * words), "<u8") | np.uint64(1)

    @property
    def _zeros(self) -> dict[str, bytes]:
        """The content of each feature, where all numbers are 0."""
        return {INPUT_IDS: _zero(self.id_bytes) * self.max_seq_length, EXAMPLE_ID: _zero(_EXAMPLE_ID_BYTES)}


class Sum64:
    """A 64-bit checksum of records, in whatever order they are.

    TensorFlow has no operation for a CRC, but it multiplies and adds 64-bit words as fast as memory is read, and so
    the reader checks this one (`records.format.reader.sum64`). As all factors are odd, whatever changes in a single
    word changes the sum; any other damage is missed once in 2**64.
    """

    def __init__(self, frame: Frame) -> None:
        self._frame, self._sum = frame, 0

    def add(self, rows: NDArray[np.uint8]) -> None:
        """Add records, `[N, frame.size]`."""
        words = np.pad(rows, ((0, 0), (0, self._frame.padding))).view("<u8")
        sums = (words * self._frame.sum_keys).sum(1, dtype=np.uint64)
        # Mixed, so that equal and opposite changes of two rows do not cancel.
        mixed = (sums ^ sums >> np.uint64(32)) * np.uint64(SUM_MULTIPLIER)
        self._sum = (self._sum + int(mixed.sum(dtype=np.uint64))) % 2**64

    def hexdigest(self) -> str:
        """Return the sum as the manifest holds it: 16 hexadecimal digits."""
        return f"{self._sum:016x}"


def _entry(name: str, content: bytes) -> bytes:
    """Return the `Features.feature` map entry `{name: Feature(int64_list=...)}`: it ends with its content."""
    return _message(1, _message(1, name.encode()) + _message(2, _message(3, _message(1, content))))


def _message(field_number: int, content: bytes) -> bytes:
    """Return a length-delimited field: tag, length, content."""
    length, left = bytearray(), len(content)
    while left >= 0x80:
        length.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes((field_number << 3 | 2, *length, left)) + content


def _zero(size: int) -> bytes:
    """Return a varint of 0 that takes so many bytes."""
    return b"\x80" * (size - 1) + b"\x00"
