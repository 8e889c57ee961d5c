import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config import MAX_SHARDS
from pipelines.shards.blocks import BUCKETS
from pipelines.shards.shards import SHARD_BYTES, Layout, ShardKey, bytes_in_places, shard_of_bucket
from records.format.manifest import SPLITS


@given(tokens=st.lists(st.integers(0, 50), min_size=1, max_size=60), num_shards=st.integers(0, 12))
def test_neighbours_stay_together_and_no_shard_is_empty(tokens, num_shards):
    shards = shard_of_bucket(np.array(tokens), num_shards=num_shards)
    held = np.array(tokens) > 0
    wanted = min(num_shards or 8, held.sum())
    assert (np.diff(shards) >= 0).all()
    assert sorted(set(shards[held].tolist())) == list(range(wanted))
    assert max(shards, default=0) == max(wanted - 1, 0)


@given(st.lists(st.integers(1, 5), min_size=200, max_size=300))
def test_shards_hold_about_as_many_bytes_each(tokens):
    shards = shard_of_bucket(np.array(tokens), num_shards=8)
    held = np.bincount(shards, weights=tokens)
    assert held.max() - held.min() <= 2 * max(tokens)


@given(
    size=st.lists(st.integers(0, 3) | st.integers(0, 100 << 20), min_size=1, max_size=400),
    num_shards=st.integers(0, 20),
)
def test_no_shard_gets_more_than_the_mean_and_its_heaviest_bucket(size, num_shards):
    shards = shard_of_bucket(np.array(size), num_shards=num_shards)
    held = np.bincount(shards, weights=size)
    wanted = num_shards or max(8, sum(size) / SHARD_BYTES)
    for number, each in enumerate(held):
        assert each <= sum(size) / wanted + np.array(size)[shards == number].max() + 1


def test_empty_buckets_at_the_end_go_with_the_last_shard():
    assert shard_of_bucket(np.array([1, 1, 0])).tolist() == [0, 1, 1]


def test_a_heavy_bucket_has_a_shard_of_its_own_and_the_others_are_dealt_out_all_the_same():
    size = np.ones(100, np.int64)
    size[40] = 10 * SHARD_BYTES
    held = np.bincount(shard_of_bucket(size), weights=size)
    assert len(held) == 11  # as many as keep the mean at SHARD_BYTES
    assert held.max() <= size[40] + 60


@pytest.mark.parametrize(("max_seq_length", "megabytes"), [(128, 9_100), (512, 32_140)])
def test_padding_counts(max_seq_length, megabytes):
    """20 million texts of 5 tokens, a sequence each: by their tokens alone these were shards of 0.8 and 2.9 GB."""
    layout = Layout(max_seq_length, "window", 101, 102, 30_522, False)
    documents = np.bincount(np.random.default_rng(0).integers(0, BUCKETS, 20_000_000), minlength=BUCKETS)
    size = bytes_in_places(documents * max_seq_length, layout)
    assert size.sum() / 1e6 == megabytes
    held = np.bincount(shard_of_bucket(size), weights=size)
    assert held.max() <= SHARD_BYTES + size.max() < 1.05 * SHARD_BYTES
    assert 0.95 * SHARD_BYTES < size.sum() / len(held) <= SHARD_BYTES
    assert SHARD_BYTES == 32 << 20  # as docs/scale.md says


def test_beyond_some_terabytes_shards_grow_and_do_not_get_more():
    size = np.full(BUCKETS, 200_000_000)  # some 100 TB of text
    shards = shard_of_bucket(size)
    assert sorted(set(shards.tolist())) == list(range(MAX_SHARDS))
    held = np.bincount(shards, weights=size)
    assert held.max() <= 2 * size[0]  # no more than two buckets


@given(st.data())
def test_a_shard_key_comes_back_from_the_number_that_it_travels_as(data):
    of = data.draw(st.integers(1, MAX_SHARDS))
    key = ShardKey(data.draw(st.sampled_from(SPLITS)), data.draw(st.integers(0, of - 1)), of)
    assert ShardKey.unpacked(key.packed()) == key
    assert 0 <= key.packed() < 1 << 7 * 5  # five bytes, seven bits each
