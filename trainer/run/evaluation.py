"""Measures a model on the held-out split: the whole of it, with masks that are always the same."""

import math
from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf

from trainer.engines.step import Batch
from trainer.models.loss import sums
from trainer.run.checkpoint import Evaluation


def enough(global_batch_size: int, *, examples: int, replicas: int) -> int:
    """Return the size of a batch, or a smaller one that holds all sequences: the rest would only be padding.

    >>> enough(64, examples=37, replicas=1), enough(16, examples=37, replicas=1), enough(64, examples=37, replicas=4)
    (37, 16, 40)
    """
    return min(global_batch_size, math.ceil(examples / replicas) * replicas)


class Evaluator:
    """Evaluates a model that changes in between. It is traced once, however often it is called."""

    def __init__(self, strategy: tf.distribute.Strategy, model: keras.Model) -> None:
        self._strategy, self._model = strategy, model
        self._batch_sums = tf.function(self._on_all_replicas)

    def __call__(
        self, batches: Iterable[Batch], *, step: int = 0, stop: Callable[[], int] = lambda: 0
    ) -> Evaluation | None:
        """Evaluate on the batches of `trainer.input.data.HeldOut`.

        The sums of all batches and replicas are added up and divided by the number of masked tokens, so that neither
        the size of the last batch nor the number of replicas matters. Where `stop()` turns true between two batches
        there is no result: None.
        """
        total = np.zeros(4)
        for batch in batches:
            if stop():
                return None
            total += self._batch_sums(batch).numpy()
        return evaluation(*total, step=step)

    @property
    def traces(self) -> int:
        """How often TensorFlow has traced it."""
        return int(self._batch_sums.experimental_get_tracing_count())

    def _on_all_replicas(self, batch: Batch) -> tf.Tensor:
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, self._strategy.run(self._sums, (batch,)), axis=None)

    def _sums(self, batch: Batch) -> tf.Tensor:
        logits = self._model(batch, training=False)
        return tf.stack(sums(logits, batch["masked_lm_ids"], batch["masked_lm_weights"]))


def evaluation(loss: float, weight: float, correct: float, top5: float, *, step: int) -> Evaluation:
    """Return means from sums.

    >>> evaluation(20.0, 10.0, 5.0, 7.0, step=3)
    Evaluation(step=3, loss=2.0, perplexity=7.38905609893065, accuracy=0.5, top5_accuracy=0.7, tokens=10)
    """
    weight = max(1.0, weight)
    mean = float(loss / weight)
    return Evaluation(
        step=step,
        loss=mean,
        perplexity=math.exp(min(mean, 700.0)),  # beyond, a float64 ends
        accuracy=float(correct / weight),
        top5_accuracy=float(top5 / weight),
        tokens=int(weight),
    )
