"""That the hash is the one it says, and as good as a generator for what masks and order take from it."""

import hashlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.trainer import chance
from trainer import randomness

MANY = 200_000


def keys(example_id: object, *, purpose: str = "mask", seed: int = 0, epoch: object = 0) -> tuple[tf.Tensor, tf.Tensor]:
    return randomness.keys(purpose, seed, epoch=epoch, example_id=tf.constant(example_id, tf.int64))


def bits(example_id: object, counter: object = (0,), **arguments: object) -> NDArray[np.uint32]:
    return randomness.bits(keys(example_id, **arguments), tf.constant(counter)).numpy()


def in_plain_python(purpose: str, seed: int, epoch: int, example_id: int, counter: int) -> int:
    def mix(value: int) -> int:
        value = (value ^ value >> 16) * 0x7FEB352D % 2**32
        value = (value ^ value >> 15) * 0x846CA68B % 2**32
        return value ^ value >> 16

    golden = 0x9E3779B9
    digest = hashlib.blake2b(f"{purpose} {seed}".encode(), digest_size=8).digest()
    key = []
    for start in (0, 4):
        state = int.from_bytes(digest[start : start + 4], "little")
        low = (mix(example_id % 2**32 ^ state) + golden) % 2**32
        high = (mix(example_id // 2**32 ^ low) + golden) % 2**32
        key.append(mix(epoch ^ high))
    return mix((counter * golden + key[1]) % 2**32 ^ key[0])


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["mask", "order"]),
    st.integers(-(2**70), 2**70),
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**18),
)
def test_it_is_the_hash_that_it_says(purpose, seed, epoch, example_id, counter):
    found = bits([example_id], [counter], purpose=purpose, seed=seed, epoch=epoch)
    assert found.tolist() == [[in_plain_python(purpose, seed, epoch, example_id, counter)]]


def test_shapes_and_types():
    one, other = keys([1, 2, 3])
    for key in (one, other):
        assert (key.dtype, key.shape.as_list()) == (tf.uint32, [3])
    assert randomness.bits((one, other), tf.range(5)).shape == [3, 5]
    assert randomness.bits((one, other), tf.zeros([3, 2], tf.int32)).shape == [3, 2]
    assert randomness.bits((one, other), tf.range(5)).dtype == tf.uint32


def test_one_epoch_is_that_epoch_for_all():
    one, all_ = keys([1, 2, 3], epoch=7), keys([1, 2, 3], epoch=tf.constant([7, 7, 7], tf.int32))
    for left, right in zip(one, all_, strict=True):
        np.testing.assert_array_equal(left, right)


def test_a_counter_of_each_row_is_that_counter():
    table = bits([1, 2], np.arange(9))
    np.testing.assert_array_equal(bits([1, 2], [[3, 8], [0, 3]]), [table[0, [3, 8]], table[1, [0, 3]]])


def test_numbers_of_an_example_are_distinct():
    """Each step of the hash is a bijection, so no two counters of an example share a number."""
    assert len(np.unique(bits([12345], np.arange(3 << 16)))) == 3 << 16


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_graph_gives_the_same(jit_compile):
    example_id = np.random.default_rng(0).integers(2**63 - 1, size=20)
    traced = tf.function(
        lambda ids: randomness.bits(randomness.keys("mask", 1, epoch=2, example_id=ids), tf.range(9)),
        jit_compile=jit_compile,
    )
    np.testing.assert_array_equal(traced(tf.constant(example_id)), bits(example_id, np.arange(9), seed=1, epoch=2))


def columns(one: NDArray[np.uint32], other: NDArray[np.uint32], shift: int) -> float:
    """Return z for the independence of four bits of two series, those from `shift` on."""
    left, right = ((part >> np.uint32(shift) & np.uint32(15)).astype(np.int64).ravel() for part in (one, other))
    return chance.of_table(chance.table(left, right, shape=(16, 16)))


SERIES = {
    "counters": lambda: bits([7], np.arange(MANY + 1)).ravel(),
    "examples": lambda: bits(np.arange(MANY + 1)).ravel(),
    "examples, high bits": lambda: bits(np.arange(MANY + 1) << 31).ravel(),
    "epochs": lambda: bits(np.full(MANY + 1, 7), epoch=tf.range(MANY + 1)).ravel(),
}


@pytest.mark.parametrize("shift", [0, 13, 28])
@pytest.mark.parametrize("name", SERIES)
def test_series_are_uniform_and_their_neighbours_independent(name, shift):
    series = SERIES[name]()
    cells = (series >> np.uint32(shift) & np.uint32(15)).astype(np.int64)
    assert abs(chance.of_uniform(np.bincount(cells))) < chance.BOUND
    for apart in (1, 2, 16):
        assert abs(columns(series[:-apart], series[apart:], shift)) < chance.BOUND


@pytest.mark.parametrize("other", [{"purpose": "order"}, {"seed": 1}, {"seed": -1}, {"epoch": 1}])
def test_purposes_seeds_and_epochs_are_independent(other):
    ids = np.arange(MANY)
    for shift in (0, 28):
        assert abs(columns(bits(ids), bits(ids, **other), shift)) < chance.BOUND


def test_both_keys_are_independent():
    one, other = (key.numpy() for key in keys(np.arange(MANY)))
    for shift in (0, 13, 28):
        assert abs(columns(one, other, shift)) < chance.BOUND


@pytest.mark.parametrize("what", ["example_id", "epoch", "counter"])
def test_each_bit_that_goes_in_moves_half_of_those_that_come_out(what):
    draw, count = np.random.default_rng(0), 10_000
    given = {
        "example_id": draw.integers(2**63 - 1, size=count),
        "epoch": draw.integers(2**31 - 1, size=count, dtype=np.int32),
        "counter": draw.integers(2**17, size=(count, 1), dtype=np.int32),
    }
    for bit in range({"example_id": 63, "epoch": 31, "counter": 17}[what]):
        flipped = {**given, what: given[what] ^ given[what].dtype.type(1 << bit)}
        moved = bits(**given) ^ bits(**flipped)
        times = (moved >> np.arange(32, dtype=np.uint32) & np.uint32(1)).sum(0)
        # 32 * 111 shares are looked at: beyond 6 deviations one lies by chance once in 140,000 tests.
        assert np.abs((times - count / 2) / (count / 4) ** 0.5).max() < 6


def test_positive_numbers():
    found = randomness.positive(tf.constant([0, 1, 2, 2**31, 2**32 - 1], tf.uint32))
    assert found.dtype == tf.int32
    assert found.numpy().tolist() == [0, 0, 1, 2**30, 2**31 - 1]


def test_uniform_numbers_are_below_one_and_exact():
    found = randomness.uniform(tf.constant([0, 255, 256, 2**31, 2**32 - 1], tf.uint32))
    assert found.dtype == tf.float32
    assert found.numpy().astype(float).tolist() == [0, 0, 2**-24, 0.5, 1 - 2**-24]
