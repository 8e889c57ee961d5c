"""Documents become sequences of fixed length: one or more segments `[CLS] w1 .. wn [SEP]`, then zeros.

Three ways: `truncate` keeps the first window of a document, `window` makes each window a sequence, and `pack` lets
short windows share a sequence. All work on whole shards at once, as numpy arrays, and depend on their arguments alone.
"""

import hashlib
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.text.ranges import ranges

SPECIALS = 2  # [CLS] and [SEP]


class Windows(NamedTuple):
    """Consecutive pieces of documents, N of them."""

    document: NDArray[np.int64]  # [N] number of the document
    number: NDArray[np.int64]  # [N] of the window within its document
    start: NDArray[np.int64]  # [N] its first token within the document
    length: NDArray[np.int64]  # [N] tokens, special ones not counted


class Sequences(NamedTuple):
    """Which windows make up which sequence: S sequences of N windows."""

    window: NDArray[np.int64]  # [N] numbers of windows, sequence after sequence
    first: NDArray[np.int64]  # [S + 1] where each sequence starts in `window`
    example_id: NDArray[np.int64]  # [S] ascending


def windows(lengths: NDArray[np.integer], *, max_seq_length: int, long_text: str) -> Windows:
    """Cut documents into windows that fit a sequence.

    Args:
        lengths: `[D]` tokens of each document, at least one.
        max_seq_length: values in a sequence.
        long_text: `truncate` keeps the first window of each document only.

    >>> windows(np.array([2, 9]), max_seq_length=6, long_text="window").length.tolist()
    [2, 4, 4, 1]
    """
    room = max_seq_length - SPECIALS
    lengths = lengths.astype(np.int64)
    counts = -(-lengths // room) if long_text != "truncate" else np.ones_like(lengths)
    document = np.repeat(np.arange(len(lengths)), counts)
    number = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
    start = number * room
    return Windows(document, number, start, np.minimum(room, lengths[document] - start))


def places(lengths: NDArray[np.integer], *, max_seq_length: int, long_text: str) -> NDArray[np.int64]:
    """Return how many values of `input_ids` each document takes in its shard, `[D]`, padding included.

    Packed, it is what the document fills, to which the padding of what shares its sequences is still to be added: as
    much again at most, but for one sequence, for a second sequence is only opened by what the first has no room for.

    Args:
        lengths: `[D]` tokens of each document, at least one.
        max_seq_length: values in a sequence.
        long_text: the way documents become sequences.

    >>> [places(np.array([2, 9]), max_seq_length=6, long_text=way).tolist() for way in ("pack", "window", "truncate")]
    [[4, 15], [6, 18], [6, 6]]
    """
    lengths = lengths.astype(np.int64)
    if long_text == "truncate":
        return np.full(len(lengths), max_seq_length, np.int64)
    counts = -(-lengths // (max_seq_length - SPECIALS))
    return (counts * max_seq_length if long_text == "window" else lengths + SPECIALS * counts).astype(np.int64)


def sequences(cut: Windows, document_ids: NDArray[np.uint8], *, max_seq_length: int, long_text: str) -> Sequences:
    """Arrange windows into sequences, ordered by their `example_id`.

    An `example_id` is 63 bits of a digest of the sequence's (document id, window number) pairs: it names the sequence
    by what it holds, and since it is random with regard to the text, ordering by it shuffles the shard.

    Args:
        cut: windows of documents.
        document_ids: `[D, 16]`.
        max_seq_length: values in a sequence.
        long_text: `pack` lets windows share a sequence.

    >>> cut = windows(np.array([2, 8]), max_seq_length=8, long_text="pack")
    >>> ids = np.array([[97] * 16, [98] * 16], np.uint8)
    >>> made = sequences(cut, ids, max_seq_length=8, long_text="pack")
    >>> [cut.length[made.window[a:b]].tolist() for a, b in zip(made.first, made.first[1:])]
    [[2, 2], [6]]
    """
    if long_text == "pack":
        window, held = _packed(cut.length + SPECIALS, max_seq_length)
    else:
        window, held = np.arange(len(cut.length)), np.ones(len(cut.length), np.int64)
    first = np.concatenate(([0], np.cumsum(held)))
    example_id = _example_ids(_names(cut, document_ids)[window], first)
    order = np.argsort(example_id, kind="stable")
    moved = window[ranges(first[order], held[order])]
    return Sequences(moved, np.concatenate(([0], np.cumsum(held[order]))), example_id[order])


def fill(
    made: Sequences,
    cut: Windows,
    tokens: NDArray[np.integer],
    offsets: NDArray[np.integer],
    *,
    max_seq_length: int,
    cls_id: int,
    sep_id: int,
) -> NDArray[np.int32]:
    """Lay out sequences as `input_ids`, int32 `[S, max_seq_length]`.

    Args:
        made: which windows make up which sequence; a slice of a shard's sequences will do.
        cut: windows of documents.
        tokens: ids of all documents, one after the other.
        offsets: `[D]` where each document starts in `tokens`.
        max_seq_length: values in a sequence.
        cls_id: starts each segment.
        sep_id: ends each segment.

    >>> cut = windows(np.array([2, 1]), max_seq_length=8, long_text="pack")
    >>> both = Sequences(np.array([0, 1]), np.array([0, 2]), np.array([7]))
    >>> fill(both, cut, np.array([11, 12, 13]), np.array([0, 2]), max_seq_length=8, cls_id=1, sep_id=2).tolist()
    [[1, 11, 12, 2, 1, 13, 2, 0]]
    """
    held = np.diff(made.first)
    length = cut.length[made.window]
    row = np.repeat(np.arange(len(held)), held)
    ends = np.cumsum(length + SPECIALS)
    before_row = np.concatenate(([0], ends))[made.first[:-1] - made.first[0]]  # places used up by earlier sequences
    place = row * max_seq_length + (ends - length - SPECIALS) - before_row[row]  # of each [CLS] in the flat result
    flat = np.zeros(len(held) * max_seq_length, np.int32)
    flat[place], flat[place + length + 1] = cls_id, sep_id
    source = offsets[cut.document[made.window]] + cut.start[made.window]
    step = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    flat[np.repeat(place + 1, length) + step] = tokens[np.repeat(source, length) + step]
    return flat.reshape(len(held), max_seq_length)


def _packed(sizes: NDArray[np.int64], room: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pack items into bins: best fit, largest first. Return the items, bin after bin, and how many each bin holds.

    Items of more than half the room each open a bin. For the others, sizes being small whole numbers, the open bins are
    kept by the room they have left, and a bit set of the rooms that occur finds the tightest in one step: the time is
    linear in the number of items. (Johnson 1974; packing sequences by size classes is due to Krell et al. 2021,
    arXiv:2107.02027.)
    """
    items = np.argsort(-sizes, kind="stable")
    sizes = sizes[items]
    opening = int(np.count_nonzero(sizes * 2 > room))
    open_bins: list[list[int]] = [[] for _ in range(room + 1)]  # room left -> numbers of bins
    rooms = 0  # bit r is set where open_bins[r] is not empty
    for number, left in enumerate((room - sizes[:opening]).tolist()):
        if left > SPECIALS:
            open_bins[left].append(number)
            rooms |= 1 << left
    bins, opened = list(range(opening)), opening
    for size in sizes[opening:].tolist():
        tighter = rooms >> size
        if tighter:
            left = size + (tighter & -tighter).bit_length() - 1
            number = open_bins[left].pop()
            if not open_bins[left]:
                rooms ^= 1 << left
        else:
            left, number = room, opened
            opened += 1
        bins.append(number)
        if left - size > SPECIALS:
            open_bins[left - size].append(number)
            rooms |= 1 << (left - size)
    bin_of = np.array(bins, np.int64)
    return items[np.argsort(bin_of, kind="stable")], np.bincount(bin_of)


def _names(cut: Windows, document_ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return what identifies each window: the id of its document and its number in it, `[N, 20]`."""
    numbers = cut.number.astype("<u4")[:, None].view(np.uint8)
    return np.concatenate((document_ids[cut.document], numbers), axis=1)


def _example_ids(names: NDArray[np.uint8], first: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 63 bits of a digest of the names that each sequence holds."""
    content, bounds = memoryview(names.tobytes()), (first * names.shape[1]).tolist()
    digests = (hashlib.blake2b(content[start:stop], digest_size=8).digest() for start, stop in pairwise(bounds))
    return (np.frombuffer(b"".join(digests), "<u8") >> np.uint64(1)).astype(np.int64)
