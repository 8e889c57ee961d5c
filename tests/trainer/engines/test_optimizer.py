from itertools import pairwise

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.config import ModelConfig, TrainOptions
from trainer.engines.optimizer import WarmupLinearDecay, decays, make_optimizer, make_schedule
from trainer.models.model import BertMaskedLM


@pytest.mark.parametrize("warmup", [0, 1, 3, 10])
def test_schedule_peaks_once_and_is_never_zero(warmup):
    rates = [float(WarmupLinearDecay(2.0, warmup_steps=warmup, train_steps=10)(step)) for step in range(10)]
    peak = max(warmup, 1) - 1
    assert rates[peak] == 2.0
    assert all(earlier < later for earlier, later in pairwise(rates[: peak + 1]))
    assert all(earlier > later > 0 for earlier, later in pairwise(rates[peak:]))


def test_schedule_can_be_described():
    schedule = make_schedule(TrainOptions(learning_rate=3.0, warmup_steps=4, train_steps=9))
    again = WarmupLinearDecay(**schedule.get_config())
    assert float(again(6)) == float(schedule(6)) == 1.5


def test_biases_and_layer_norms_are_what_does_not_decay():
    model = BertMaskedLM(ModelConfig(31, 8, 1, 2, 16, 24), seed=0)
    spared = {variable.path.rpartition("/")[2] for variable in model.trainable_variables if not decays(variable)}
    decaying = {variable.path.rpartition("/")[2] for variable in model.trainable_variables if decays(variable)}
    assert spared == {"bias", "gamma", "beta", "decoder_bias"}
    assert decaying == {"kernel", "embeddings"}


def test_update_is_that_of_the_paper_with_decay_where_it_belongs():
    matrix, vector = keras.Variable([[1.0, -2.0]], name="kernel"), keras.Variable([1.0], name="bias")
    optimizer = make_optimizer(
        [matrix, vector], WarmupLinearDecay(0.1, warmup_steps=0, train_steps=4), weight_decay=0.5
    )
    first, second = np.array([[0.3, -0.1]]), np.array([[0.2, 0.4]])
    expected, m, v = np.array([[1.0, -2.0]]), 0.0, 0.0
    for step, gradient in enumerate((first, second)):
        optimizer.apply([tf.constant(gradient, tf.float32), tf.constant([0.0])], [matrix, vector])
        rate = 0.1 * (4 - step) / 4
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        correction = np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
        expected = expected - rate * 0.5 * expected
        expected = expected - rate * correction * m / (np.sqrt(v) + 1e-6)
    np.testing.assert_allclose(matrix.numpy(), expected, rtol=1e-5)
    assert vector.numpy() == [1.0]  # no gradient, no decay


def after_steps_of_pytorch(start, gradients, *, rate, decay, eps):
    """Return a weight after steps as the documentation of `torch.optim.AdamW` gives them; `eps` is of a step."""
    weight, m, v = start, 0.0, 0.0
    for t, gradient in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        weight = weight - rate(t - 1) * decay * weight
        weight = weight - rate(t - 1) * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + eps(t))
    return weight


def test_epsilon_is_added_before_the_bias_is_corrected():
    """Gradients are so small that it matters: as large as epsilon, a tenth of it, and ten times."""
    matrix, start = keras.Variable([[1.0, 1.0, 1.0]], name="kernel"), np.ones((1, 3))
    schedule = WarmupLinearDecay(0.1, warmup_steps=1, train_steps=9)
    optimizer = make_optimizer([matrix], schedule, weight_decay=0.5)
    gradients = [np.array([[1e-6, 1e-7, 1e-5]]) * scale for scale in (1.0, 0.5, 2.0, 1.0, 3.0)]
    for gradient in gradients:
        optimizer.apply([tf.constant(gradient, tf.float32)], [matrix])
    ours = matrix.numpy()

    def theirs(eps):
        return after_steps_of_pytorch(start, gradients, rate=lambda step: float(schedule(step)), decay=0.5, eps=eps)

    np.testing.assert_allclose(ours, theirs(lambda t: 1e-6 / (1 - 0.999**t) ** 0.5), rtol=1e-5)
    assert (np.abs(ours - theirs(lambda t: 1e-6)) > 1e-2).all()  # the same epsilon is another step
    assert [1e-6 / (1 - 0.999**t) ** 0.5 for t in (1, 1000)] == pytest.approx([3.2e-5, 1.3e-6], rel=0.05)  # as we say
