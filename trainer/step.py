"""One step of training on all replicas, and the loop of steps that runs on the device without the host.

Why not `keras.Model.fit`: under a strategy it clips before it sums over replicas, divides the loss by the weights of one
replica, drops out the same values on each, and cannot resume inside an epoch. Here the order is: sum over replicas,
divide by the masked tokens of the global batch, clip, apply. So one, two and four replicas compute the same step.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.loss import cross_entropy

Batch = dict[str, tf.Tensor]


class Steps(NamedTuple):
    """What some consecutive steps report, float64 `[steps]` each."""

    loss: NDArray[np.float64]  # mean over the masked tokens of the global batch
    gradient_norm: NDArray[np.float64]  # before clipping
    tokens: NDArray[np.float64]  # that are no padding
    waited: NDArray[np.float64]  # seconds; see `make_loop`


Loop = Callable[[Iterator[Batch], int, int], Steps]


def make_loop(
    strategy: tf.distribute.Strategy,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    *,
    seed: int,
    clip_norm: float,
) -> Loop:
    """Return a function `(iterator, first_step, count) -> Steps` that trains for `count` steps on the device.

    It is traced once, whatever the count. `waited` is the time the host was blocked in `next(iterator)`, counted from
    when it knew the gradients of the step before and, on a CPU, had applied them: time in which nothing was computed.
    """

    def replica_step(batch: Batch, step: tf.Tensor) -> tf.Tensor:
        replica = tf.distribute.get_replica_context()
        drop = dropout_seed(seed, step, replica.replica_id_in_sync_group, replicas=strategy.num_replicas_in_sync)
        variables = [variable.value for variable in model.trainable_variables]
        with tf.GradientTape() as tape:
            logits = model(batch, training=True, seed=drop)
            loss = cross_entropy(logits, batch["masked_lm_ids"], batch["masked_lm_weights"])
        gradients = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, variables)]
        tokens = tf.math.count_nonzero(batch["input_ids"], dtype=tf.float32)
        sums = tf.stack([loss, tf.reduce_sum(batch["masked_lm_weights"]), tokens])
        *gradients, sums = replica.all_reduce(tf.distribute.ReduceOp.SUM, [*gradients, sums])
        weight = tf.maximum(sums[1], 1.0)
        gradients, norm = tf.clip_by_global_norm([gradient / weight for gradient in gradients], clip_norm)
        optimizer.apply(gradients, model.trainable_variables)
        return tf.stack([sums[0] / weight, norm, sums[2]])  # the same on every replica

    @tf.function
    def one_step(batch: Batch, step: tf.Tensor) -> tf.Tensor:
        return strategy.experimental_local_results(strategy.run(replica_step, (batch, step)))[0]

    @tf.function
    def many_steps(iterator: Iterator[Batch], first_step: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        rows = tf.TensorArray(tf.float64, size=count, element_shape=[4])
        done = tf.zeros([3])
        for number in tf.range(count):
            # TensorFlow orders only what touches the same resource: the clock must be tied to what it times. `done`
            # leaves `one_step` when all that it does is done; reading it on the CPU waits for a GPU to have computed it.
            with tf.control_dependencies([done]), tf.device("CPU:0"):
                known = tf.identity(done)
            with tf.control_dependencies([known]):
                asked = tf.timestamp()
            with tf.control_dependencies([asked]):
                batch = next(iterator)
            with tf.control_dependencies(
                tf.nest.flatten(tf.nest.map_structure(strategy.experimental_local_results, batch))
            ):
                given = tf.timestamp()
            done = one_step(batch, first_step + number)
            rows = rows.write(number, tf.concat([tf.cast(done, tf.float64), [given - asked]], 0))
        return rows.stack()

    def loop(iterator: Iterator[Batch], first_step: int, count: int) -> Steps:
        reported = many_steps(iterator, tf.constant(first_step, tf.int32), tf.constant(count, tf.int32))
        return Steps(*reported.numpy().T)

    loop.traces = lambda: (many_steps.experimental_get_tracing_count(), one_step.experimental_get_tracing_count())
    return loop


def dropout_seed(seed: int, step: tf.Tensor, replica_id: tf.Tensor, *, replicas: int) -> tf.Tensor:
    """Return the seed of dropout, int32 `[2]`: a digest of the run's seed, and a counter of (step, replica).

    No two steps or replicas share a counter, so the counter-based generators of TensorFlow draw independent numbers.

    >>> dropout_seed(0, tf.constant(7), tf.constant(1), replicas=4).numpy().tolist()
    [-906104567, 29]
    """
    digest = hashlib.blake2b(str(seed).encode(), digest_size=4).digest()
    counter = tf.cast(step, tf.int32) * replicas + tf.cast(replica_id, tf.int32)
    return tf.stack([tf.constant(int.from_bytes(digest, "little", signed=True)), counter])
