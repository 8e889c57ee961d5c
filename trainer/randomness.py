"""Random numbers without a generator: a hash of (purpose, seed, epoch, example id) and a counter, in TensorFlow ops.

Neither `tf.random.set_seed` nor stateful ops will do in an input pipeline: seeded, they repeat the same numbers in each
epoch; unseeded or run in parallel, they cannot be repeated. A hash of what a number is for has neither fault: it is the
same on every device, in every order, on any number of hosts, and it costs a few vector instructions.
"""

import hashlib

import numpy as np
import tensorflow as tf

_GOLDEN = 0x9E3779B9  # 2**32 / golden ratio: steps by it spread over all of uint32


def keys(purpose: str, seed: int, *, epoch: int | tf.Tensor, example_id: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return two uint32 `[B]` keys.

    Args:
        purpose: keeps apart the random numbers of things that share a seed.
        seed: any whole number.
        epoch: one number, or int32 `[B]`.
        example_id: int64 `[B]`, non-negative.
    """
    low = tf.cast(tf.bitwise.bitwise_and(example_id, 0xFFFFFFFF), tf.uint32)
    high = tf.cast(tf.bitwise.right_shift(example_id, 32), tf.uint32)
    turn = tf.cast(epoch, tf.uint32)
    digest = hashlib.blake2b(f"{purpose} {seed}".encode(), digest_size=8).digest()
    made = []
    for state in np.frombuffer(digest, "<u4"):
        mixed = _mix(low ^ tf.constant(state, tf.uint32)) + tf.constant(_GOLDEN, tf.uint32)
        mixed = _mix(high ^ mixed) + tf.constant(_GOLDEN, tf.uint32)
        made.append(_mix(turn ^ mixed))
    return made[0], made[1]


def bits(keys: tuple[tf.Tensor, tf.Tensor], counter: tf.Tensor) -> tf.Tensor:
    """Return uint32 random numbers `[B, N]`, one for each key and counter; `counter` is int32 `[N]` or `[B, N]`."""
    step = tf.cast(counter, tf.uint32) * tf.constant(_GOLDEN, tf.uint32)
    return _mix((step + keys[1][:, None]) ^ keys[0][:, None])


def positive(bits: tf.Tensor) -> tf.Tensor:
    """Return the upper 31 bits of uint32s as int32s."""
    return tf.cast(tf.bitwise.right_shift(bits, tf.constant(1, tf.uint32)), tf.int32)


def uniform(bits: tf.Tensor) -> tf.Tensor:
    """Return the upper 24 bits of uint32s as float32s in [0, 1), each of them exact."""
    return tf.cast(tf.bitwise.right_shift(bits, tf.constant(8, tf.uint32)), tf.float32) * 2.0**-24


def _mix(value: tf.Tensor) -> tf.Tensor:
    """Return a bijective hash of uint32s in which each bit moves half the others.

    It is lowbias32 of Chris Wellons's hash-prospector.
    """
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        value = (value ^ tf.bitwise.right_shift(value, tf.constant(shift, tf.uint32))) * tf.constant(factor, tf.uint32)
    return value ^ tf.bitwise.right_shift(value, tf.constant(16, tf.uint32))
