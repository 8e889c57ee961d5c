"""Tokenized documents on their way from one half of the job to the other.

Between the rows and the shards every document must meet its duplicates and find its shard: a shuffle. Beam's local
runner keeps what it groups in memory, so only references travel through it: the documents lie in block files, sorted by
id, and what is grouped are byte ranges of them, some 50 KB for the documents of 4 MB of text. A shard is put together
in memory.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.config import MAX_SHARDS
from pipelines.split import DOCUMENT_ID_BYTES
from records import storage

BUCKETS = MAX_SHARDS
"""Ranges of document ids, from which shards are put together."""

_NUMBER = np.dtype("<u4")  # lengths and tokens


class Block(NamedTuple):
    """A block file: the documents of one piece of the input in one split, sorted by id, and an index by bucket."""

    path: str
    source: int  # number of the input file
    split: str
    documents: int
    buckets: NDArray[np.int64]  # [K] that occur, ascending
    document_ends: NDArray[np.int64]  # [K] documents up to the end of each
    token_ends: NDArray[np.int64]  # [K] tokens up to the end of each


class Slice(NamedTuple):
    """Documents `first` to `last` of a block file, and where their tokens are."""

    path: str
    source: int
    documents: int  # in the whole file
    first: int
    last: int
    first_token: int
    last_token: int


class Documents(NamedTuple):
    """D documents of T tokens, sorted by id and, where ids are equal, by source."""

    ids: NDArray[np.uint8]  # [D, 16]
    source: NDArray[np.int64]  # [D]
    length: NDArray[np.int64]  # [D]
    offset: NDArray[np.int64]  # [D] first token of each
    tokens: NDArray[np.integer]  # [T]


def write_block(
    path: str,
    ids: NDArray[np.uint8],
    length: NDArray[np.integer],
    offset: NDArray[np.integer],
    tokens: NDArray[np.integer],
    *,
    source: int,
    split: str,
) -> Block:
    """Write documents to a file.

    Args:
        path: of the file.
        ids: `[D, 16]` of the documents, in any order.
        length: `[D]` tokens of each.
        offset: `[D]` where each starts in `tokens`.
        tokens: of these documents, and perhaps of others.
        source: number of the input file they come from.
        split: the one they belong to.
    """
    order = _by_id(ids, np.full(len(ids), source))
    ids, length, offset = ids[order], length[order], offset[order]
    with storage.open_write(path) as file:
        file.write(ids.tobytes())
        file.write(length.astype(_NUMBER).tobytes())
        held = [tokens[start:stop] for start, stop in zip(offset.tolist(), (offset + length).tolist(), strict=True)]
        file.write(np.concatenate(held).astype(_NUMBER, copy=False).tobytes())
    bucket = _bucket(ids)
    last = np.flatnonzero(np.diff(bucket, append=BUCKETS))  # the last document of each bucket
    return Block(path, source, split, len(ids), bucket[last], last + 1, np.cumsum(length, dtype=np.int64)[last])


def slices(block: Block, shard_of_bucket: NDArray[np.integer]) -> Iterator[tuple[int, Slice]]:
    """Yield the part of a block that belongs to each shard, with the shard's number.

    Args:
        block: whose documents are to be dealt out.
        shard_of_bucket: `[BUCKETS]`, never descending.
    """
    shards = shard_of_bucket[block.buckets]
    document, token = 0, 0
    for last in np.flatnonzero(np.diff(shards, append=-1)).tolist():
        ends = int(block.document_ends[last]), int(block.token_ends[last])
        yield int(shards[last]), Slice(block.path, block.source, block.documents, document, ends[0], token, ends[1])
        document, token = ends


def read_slices(parts: Iterable[Slice]) -> Documents:
    """Read parts of block files and merge them."""
    parts = list(parts)
    ids, sources, lengths = [], [], []
    tokens = np.empty(sum(part.last_token - part.first_token for part in parts), _NUMBER)
    filled = 0
    for part in parts:
        count, tokens_start = part.last - part.first, part.documents * (DOCUMENT_ID_BYTES + _NUMBER.itemsize)
        token_count = part.last_token - part.first_token
        with storage.open_read(part.path) as file:
            file.seek(part.first * DOCUMENT_ID_BYTES)
            ids.append(np.frombuffer(file.read(count * DOCUMENT_ID_BYTES), np.uint8))
            file.seek(part.documents * DOCUMENT_ID_BYTES + part.first * _NUMBER.itemsize)
            lengths.append(np.frombuffer(file.read(count * _NUMBER.itemsize), _NUMBER))
            file.seek(tokens_start + part.first_token * _NUMBER.itemsize)
            tokens[filled : filled + token_count] = np.frombuffer(file.read(token_count * _NUMBER.itemsize), _NUMBER)
        filled += token_count
        sources.append(np.full(count, part.source))
    id_, source = np.concatenate(ids).reshape(-1, DOCUMENT_ID_BYTES), np.concatenate(sources)
    length = np.concatenate(lengths).astype(np.int64)
    offset = np.cumsum(length) - length
    order = _by_id(id_, source)
    return Documents(id_[order], source[order], length[order], offset[order], tokens)


def without_duplicates(read: Documents) -> tuple[Documents, NDArray[np.int64]]:
    """Return the first of each document, and the sources of the others, `[duplicates]`."""
    new = np.append(True, (read.ids[1:] != read.ids[:-1]).any(axis=1))
    kept = Documents(read.ids[new], read.source[new], read.length[new], read.offset[new], read.tokens)
    return kept, read.source[~new]


def _by_id(ids: NDArray[np.uint8], source: NDArray[np.integer]) -> NDArray[np.intp]:
    """Return the order of documents by the bytes of their ids and, where those are equal, by source."""
    halves = ids.view(">u8").astype(np.uint64)
    return np.lexsort((source, halves[:, 1], halves[:, 0]))


def _bucket(ids: NDArray[np.uint8]) -> NDArray[np.int64]:
    return (ids[:, :4].view(">u4")[:, 0].astype(np.int64) * BUCKETS) >> 32
