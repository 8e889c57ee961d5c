"""A batch of sequences as serialized `tf.train.Example`s and back, without TensorFlow or a Python loop over tokens.

An Example of fixed schema is nearly fixed bytes: protobuf messages are `tag, length, content`, and the only contents
that vary in size are the varints of the ids. So a whole batch is laid out by numpy: the size of each varint, from those
the place of each, then one store for every byte of a varint that is in use. The result is what protobuf writes for the
same message with its map entries in order, byte for byte; a test holds it to TensorFlow's own.
"""

from collections.abc import Iterator, Sequence
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


def decode(payloads: Sequence[bytes], *, max_seq_length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Read what `encode`, or protobuf itself, has written.

    Args:
        payloads: N serialized `tf.train.Example`s.
        max_seq_length: values of `input_ids` in each.

    Returns:
        `input_ids` int64 `[N, max_seq_length]` and `example_id` int64 `[N]`.

    Raises:
        ValueError: one of them is no Example with these features.

    >>> input_ids, example_id = decode(encode(np.array([[101, 7, 102, 0]]), np.array([5])), max_seq_length=4)
    >>> input_ids.tolist(), example_id.tolist()
    ([[101, 7, 102, 0]], [5])
    """
    try:
        lists = [_int_lists(payload) for payload in payloads]
        columns = {name: _numbers([held[name] for held in lists], n) for name, n in features(max_seq_length)}
    except (ValueError, IndexError, KeyError) as error:
        raise ValueError(f"not an Example with {max_seq_length} input_ids and one example_id") from error
    return columns[INPUT_IDS], columns[EXAMPLE_ID][:, 0]


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


def _int_lists(payload: bytes) -> dict[str, bytes]:
    """Return the varints of each feature of an Example."""
    lists = {}
    for _, entries in _fields(payload, 1):
        for _, entry in _fields(entries, 1):
            name, feature = (dict(_fields(entry, 1, 2))[number] for number in (1, 2))
            lists[name.decode()] = dict(_fields(dict(_fields(feature, 3))[3], 1))[1]
    return lists


def _fields(content: bytes, *known: int) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the content of each field of a message, all of which are length-delimited."""
    place = 0
    while place < len(content):
        number, kind = divmod(content[place], 8)
        length, shift = 0, 0
        while True:
            place += 1
            length |= (content[place] & 0x7F) << shift
            shift += 7
            if content[place] < 0x80:
                break
        start, place = place + 1, place + 1 + length
        if number not in known or kind != 2 or place > len(content):
            raise ValueError(f"field {number} of kind {kind}, {length} bytes long")
        yield number, content[start:place]


def _numbers(packed: Sequence[bytes], count: int) -> NDArray[np.int64]:
    """Return the values of rows of varints, each of which holds so many, `[N, count]`."""
    content = np.frombuffer(b"".join(packed), np.uint8)
    last = np.flatnonzero(content < 0x80)  # the last byte of each varint
    bounds, sizes = np.cumsum([0, *map(len, packed)]), np.diff(last, prepend=-1)
    if (np.diff(np.searchsorted(last, bounds)) != count).any() or (content[bounds[1:] - 1] >= 0x80).any():
        raise ValueError(f"not {count} numbers in each row")
    if sizes.max(initial=0) > _VARINT_BYTES:
        raise ValueError("a negative number")
    starts, values = last - sizes + 1, np.zeros(len(last), np.int64)
    for used in range(int(sizes.max(initial=0))):
        held = np.flatnonzero(sizes > used)
        values[held] |= (content[starts[held] + used] & np.uint8(0x7F)).astype(np.int64) << 7 * used
    return values.reshape(len(packed), count)
