"""Random numbers without a generator: a hash of (purpose, seed, epoch, example id) and a counter, in TensorFlow ops.

Neither `tf.random.set_seed` nor stateful ops will do in an input pipeline: seeded, they repeat the same numbers in each
epoch; unseeded or run in parallel, they cannot be repeated. A hash of what a number is for has neither fault: it is the
same on every device, in every order, on any number of hosts, and it costs a few vector instructions.
"""

import hashlib

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio: steps by it spread over all of uint64


def keys(purpose: str, seed: int, *, epoch: int | tf.Tensor, example_id: tf.Tensor) -> tf.Tensor:
    """Return uint64 `[B]` keys.

    Args:
        purpose: keeps apart the random numbers of things that share a seed.
        seed: any whole number.
        epoch: one number, or int32 `[B]`.
        example_id: int64 `[B]`, non-negative.
    """
    digest = hashlib.blake2b(f"{purpose} {seed}".encode(), digest_size=8).digest()
    state = tf.constant(int.from_bytes(digest, "little"), tf.uint64)
    mixed = _mix(tf.cast(example_id, tf.uint64) ^ state) + tf.constant(_GOLDEN, tf.uint64)
    return _mix(tf.cast(epoch, tf.uint64) ^ mixed)


def bits(keys: tf.Tensor, counter: NDArray[np.integer]) -> tf.Tensor:
    """Return uint64 random numbers `[B, N]`, one for each key and each of the counters `[N]`."""
    return _mix(keys[:, None] + counter.astype(np.uint64) * np.uint64(_GOLDEN))


def halves(bits: tf.Tensor) -> tf.Tensor:
    """Return each uint64 as two int32s: `[B, N]` become `[B, 2 * N]`."""
    return tf.reshape(tf.bitcast(bits, tf.int32), [-1, 2 * bits.shape[1]])


def upper(bits: tf.Tensor) -> tf.Tensor:
    """Return the upper 32 bits of uint64s as int64s, from 0 to below 2**32."""
    return tf.cast(tf.bitwise.right_shift(bits, tf.constant(32, tf.uint64)), tf.int64)


def below(limit: int | tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Return the lower 32 bits of uint64s as int32s from 0 to below `limit`, which may be uint64s, one for each.

    Any two of them are equally likely to one in 2**32 / limit.
    """
    lower = tf.bitwise.bitwise_and(bits, tf.constant(0xFFFFFFFF, tf.uint64))
    return tf.cast(tf.bitwise.right_shift(lower * limit, tf.constant(32, tf.uint64)), tf.int32)


def _mix(value: tf.Tensor) -> tf.Tensor:
    """Return a bijective hash of uint64s in which each bit moves half the others.

    It is the finalizer of SplitMix64, with the constants of David Stafford's "mix 13".
    """
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        value = (value ^ tf.bitwise.right_shift(value, tf.constant(shift, tf.uint64))) * tf.constant(factor, tf.uint64)
    return value ^ tf.bitwise.right_shift(value, tf.constant(31, tf.uint64))
