"""Measures a model on the held-out split: the whole of it, with masks that are always the same."""

import math
from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf

from trainer.checkpoint import Evaluation
from trainer.loss import sums
from trainer.step import Batch

Evaluate = Callable[..., Evaluation | None]


def make_evaluate(strategy: tf.distribute.Strategy, model: keras.Model) -> Evaluate:
    """Return a function `(batches, *, step, stop) -> Evaluation` that is traced once, however often it is called.

    `batches` are those of `trainer.data.eval_batches`, distributed. Sums of all batches and replicas are added up and
    divided by the number of masked tokens, so that neither the size of the last batch nor the number of replicas
    matters. Where `stop()` turns true between two batches there is no result, None.
    """

    def replica_sums(batch: Batch) -> tf.Tensor:
        logits = model(batch, training=False)
        return tf.stack(sums(logits, batch["masked_lm_ids"], batch["masked_lm_weights"]))

    @tf.function
    def batch_sums(batch: Batch) -> tf.Tensor:
        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(replica_sums, (batch,)), axis=None)

    def evaluate(
        batches: Iterable[Batch], *, step: int = 0, stop: Callable[[], bool] = lambda: False
    ) -> Evaluation | None:
        total = np.zeros(4)
        for batch in batches:
            if stop():
                return None
            total += batch_sums(batch).numpy()
        return evaluation(*total, step=step)

    evaluate.traces = batch_sums.experimental_get_tracing_count
    return evaluate


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
