"""Tokenized documents on their way from one half of the job to the other.

Between the rows and the shards every document must meet its duplicates and find its shard: a shuffle. Documents travel
in blocks, sorted by id, of which each shard takes a slice. Beam's local runner keeps what it groups in memory, so there
the blocks lie in files and only references to slices travel, some 50 KB for the documents of 4 MB of text. Between
machines the slices themselves travel, as bytes. A shard is put together in memory, in which a document is held once.
"""

import io
import itertools
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.shards.split import DOCUMENT_ID_BYTES
from records import storage

BUCKETS = 1 << 17
"""Ranges of document ids, from which shards are put together."""

_BATCH_TOKENS = 1 << 25  # read at once, at most but for those of the last part
_BATCH_PARTS = 1 << 18  # one takes some 400 bytes beside its documents
_LENGTH = np.dtype("<u4")
_HEADER = struct.Struct("<IIQ")  # source, documents, tokens


class Block(NamedTuple):
    """The documents of one piece of the input in one split, sorted by id, and an index by bucket."""

    path: str  # of the file that holds them; "" where `content` does
    content: bytes
    source: int  # number of the input file
    split: str
    documents: int
    buckets: NDArray[np.int64]  # [K] that occur, ascending
    document_ends: NDArray[np.int64]  # [K] documents up to the end of each
    token_ends: NDArray[np.int64]  # [K] tokens up to the end of each
    places: NDArray[np.int64]  # [K] values of `input_ids` that the documents of each take


class Slice(NamedTuple):
    """Documents `first` to `last` of a block, and where their tokens are."""

    path: str  # of the block's file; "" where `content` holds these documents and no others
    content: bytes
    source: int
    documents: int  # in the file, or in the content
    first: int
    last: int
    first_token: int
    last_token: int

    def packed(self) -> bytes:
        """Return a slice that has a content as bytes."""
        return _HEADER.pack(self.source, self.documents, self.last_token) + self.content

    @classmethod
    def unpacked(cls, packed: bytes) -> "Slice":
        """Return what was packed.

        >>> Slice.unpacked(Slice("", b"...", 7, 2, 0, 2, 0, 99).packed())
        Slice(path='', content=b'...', source=7, documents=2, first=0, last=2, first_token=0, last_token=99)
        """
        source, documents, tokens = _HEADER.unpack_from(packed)
        return cls("", packed[_HEADER.size :], source, documents, 0, documents, 0, tokens)


class Documents(NamedTuple):
    """D documents of T tokens, sorted by id and, where ids are equal, by source."""

    ids: NDArray[np.uint8]  # [D, 16]
    source: NDArray[np.int64]  # [D]
    length: NDArray[np.int64]  # [D]
    offset: NDArray[np.int64]  # [D] first token of each
    tokens: NDArray[np.integer]  # [T]


def token_type(vocab_size: int) -> np.dtype[np.unsignedinteger]:
    """Return how a token is written.

    >>> token_type(30_522).itemsize, token_type(250_000).itemsize
    (2, 4)
    """
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def make_block(
    path: str,
    ids: NDArray[np.uint8],
    length: NDArray[np.integer],
    offset: NDArray[np.integer],
    tokens: NDArray[np.integer],
    *,
    places: NDArray[np.int64],
    source: int,
    split: str,
    dtype: np.dtype[np.unsignedinteger],
) -> Block:
    """Make a block of documents.

    Args:
        path: of the file to write; "" to keep them in the block.
        ids: `[D, 16]` of the documents, in any order.
        length: `[D]` tokens of each.
        offset: `[D]` where each starts in `tokens`.
        tokens: of these documents, and perhaps of others.
        places: `[D]` values of `input_ids` that each will take, by which shards are planned.
        source: number of the input file they come from.
        split: the one they belong to.
        dtype: of a token, as it is written.
    """
    order = _by_id(ids, np.full(len(ids), source))
    ids, length, offset = ids[order], length[order], offset[order]
    held = [tokens[start:stop] for start, stop in zip(offset.tolist(), (offset + length).tolist(), strict=True)]
    content = b"".join((ids.tobytes(), length.astype(_LENGTH).tobytes(), np.concatenate(held).astype(dtype).tobytes()))
    if path:
        storage.write_bytes(path, content)
    bucket = _bucket(ids)
    last = np.flatnonzero(np.diff(bucket, append=BUCKETS))  # the last document of each bucket
    ends = last + 1, np.cumsum(length, dtype=np.int64)[last]
    taken = np.diff(np.cumsum(places[order])[last], prepend=0)
    return Block(path, b"" if path else content, source, split, len(ids), bucket[last], *ends, taken)


def slices(
    block: Block, shard_of_bucket: NDArray[np.integer], *, dtype: np.dtype[np.unsignedinteger]
) -> Iterator[tuple[int, Slice]]:
    """Yield the part of a block that belongs to each shard, with the shard's number.

    Args:
        block: whose documents are to be dealt out.
        shard_of_bucket: `[BUCKETS]`, never descending.
        dtype: of a token.
    """
    shards = shard_of_bucket[block.buckets]
    document, token = 0, 0
    for last in np.flatnonzero(np.diff(shards, append=-1)).tolist():
        ends = int(block.document_ends[last]), int(block.token_ends[last])
        part = Slice(block.path, b"", block.source, block.documents, document, ends[0], token, ends[1])
        yield int(shards[last]), part if block.path else _cut_out(part, block.content, dtype)
        document, token = ends


def read_slices(parts: Iterable[Slice], *, dtype: np.dtype[np.unsignedinteger]) -> tuple[Documents, NDArray[np.int64]]:
    """Read parts of blocks and merge them: of documents that are equal the one of the first source stays.

    They are merged in batches, each about as large as what is held by then, so that a document takes no more memory
    the more often it occurs: all its copies come to one worker.

    Args:
        parts: in any order.
        dtype: of a token.

    Returns:
        The documents, and how many others there were by source, `[sources]`.
    """
    held, dropped = None, np.zeros(0, np.int64)
    waiting: list[Slice] = []
    tokens = 0
    for part in itertools.chain(parts, [None]):
        if part is not None:
            waiting.append(part)
            tokens += part.last_token - part.first_token
        least = max(_BATCH_TOKENS, len(held.tokens) if held else 0)
        if waiting and (part is None or len(waiting) >= _BATCH_PARTS or tokens >= least):
            read = _read(waiting, dtype)
            held, duplicates = without_duplicates(_merged(held, read) if held else read)
            dropped = _sum(dropped, np.bincount(duplicates))
            waiting, tokens = [], 0
    assert held is not None, "a shard of no documents"
    return held, dropped


def without_duplicates(read: Documents) -> tuple[Documents, NDArray[np.int64]]:
    """Return the first of each document, and the sources of the others, `[duplicates]`."""
    new = np.append(True, (read.ids[1:] != read.ids[:-1]).any(axis=1))
    kept = Documents(read.ids[new], read.source[new], read.length[new], read.offset[new], read.tokens)
    return (_compact(kept) if 2 * kept.length.sum() < len(kept.tokens) else kept), read.source[~new]


def _read(parts: Sequence[Slice], dtype: np.dtype[np.unsignedinteger]) -> Documents:
    """Return the documents of parts."""
    ids, sources, lengths = [], [], []
    tokens = np.empty(sum(part.last_token - part.first_token for part in parts), dtype)
    filled = 0
    for part in parts:
        with storage.open_read(part.path) if part.path else io.BytesIO(part.content) as file:
            read = []
            for start, stop in _places(part, dtype):
                file.seek(start)
                read.append(file.read(stop - start))
        ids.append(np.frombuffer(read[0], np.uint8))
        lengths.append(np.frombuffer(read[1], _LENGTH))
        stop = filled + part.last_token - part.first_token
        tokens[filled:stop] = np.frombuffer(read[2], dtype)
        filled = stop
        sources.append(np.full(part.last - part.first, part.source))
    length = np.concatenate(lengths).astype(np.int64)
    id_ = np.concatenate(ids).reshape(-1, DOCUMENT_ID_BYTES)
    return _sorted(Documents(id_, np.concatenate(sources), length, np.cumsum(length) - length, tokens))


def _merged(one: Documents, other: Documents) -> Documents:
    """Return the documents of both."""
    return _sorted(
        Documents(
            np.concatenate((one.ids, other.ids)),
            np.concatenate((one.source, other.source)),
            np.concatenate((one.length, other.length)),
            np.concatenate((one.offset, other.offset + len(one.tokens))),
            np.concatenate((one.tokens, other.tokens)),
        )
    )


def _sorted(read: Documents) -> Documents:
    order = _by_id(read.ids, read.source)
    return Documents(read.ids[order], read.source[order], read.length[order], read.offset[order], read.tokens)


def _compact(read: Documents) -> Documents:
    """Return the same documents without the tokens of others between theirs."""
    edges = np.zeros(len(read.tokens) + 1, np.int8)
    edges[read.offset] += 1
    edges[read.offset + read.length] -= 1
    place = np.argsort(read.offset)
    offset = np.empty_like(read.offset)
    offset[place] = np.cumsum(read.length[place]) - read.length[place]
    return read._replace(offset=offset, tokens=read.tokens[np.cumsum(edges[:-1], dtype=np.int8).view(np.bool_)])


def _sum(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the sum of counts, of which one may know more sources.

    >>> _sum(np.array([1, 2]), np.array([1, 0, 5])).tolist()
    [2, 2, 5]
    """
    longer, shorter = (one, other) if len(one) > len(other) else (other, one)
    return longer + np.pad(shorter, (0, len(longer) - len(shorter)))


def _places(part: Slice, dtype: np.dtype[np.unsignedinteger]) -> list[tuple[int, int]]:
    """Return the bytes of a block at which the ids, the lengths and the tokens of a slice stand."""
    lengths = part.documents * DOCUMENT_ID_BYTES
    tokens = lengths + part.documents * _LENGTH.itemsize
    return [
        (part.first * DOCUMENT_ID_BYTES, part.last * DOCUMENT_ID_BYTES),
        (lengths + part.first * _LENGTH.itemsize, lengths + part.last * _LENGTH.itemsize),
        (tokens + part.first_token * dtype.itemsize, tokens + part.last_token * dtype.itemsize),
    ]


def _cut_out(part: Slice, content: bytes, dtype: np.dtype[np.unsignedinteger]) -> Slice:
    """Return a slice that holds its documents itself."""
    held = b"".join(content[start:stop] for start, stop in _places(part, dtype))
    count = part.last - part.first
    return Slice("", held, part.source, count, 0, count, 0, part.last_token - part.first_token)


def _by_id(ids: NDArray[np.uint8], source: NDArray[np.integer]) -> NDArray[np.intp]:
    """Return the order of documents by the bytes of their ids and, where those are equal, by source."""
    halves = ids.view(">u8").astype(np.uint64)
    return np.lexsort((source, halves[:, 1], halves[:, 0]))


def _bucket(ids: NDArray[np.uint8]) -> NDArray[np.int64]:
    return (ids[:, :4].view(">u4")[:, 0].astype(np.int64) * BUCKETS) >> 32
