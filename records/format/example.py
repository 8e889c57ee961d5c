"""Sequences as records of serialized `tf.train.Example`s and back, whole batches at once, without TensorFlow.

`records.format.frame` says where everything stands; the rest is to spread the bits of numbers over bytes.
"""

from collections.abc import Sequence

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from records.format import tfrecord
from records.format.frame import Frame


def encode(input_ids: NDArray[np.integer], example_id: NDArray[np.integer], frame: Frame) -> NDArray[np.uint8]:
    """Return sequences as they stand in a file.

    Args:
        input_ids: `[N, max_seq_length]`, 0 to below `vocab_size`.
        example_id: `[N]`, non-negative.
        frame: the layout of a record.

    Returns:
        uint8 `[N, frame.size]`: N records, their lengths and CRCs included.

    Raises:
        ValueError: a number that the layout has no room for.

    >>> frame = Frame(max_seq_length=4, vocab_size=30_522)
    >>> rows = encode(np.array([[101, 7, 102, 0]]), np.array([5]), frame)
    >>> rows.shape, bytes(rows[0, frame.input_ids]).hex(" ", 3)
    ((1, 78), 'e58000 878000 e68000 808000')
    """
    rows = np.repeat(frame.template[None], len(input_ids), axis=0)
    _spread(input_ids, rows[:, frame.input_ids])
    _spread(example_id[:, None], rows[:, frame.example_id])
    crcs = [google_crc32c.value(payload.tobytes()) for payload in rows[:, frame.payload]]
    rows[:, frame.payload.stop :] = tfrecord.masked(np.array(crcs, np.int64)).astype("<u4")[:, None].view(np.uint8)
    return rows


def decode(payloads: Sequence[bytes], frame: Frame) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Read the Examples that `encode` has written.

    Args:
        payloads: N serialized `tf.train.Example`s.
        frame: the layout of a record.

    Returns:
        `input_ids` int64 `[N, max_seq_length]` and `example_id` int64 `[N]`.

    Raises:
        ValueError: one of them has another layout.

    >>> frame = Frame(max_seq_length=4, vocab_size=30_522)
    >>> rows = encode(np.array([[101, 7, 102, 0]]), np.array([5]), frame)
    >>> input_ids, example_id = decode([bytes(rows[0, frame.payload])], frame)
    >>> input_ids.tolist(), example_id.tolist()
    ([[101, 7, 102, 0]], [5])
    """
    rows = np.repeat(frame.template[None], len(payloads), axis=0)
    size = frame.payload.stop - frame.payload.start
    same_size = {len(payload) for payload in payloads} <= {size}
    if same_size:
        rows[:, frame.payload] = np.frombuffer(b"".join(payloads), np.uint8).reshape(-1, size)
    if not same_size or ((rows ^ frame.template) & ~frame.varies).any():
        raise ValueError(
            f"not an Example with {frame.max_seq_length} input_ids and one example_id, laid out as ours are"
        )
    return _gathered(rows[:, frame.input_ids], frame.max_seq_length), _gathered(rows[:, frame.example_id], 1)[:, 0]


def _spread(numbers: NDArray[np.integer], content: NDArray[np.uint8]) -> None:
    """Write the bits of `[N, M]` numbers into `[N, M * size]` bytes that hold as many zeros."""
    size = content.shape[1] // numbers.shape[1]
    if numbers.size and (numbers.min() < 0 or int(numbers.max()) >> 7 * size):
        raise ValueError(f"numbers from {numbers.min()} to {numbers.max()} in {size} bytes")
    for byte in range(size):
        content[:, byte::size] |= (numbers >> 7 * byte).astype(np.uint8) & np.uint8(0x7F)


def _gathered(content: NDArray[np.uint8], count: int) -> NDArray[np.int64]:
    """Return the `[N, count]` numbers of `[N, count * size]` bytes."""
    size = content.shape[1] // count
    septets = (content & np.uint8(0x7F)).astype(np.int64).reshape(len(content), count, size)
    return (septets << 7 * np.arange(size)).sum(2)
