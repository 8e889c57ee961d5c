import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.blocks import BUCKETS
from pipelines.config import MAX_SHARDS
from pipelines.shards import BYTES_PER_TOKEN, SHARD_BYTES, ShardKey, shard_of_bucket
from records.manifest import SPLITS


@given(tokens=st.lists(st.integers(0, 50), min_size=1, max_size=60), num_shards=st.integers(0, 12))
def test_neighbours_stay_together_and_no_shard_is_empty(tokens, num_shards):
    shards = shard_of_bucket(np.array(tokens), num_shards=num_shards)
    held = np.array(tokens) > 0
    wanted = min(num_shards or 8, held.sum())
    assert (np.diff(shards) >= 0).all()
    assert sorted(set(shards[held].tolist())) == list(range(wanted))
    assert max(shards, default=0) == max(wanted - 1, 0)


@given(st.lists(st.integers(1, 5), min_size=200, max_size=300))
def test_shards_hold_about_as_many_tokens_each(tokens):
    shards = shard_of_bucket(np.array(tokens), num_shards=8)
    held = np.bincount(shards, weights=tokens)
    assert held.max() - held.min() <= 2 * max(tokens)


def test_shards_are_some_tens_of_megabytes_once_there_is_enough():
    tokens = np.full(1 << 14, 100_000)
    count = shard_of_bucket(tokens)[-1] + 1
    assert 0.9 < tokens.sum() * BYTES_PER_TOKEN / count / SHARD_BYTES < 1.1


def test_beyond_some_terabytes_shards_grow_and_do_not_get_more():
    tokens = np.full(BUCKETS, 200_000_000)  # some 100 TB of text
    shards = shard_of_bucket(tokens)
    assert sorted(set(shards.tolist())) == list(range(MAX_SHARDS))
    held = np.bincount(shards, weights=tokens)
    assert held.max() <= 2 * tokens[0]  # no more than two buckets


@given(st.data())
def test_a_shard_key_comes_back_from_the_number_that_it_travels_as(data):
    of = data.draw(st.integers(1, MAX_SHARDS))
    key = ShardKey(data.draw(st.sampled_from(SPLITS)), data.draw(st.integers(0, of - 1)), of)
    assert ShardKey.unpacked(key.packed()) == key
    assert 0 <= key.packed() < 1 << 7 * 5  # five bytes, seven bits each
