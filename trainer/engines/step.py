"""One step of training on all replicas, and the loop of steps that runs on the device without the host.

Why not `keras.Model.fit`: under a strategy it clips before it sums over replicas, divides the loss by the weights of
one replica, drops out the same values on each, and cannot resume inside an epoch. Here the order is: sum over replicas,
divide by the masked tokens of the global batch, clip, apply. So one, two and four replicas compute the same step.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.models.loss import cross_entropy

Batch = dict[str, tf.Tensor]


class Steps(NamedTuple):
    """What some consecutive steps report, float64 `[steps]` each."""

    loss: NDArray[np.float64]  # mean over the masked tokens of the global batch
    gradient_norm: NDArray[np.float64]  # before clipping
    tokens: NDArray[np.float64]  # that are no padding
    waited: NDArray[np.float64]
    """Seconds the host was blocked in `next(batches)`, from the end of the step before on: nothing was computed."""


class TrainLoop:
    """Steps on the device. It is traced once, however it is called.

    Args:
        strategy: made the model and the optimizer.
        model: `trainer.models.model.BertMaskedLM`.
        optimizer: of `trainer.engines.optimizer.make_optimizer`.
        seed: of dropout.
        clip_norm: global norm to which the gradient of the global batch is clipped.
        jit_compile: whether XLA compiles the step; for one device only, a TPU's steps it compiles in any case.
        clock: gives the time in seconds, a float64 scalar.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        *,
        seed: int,
        clip_norm: float,
        jit_compile: bool = False,
        clock: Callable[[], tf.Tensor] = tf.timestamp,
    ) -> None:
        self._strategy, self._model, self._optimizer = strategy, model, optimizer
        self._seed, self._clip_norm, self._clock = seed, clip_norm, clock
        self._one_step = tf.function(self._on_all_replicas, jit_compile=jit_compile)
        self._many_steps = tf.function(self._in_turn)

    def __call__(self, batches: Iterator[Batch], first_step: int, count: int) -> Steps:
        """Train for `count` steps on the next batches; `first_step` is the number of steps that are done."""
        rows = self._many_steps(batches, tf.constant(first_step, tf.int32), tf.constant(count, tf.int32))
        return Steps(*rows.numpy().T)

    @property
    def traces(self) -> int:
        """How often TensorFlow has traced the loop or the step."""
        return max(function.experimental_get_tracing_count() for function in (self._one_step, self._many_steps))

    def _in_turn(self, batches: Iterator[Batch], first_step: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        """Return a row of [loss, gradient norm, tokens, seconds waited] for each step, float64 `[count, 4]`."""
        rows = tf.TensorArray(tf.float64, size=count, element_shape=[4])
        done = tf.zeros([3])
        for number in tf.range(count):
            # TensorFlow orders only what touches the same resource, so the clock must be tied to what it times. `done`
            # leaves a step when all that the step does is done; to read it on the host is to wait for a GPU.
            with tf.control_dependencies([done]), tf.device("CPU:0"):
                known = tf.identity(done)
            with tf.control_dependencies([known]):
                asked = self._clock()
            with tf.control_dependencies([asked]):
                batch = next(batches)
            with tf.control_dependencies(self._tensors(batch)):
                given = self._clock()
            done = self._one_step(batch, first_step + number)
            rows = rows.write(number, tf.concat([tf.cast(done, tf.float64), [given - asked]], 0))
        return rows.stack()

    def _tensors(self, batch: Batch) -> list[tf.Tensor]:
        """Return the tensors of a batch, those of all replicas."""
        return [tensor for value in batch.values() for tensor in self._strategy.experimental_local_results(value)]

    def _on_all_replicas(self, batch: Batch, step: tf.Tensor) -> tf.Tensor:
        reported = self._strategy.run(self.on_a_replica, (batch, step))
        return self._strategy.experimental_local_results(reported)[0]  # they report the same

    def on_a_replica(self, batch: Batch, step: tf.Tensor) -> tf.Tensor:
        """Do step `step` on one replica's part of the batch; return [loss, gradient norm, tokens] of all, float32."""
        replica, variables = tf.distribute.get_replica_context(), self._model.trainable_variables
        seed = dropout_seed(
            self._seed, step, replica.replica_id_in_sync_group, replicas=self._strategy.num_replicas_in_sync
        )
        with tf.GradientTape() as tape:
            logits = self._model(batch, training=True, seed=seed)
            loss = cross_entropy(logits, batch["masked_lm_ids"], batch["masked_lm_weights"])
        gradients = [tf.convert_to_tensor(each) for each in tape.gradient(loss, [each.value for each in variables])]
        tokens = tf.math.count_nonzero(batch["input_ids"], dtype=tf.float32)
        sums = tf.stack([loss, tf.reduce_sum(batch["masked_lm_weights"]), tokens])
        *gradients, sums = replica.all_reduce(tf.distribute.ReduceOp.SUM, [*gradients, sums])
        loss, weight, tokens = tf.unstack(sums)
        weight = tf.maximum(weight, 1.0)
        norm = tf.linalg.global_norm(gradients) / weight
        scale = tf.minimum(1.0, self._clip_norm / norm) / weight  # to divide and to clip are one product
        self._optimizer.apply([gradient * scale for gradient in gradients], variables)
        return tf.stack([loss / weight, norm, tokens])


def dropout_seed(seed: int, step: tf.Tensor, replica_id: tf.Tensor, *, replicas: int) -> tf.Tensor:
    """Return the seed of dropout, int32 `[2]`: a digest of the run's seed, and a counter of (step, replica).

    No two steps or replicas share a counter, so the counter-based generators of TensorFlow draw independent numbers.

    >>> dropout_seed(0, tf.constant(7), tf.constant(1), replicas=4).numpy().tolist()
    [613549620, 29]
    """
    digest = hashlib.blake2b(str(seed).encode(), digest_size=4).digest()
    counter = tf.cast(step, tf.int32) * replicas + tf.cast(replica_id, tf.int32)
    return tf.stack([tf.constant(int.from_bytes(digest, "little", signed=True)), counter])
