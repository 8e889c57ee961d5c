"""A batch of sequences as serialized `tf.train.Example`s, without TensorFlow and without a Python loop over tokens.

An Example of fixed schema is nearly fixed bytes: protobuf messages are `tag, length, content`, and the only contents
that vary in size are the varints of the ids. So a whole batch is laid out by numpy: the size of each varint, from those
the place of each, then one store for every byte of a varint that is in use. The result is what protobuf writes for the
same message with its map entries in order, byte for byte; a test holds it to TensorFlow's own.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from records.schema import EXAMPLE_ID, INPUT_IDS, features

_VARINT_BYTES = 9  # of a non-negative int64


def encode(input_ids: NDArray[np.integer], example_id: NDArray[np.integer]) -> list[bytes]:
    """Serialize sequences.

    Args:
        input_ids: `[N, max_seq_length]`, non-negative.
        example_id: `[N]`, non-negative.

    Returns:
        `N` serialized `tf.train.Example`s with the features of `records.schema`.

    >>> [example] = encode(np.array([[101, 7, 102, 0]]), np.array([5]))
    >>> len(example), list(example[-4:])
    (46, [101, 7, 102, 0])
    """
    values = {INPUT_IDS: input_ids, EXAMPLE_ID: example_id[:, None]}
    entries = [_feature(name, values[name]) for name, _ in features(input_ids.shape[1])]
    return [_message(1, b"".join(parts)) for parts in zip(*entries, strict=True)]


def _feature(name: str, values: NDArray[np.integer]) -> list[bytes]:
    """Return `Features.feature` map entries `{name: Feature(int64_list=values[i])}`, one a row."""
    key = _message(1, name.encode())
    content, bounds = _varints(values)
    return [
        _message(1, key + _message(2, _message(3, _message(1, content[start:stop]))))
        for start, stop in pairwise(bounds)
    ]


def _message(field_number: int, content: bytes) -> bytes:
    """Return a length-delimited field: tag, length, content."""
    length = len(content)
    if length < 0x80:
        return bytes((field_number << 3 | 2, length)) + content
    if length < 0x4000:
        return bytes((field_number << 3 | 2, length & 0x7F | 0x80, length >> 7)) + content
    if length < 0x200000:
        return bytes((field_number << 3 | 2, length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14)) + content
    raise ValueError(f"a feature of {length} bytes is beyond any sequence")


def _varints(values: NDArray[np.integer]) -> tuple[bytes, list[int]]:
    """Return the varints of all values, row after row, and where each row starts and the last one ends."""
    flat = values.astype(np.uint64).ravel()
    sizes = np.ones(flat.shape, np.int64)
    for used in range(1, _VARINT_BYTES):
        longer = flat >= np.uint64(1 << 7 * used)
        if not longer.any():
            break
        sizes += longer
    ends = np.cumsum(sizes)
    starts = ends - sizes
    content = np.empty(ends[-1] if ends.size else 0, np.uint8)
    for used in range(int(sizes.max(initial=1))):
        held = np.flatnonzero(sizes > used)
        septet = (flat[held] >> np.uint64(7 * used)) & np.uint64(0x7F)
        content[starts[held] + used] = septet | np.where(sizes[held] > used + 1, 0x80, 0).astype(np.uint64)
    return content.tobytes(), [0, *ends[values.shape[1] - 1 :: values.shape[1]].tolist()]
