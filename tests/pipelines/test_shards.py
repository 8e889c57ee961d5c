import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.shards import BYTES_PER_TOKEN, SHARD_BYTES, shard_of_bucket


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
