"""Measures a model on the held-out split: the whole of it, with masks that are always the same."""

import math
from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf

from records.errors import RemaskError
from records.reader import open_data_set
from trainer import accelerator, checks, lost, pretrained, runs
from trainer.checkpoint import Evaluation
from trainer.config import SAMPLE, EvaluateOptions, require_within_reach, usual_dtype
from trainer.data import HELD_OUT, HeldOut
from trainer.loss import sums
from trainer.model import BertMaskedLM
from trainer.step import Batch


def main(options: EvaluateOptions) -> None:
    """Evaluate a model in HuggingFace's layout, and print the figures."""
    name = options.model or runs.exported(options.run_dir)
    data = options.data or (SAMPLE if options.model else runs.existing(options.run_dir).options.data)
    require_within_reach(data, options.tpu)
    data_set = open_data_set(data)
    checks.check_split(data_set, HELD_OUT)
    start = pretrained.find(name, data=data_set.tokenizer, trained=True)
    checks.check_data(data_set, start.config, name=name)
    with lost.explained(lost.host_of(options.tpu), outcome=lambda: f"Run the same command again: {lost.IT_BEGINS}"):
        strategy = accelerator.choose_strategy(
            tpu=options.tpu, zone=options.zone, project=options.project, devices=options.devices
        )
        replicas = strategy.num_replicas_in_sync
        checks.check_batch_size(options.global_batch_size, replicas=replicas)
        batch_size = enough(
            options.global_batch_size, examples=data_set.manifest.examples("validation"), replicas=replicas
        )
        with strategy.scope():
            model = BertMaskedLM(start.config, seed=0, dtype=options.dtype or usual_dtype(options.tpu))
            pretrained.read_weights(model, start, say=print)
        batches = HeldOut.of(data_set, strategy, global_batch_size=batch_size)
        with checks.errors_explained(data_set):
            found = Evaluator(strategy, model)(batches)
    assert found is not None  # nothing stops it
    if not math.isfinite(found.loss):
        raise RemaskError(
            f"{name}: its loss on {data} is {found.loss}: its weights are finite, but what {model.compute_dtype} "
            f"makes of them is not, so there is nothing to measure. Give --dtype float32 if that was another; else "
            f"the weights are broken: take an earlier checkpoint of that model"
        )
    print(
        f"{name} on {data_set.manifest.examples('validation'):,} held-out sequences of {data}, "
        f"{found.tokens:,} masked tokens: loss {found.loss:.4f}, perplexity {found.perplexity:,.2f}, "
        f"accuracy {found.accuracy:.2%}, top-5 accuracy {found.top5_accuracy:.2%}"
    )


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
        """Evaluate on the batches of `trainer.data.HeldOut`.

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
