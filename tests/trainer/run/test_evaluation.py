import numpy as np
import pytest
import tensorflow as tf

from records.format.reader import open_data_set
from trainer.config import ModelConfig
from trainer.engines.accelerator import choose_strategy
from trainer.input.data import HeldOut, eval_batches
from trainer.models.loss import sums
from trainer.models.model import BertMaskedLM
from trainer.run.evaluation import Evaluator, evaluation

CONFIG = ModelConfig(31, 16, 1, 2, 32, 24)


def evaluated(folder, *, replicas=1, global_batch_size=16):
    strategy = choose_strategy(devices=replicas)
    with strategy.scope():
        model = BertMaskedLM(CONFIG, seed=3)
    batches = HeldOut.of(open_data_set(folder), strategy, global_batch_size=global_batch_size)
    return Evaluator(strategy, model)(batches, step=5)


@pytest.fixture(scope="module")
def expected(tiny_data_set):
    """Return the figures computed without batches: all 37 sequences at once, in numpy."""
    (batch,) = eval_batches(open_data_set(tiny_data_set), global_batch_size=37)
    logits = np.asarray(BertMaskedLM(CONFIG, seed=3)(batch), np.float64)
    ids, weights = batch["masked_lm_ids"].numpy(), batch["masked_lm_weights"].numpy()
    true = np.take_along_axis(logits, ids[..., None], -1)[..., 0]
    places = (logits > true[..., None]).sum(-1)
    losses = np.log(np.exp(logits).sum(-1)) - true
    count = weights.sum()
    return [(value * weights).sum() / count for value in (losses, places < 1, places < 5)], count


@pytest.mark.parametrize(("replicas", "global_batch_size"), [(1, 16), (1, 64), (2, 16), (4, 16)])
def test_whole_split_counts_whatever_the_batch_and_replicas(tiny_data_set, expected, replicas, global_batch_size):
    found = evaluated(tiny_data_set, replicas=replicas, global_batch_size=global_batch_size)
    (loss, accuracy, top5), count = expected
    assert found.tokens == count
    assert found.step == 5
    assert found.loss == pytest.approx(loss, abs=1e-6)
    assert found.perplexity == pytest.approx(np.exp(loss), rel=1e-6)
    assert (found.accuracy, found.top5_accuracy) == pytest.approx((accuracy, top5))


def test_evaluation_can_be_stopped_between_batches(tiny_data_set):
    evaluator = Evaluator(tf.distribute.get_strategy(), BertMaskedLM(CONFIG, seed=3))
    answers = iter((0, 15))
    assert (
        evaluator(eval_batches(open_data_set(tiny_data_set), global_batch_size=8), stop=lambda: next(answers)) is None
    )


def test_sums_are_those_of_the_loss(tiny_data_set):
    """The figures change with the weights, though the function is traced once."""
    data_set, model = open_data_set(tiny_data_set), BertMaskedLM(CONFIG, seed=3)
    evaluator = Evaluator(tf.distribute.get_strategy(), model)
    before = evaluator(eval_batches(data_set, global_batch_size=37))
    model.decoder_bias.assign(np.arange(31) / 5)
    after = evaluator(eval_batches(data_set, global_batch_size=37))
    (batch,) = eval_batches(data_set, global_batch_size=37)
    found = sums(model(batch), batch["masked_lm_ids"], batch["masked_lm_weights"])
    assert evaluator.traces == 1
    assert after.loss != before.loss
    assert after.loss == pytest.approx(float(found.loss / found.weight), rel=1e-6)


def test_a_loss_beyond_what_a_float_can_exponentiate():
    assert evaluation(1e4, 10.0, 0.0, 0.0, step=0).perplexity == np.exp(700.0)
