"""Which documents make up a shard, and how a shard is written."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.config import MAX_SHARDS
from pipelines.shards.blocks import Slice, read_slices, token_type
from pipelines.shards.sequences import SPECIALS, Sequences, Windows, fill, sequences, windows
from records import storage
from records.format import example, tfrecord
from records.format.frame import Frame, Sum64
from records.format.manifest import SPLITS, Shard, shard_file

MIN_SHARDS = 8
SHARD_BYTES = 32 << 20
"""What a shard holds on average, at most, unless it is said how many there are to be. See `shard_of_bucket`."""

_CHUNK = 1 << 18  # ids laid out at once


class Layout(NamedTuple):
    """What makes sequences of documents the same everywhere."""

    max_seq_length: int
    long_text: str
    cls_id: int
    sep_id: int
    vocab_size: int
    compress: bool


class ShardKey(NamedTuple):
    """Which shard of which split. It goes with every part of every block, so it travels as a number."""

    split: str
    number: int
    of: int  # how many shards the split has

    @property
    def file(self) -> str:
        """The name of its file.

        >>> ShardKey("train", 3, 16).file
        'train-00003-of-00016.tfrecord'
        """
        return shard_file(self.split, self.number, self.of)

    def packed(self) -> int:
        """Return it as a number, of which Beam makes five bytes at most."""
        return (self.of * (MAX_SHARDS + 1) + self.number) * len(SPLITS) + SPLITS.index(self.split)

    @classmethod
    def unpacked(cls, packed: int) -> "ShardKey":
        """Return what was packed.

        >>> ShardKey.unpacked(ShardKey("validation", 3, 16).packed())
        ShardKey(split='validation', number=3, of=16)
        """
        rest, split = divmod(packed, len(SPLITS))
        of, number = divmod(rest, MAX_SHARDS + 1)
        return cls(SPLITS[split], number, of)


class Kept(NamedTuple):
    """What became of documents. Sums of them are as good."""

    documents: int = 0
    duplicates: int = 0
    tokens_dropped: int = 0


class Written(NamedTuple):
    """A shard, and what became of the documents that were meant for it, by source."""

    split: str
    shard: Shard
    kept: dict[int, Kept]


def bytes_in_places(places: NDArray[np.int64], layout: Layout) -> NDArray[np.int64]:
    """Return the bytes of a shard, before compression, that values of `input_ids` take with all that is around them.

    >>> bytes_in_places(np.array([256]), Layout(128, "window", 101, 102, 30_522, False)).tolist()
    [910]
    """
    return places * Frame(layout.max_seq_length, layout.vocab_size).size // layout.max_seq_length


def shard_of_bucket(size: NDArray[np.integer], *, num_shards: int = 0) -> NDArray[np.int64]:
    """Deal out buckets of documents to shards: neighbours together, about as many bytes to each, none left empty.

    No shard gets more than the mean of all and its heaviest bucket. Where the number is left open the mean is at most
    `SHARD_BYTES`, up to `MAX_SHARDS` of them: beyond 3 TB in one split they grow. A bucket is a 131,072nd of the texts
    and weighs little, but for a text that is itself larger than a shard: no text is cut between two. Packed, a shard
    may take up to twice what was planned where texts do not fit together (`pipelines.shards.sequences.places`); film
    reviews do, to 2 %. Duplicates count in the plan and not in the shard, which then is smaller.

    Args:
        size: `[BUCKETS]` bytes that the documents of each bucket take, before compression.
        num_shards: how many; 0 for at least 8, and as many as keep the mean at `SHARD_BYTES`. Fewer where there are
            fewer buckets with anything in them.

    Returns:
        `[BUCKETS]` numbers of shards, never descending.

    >>> shard_of_bucket(np.array([5, 0, 5, 90, 5, 5]), num_shards=3).tolist()
    [0, 0, 0, 1, 2, 2]
    """
    held = np.flatnonzero(size)
    wanted = num_shards or max(MIN_SHARDS, -(-int(size.sum()) // SHARD_BYTES))
    wanted = min(wanted, MAX_SHARDS)
    count, rank = min(wanted, len(held)), np.arange(len(held))
    middle = np.cumsum(size[held]) - size[held] / 2
    shard = (middle * count / max(1, size.sum())).astype(np.int64)
    shard = np.minimum.accumulate(np.minimum(shard, rank) - rank) + rank  # never skip a shard upwards
    shard = np.maximum(shard, count - len(held) + rank)  # and leave enough for the last ones
    full = np.zeros(len(size), np.int64)
    full[held] = shard
    return np.maximum.accumulate(full)


def write_shard(folder: str, key: ShardKey, parts: Iterable[Slice], *, layout: Layout) -> Written:
    """Read the documents of a shard, drop duplicates, make sequences, and write them in the order of their example ids.

    Args:
        folder: of the data set.
        key: which shard it is.
        parts: of blocks; in any order, the bytes written are the same.
        layout: of the sequences.
    """
    read, duplicates = read_slices(parts, dtype=token_type(layout.vocab_size))
    cut = windows(read.length, max_seq_length=layout.max_seq_length, long_text=layout.long_text)
    made = sequences(cut, read.ids, max_seq_length=layout.max_seq_length, long_text=layout.long_text)

    frame = Frame(layout.max_seq_length, layout.vocab_size)
    total = Sum64(frame)

    def chunks() -> Iterator[bytes]:
        count = max(1, _CHUNK // layout.max_seq_length)
        for start in range(0, len(made.example_id), count):
            chunk = _chunk(made, start, count)
            rows = example.encode(_filled(chunk, cut, read.tokens, read.offset, layout), chunk.example_id, frame)
            total.add(rows)
            yield rows.tobytes()

    path = storage.join(folder, key.file)
    with storage.open_write(path) as file:
        checked = storage.Checksummed(file)
        tfrecord.write(checked, chunks(), compress=layout.compress)
    shard = Shard(
        file=key.file,
        examples=len(made.example_id),
        segments=len(cut.length),
        tokens=int(cut.length.sum()) + SPECIALS * len(cut.length),
        bytes=checked.size,
        crc32c=checked.hexdigest(),
        sum64=total.hexdigest(),
    )
    used = np.bincount(cut.document, weights=cut.length, minlength=len(read.ids)).astype(np.int64)
    cut_off = np.bincount(read.source, weights=read.length - used).astype(np.int64)
    return Written(key.split, shard, _by_source(np.bincount(read.source), duplicates, cut_off))


def _filled(
    chunk: Sequences, cut: Windows, tokens: NDArray[np.integer], offsets: NDArray[np.int64], layout: Layout
) -> NDArray[np.int32]:
    return fill(
        chunk, cut, tokens, offsets, max_seq_length=layout.max_seq_length, cls_id=layout.cls_id, sep_id=layout.sep_id
    )


def _chunk(made: Sequences, start: int, count: int) -> Sequences:
    stop = min(start + count, len(made.example_id))
    first = made.first[start : stop + 1]
    return Sequences(made.window[first[0] : first[-1]], first - first[0], made.example_id[start:stop])


def _by_source(*columns: NDArray[np.int64]) -> dict[int, Kept]:
    """Return what became of the documents of each source that has any, from counts by source, of any lengths."""
    counts = np.array([np.pad(column, (0, max(map(len, columns)) - len(column))) for column in columns]).T
    return {int(source): Kept(*counts[source].tolist()) for source in np.flatnonzero(counts.any(axis=1))}
