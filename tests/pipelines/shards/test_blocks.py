from unittest import mock

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.shards import blocks
from pipelines.shards.blocks import BUCKETS, Slice, make_block, read_slices, slices

TOKEN = np.dtype("<u4")
IDS = st.lists(st.binary(min_size=16, max_size=16), min_size=1, max_size=20)


def words_of(id_):
    """Return the tokens of a document, which for these tests are a function of its id."""
    return np.frombuffer(id_[: 4 * (1 + id_[5] % 4)], "<u4").astype(np.int64)


def block(folder, name, ids, source=0):
    """Write documents; between their tokens are those of others, which belong elsewhere."""
    tokens, length = [words_of(id_) for id_ in ids], np.array([len(words_of(id_)) for id_ in ids])
    others = np.array([7, 7, 7])
    return make_block(
        str(folder / name) if folder else "",
        np.frombuffer(b"".join(ids), np.uint8).reshape(-1, 16),
        length,
        np.cumsum(length + 3) - length,
        np.concatenate([part for held in tokens for part in (others, held)]),
        places=length * 10,
        source=source,
        split="train",
        dtype=TOKEN,
    )


def check_tokens(read):
    for id_, offset, length in zip(ids_of(read), read.offset, read.length, strict=True):
        assert read.tokens[offset : offset + length].tolist() == words_of(id_).tolist()


def ids_of(read):
    return list(map(bytes, read.ids))


@given(ids=IDS, data=st.data(), in_file=st.booleans())
def test_slices_read_back_what_was_written(tmp_path_factory, ids, data, in_file):
    folder = tmp_path_factory.mktemp("blocks") if in_file else None
    written = block(folder, "a", ids)
    cuts = sorted(data.draw(st.lists(st.integers(0, BUCKETS), max_size=3)))
    shard_of_bucket = np.searchsorted(cuts, np.arange(BUCKETS), side="right")
    found = []
    for number, part in slices(written, shard_of_bucket, dtype=TOKEN):
        read, dropped = read_slices([part if in_file else Slice.unpacked(part.packed())], dtype=TOKEN)
        assert len(read.ids) + dropped.sum() == part.last - part.first
        assert {number} == {
            int(shard_of_bucket[int.from_bytes(id_[:4], "big") * BUCKETS >> 32]) for id_ in ids_of(read)
        }
        check_tokens(read)
        found += ids_of(read)
    assert found == sorted(set(ids))


def test_an_index_says_what_the_documents_of_each_bucket_take():
    low, high = b"\x00" * 15, b"\xff" * 15
    ids = [high + b"b", low + b"a", high + b"a", low + b"b"]
    written = block(None, "", ids)
    lengths = [[len(words_of(id_)) for id_ in ids if id_.startswith(first)] for first in (low[:1], high[:1])]
    assert written.buckets.tolist() == [0, BUCKETS - 1]
    assert written.places.tolist() == [10 * sum(each) for each in lengths]
    assert written.token_ends.tolist() == [sum(lengths[0]), sum(map(sum, lengths))]


def test_ids_that_end_in_zeros_survive(tmp_path):
    ids = [b"\x01" + bytes(15), bytes(16)]
    (_, part), *rest = slices(block(tmp_path, "a", ids), np.zeros(BUCKETS, int), dtype=TOKEN)
    assert not rest
    assert ids_of(read_slices([part], dtype=TOKEN)[0]) == sorted(ids)


def test_of_duplicates_the_one_of_the_first_source_stays_whatever_the_order_of_reading(tmp_path):
    one, two = b"a" * 16, b"b" * 16
    parts = []
    for source, ids in ((2, [one]), (0, [one, two]), (1, [two, two])):
        parts += [
            part for _, part in slices(block(tmp_path, str(source), ids, source), np.zeros(BUCKETS, int), dtype=TOKEN)
        ]
    for order in (parts, parts[::-1]):
        kept, dropped = read_slices(order, dtype=TOKEN)
        assert ids_of(kept) == [one, two]
        assert kept.source.tolist() == [0, 0]
        assert dropped.tolist() == [0, 2, 1]
        check_tokens(kept)


@given(
    blocks_of=st.lists(
        st.lists(st.sampled_from([bytes([number]) * 16 for number in range(6)]), min_size=1), min_size=1
    ),
    batch=st.integers(1, 30),
)
def test_a_document_takes_no_more_memory_the_more_often_it_occurs(blocks_of, batch):
    """Batches of any size give the same documents, and hold few tokens beside theirs."""
    parts = []
    for source, ids in enumerate(blocks_of):
        parts += [part for _, part in slices(block("", "", ids, source), np.zeros(BUCKETS, int), dtype=TOKEN)]
    at_once, dropped_at_once = read_slices(parts, dtype=TOKEN)
    with mock.patch.multiple(blocks, _BATCH_TOKENS=batch, _BATCH_PARTS=3):
        read, dropped = read_slices(parts, dtype=TOKEN)
    assert ids_of(read) == ids_of(at_once) == sorted({id_ for ids in blocks_of for id_ in ids})
    assert read.source.tolist() == at_once.source.tolist()
    assert dropped.tolist() == dropped_at_once.tolist()
    assert len(read.tokens) <= 2 * read.length.sum()
    check_tokens(read)
