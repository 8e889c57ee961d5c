import functools
import json

import numpy as np
import pytest
import tensorflow as tf

from records.format.reader import open_data_set
from tests.trainer.make_goldens import recipe
from tests.trainer.make_training_goldens import GOLDENS
from trainer.config import ModelConfig, TrainOptions
from trainer.engines.accelerator import choose_strategy
from trainer.engines.optimizer import make_optimizer, make_schedule
from trainer.engines.step import TrainLoop, dropout_seed
from trainer.input.data import dealt, train_batches
from trainer.input.masking import Masking
from trainer.models import bridge
from trainer.models.model import BertMaskedLM
from trainer.run import checkpoint
from trainer.run.evaluation import Evaluator

OPTIONS = TrainOptions(train_steps=8, learning_rate=1e-2, warmup_steps=2)
STEPS, CLIP_NORM = 6, 0.2


def trained(folder, *, replicas, dropout=0.0, dtype="float32", counts=(STEPS,), jit_compile=False):
    """Return what the steps report, the weights after them, and the strategy, model and loop."""
    strategy = choose_strategy(devices=replicas)
    config = ModelConfig(31, 16, 1, 2, 32, 24, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    with strategy.scope():
        model = BertMaskedLM(config, seed=3, dtype=dtype)
        optimizer = make_optimizer(model.trainable_variables, make_schedule(OPTIONS), weight_decay=0.01)
    batches = functools.partial(
        train_batches,
        open_data_set(folder),
        global_batch_size=16,
        start_step=0,
        train_steps=STEPS,
        seed=5,
        masking=Masking(),
        shuffle_examples=100,
    )
    loop = TrainLoop(strategy, model, optimizer, seed=5, clip_norm=CLIP_NORM, jit_compile=jit_compile)
    iterator, reports, done = iter(dealt(strategy, lambda share: batches(share=share))), [], 0
    for count in counts:
        reports.append(loop(iterator, done, count))
        done += count
    state = {name: variable.numpy() for name, variable in checkpoint.named(model, optimizer).items()}
    return [np.concatenate(columns) for columns in zip(*reports, strict=True)], state, (strategy, model, loop)


@pytest.fixture(scope="module")
def one(tiny_data_set):
    return trained(tiny_data_set, replicas=1)


def test_three_steps_are_those_of_pytorch():
    goldens = json.loads(GOLDENS.read_text())
    options = TrainOptions(**goldens["options"])
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = BertMaskedLM(ModelConfig(**goldens["config"], **no_dropout, cls_token_id=goldens["cls_token_id"]), seed=0)
    weights = bridge.table(model)
    for weight in weights:
        weight.assign([recipe(name, weight.shape) for name in weight.names])
    optimizer = make_optimizer(model.trainable_variables, make_schedule(options), weight_decay=options.weight_decay)
    loop = TrainLoop(tf.distribute.get_strategy(), model, optimizer, seed=0, clip_norm=options.clip_norm)
    norms = []
    for number, (sequences, wanted) in enumerate(zip(goldens["batches"], goldens["steps"], strict=True)):
        ((loss,), (norm,), _, _) = loop(Again(batch_of(sequences)), number, 1)
        assert loss == pytest.approx(wanted["loss"], abs=1e-5)
        assert norm == pytest.approx(wanted["gradient_norm"], rel=1e-5)
        norms.append(norm)
        tensors = {name: value.ravel() for weight in weights for name, value in weight.tensors().items()}
        assert tensors.keys() == wanted["weights"].keys()
        for name, some in wanted["weights"].items():
            found = tensors[name][tensors[name].size // 2 :][: len(some)]
            # A key's bias adds the same to all scores of a query, so its gradient is nothing but rounding.
            within = 1e-4 if name.endswith("key.bias") else 2e-6
            np.testing.assert_allclose(found, some, rtol=0, atol=within, err_msg=name)
    assert min(norms) < options.clip_norm < max(norms)  # both kinds of step are among them


def batch_of(sequences):
    """Return the batch of some sequences of the goldens: their ids, and their targets by position."""
    places = max(len(targets) for _, targets in sequences)
    padded = [
        [*((int(at), word, 1.0) for at, word in targets.items()), *[(0, 0, 0.0)] * places] for _, targets in sequences
    ]
    positions, words, weights = np.moveaxis(np.array([row[:places] for row in padded]), -1, 0)
    return {
        "input_ids": tf.constant([ids for ids, _ in sequences]),
        "masked_lm_positions": tf.constant(positions, tf.int32),
        "masked_lm_ids": tf.constant(words, tf.int32),
        "masked_lm_weights": tf.constant(weights, tf.float32),
    }


class Again:
    """Batches that are all the same."""

    def __init__(self, batch):
        self.batch = batch

    def __next__(self):
        return self.batch


@pytest.mark.parametrize("replicas", [2, 4])
def test_replicas_compute_what_one_does(tiny_data_set, one, replicas):
    (losses, norms, tokens, _), weights, _ = one
    (losses_here, norms_here, tokens_here, _), weights_here, (strategy, model, _) = trained(
        tiny_data_set, replicas=replicas
    )
    assert strategy.num_replicas_in_sync == replicas
    assert (norms > CLIP_NORM).all()  # each step was clipped: before the sum over replicas it would come out otherwise
    np.testing.assert_allclose(losses_here, losses, rtol=0, atol=1e-6)
    np.testing.assert_allclose(norms_here, norms, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(tokens_here, tokens)
    for name, value in weights.items():
        np.testing.assert_allclose(weights_here[name], value, rtol=0, atol=1e-6, err_msg=name)
    for variable in model.trainable_variables:
        first, *others = strategy.experimental_local_results(variable.value)
        assert len(others) == replicas - 1
        assert all(np.array_equal(first.numpy(), other.numpy()) for other in others), variable.path


def test_steps_learn_and_are_traced_once_whatever_their_number(tiny_data_set, one):
    (losses, _, _, waited), weights, (_, _, loop) = one
    assert loop.traces == 1
    assert losses[-1] < losses[0]
    assert (waited >= 0).all()
    reports, weights_here, (_, _, loop) = trained(tiny_data_set, replicas=1, counts=(1, 3, 2))
    assert loop.traces == 1
    np.testing.assert_array_equal(reports[0], losses)
    assert all(np.array_equal(weights_here[name], value) for name, value in weights.items())


def test_loss_is_the_mean_over_the_masked_tokens_of_the_global_batch(tiny_data_set, one):
    batches = train_batches(
        open_data_set(tiny_data_set),
        global_batch_size=16,
        start_step=0,
        train_steps=1,
        seed=5,
        masking=Masking(),
        shuffle_examples=100,
    )
    model = BertMaskedLM(ModelConfig(31, 16, 1, 2, 32, 24), seed=3)
    untrained = Evaluator(tf.distribute.get_strategy(), model)(batches)
    (losses, _, tokens, _), _, _ = one
    np.testing.assert_allclose(losses[0], untrained.loss, rtol=1e-6)
    assert tokens[0] == np.count_nonzero(next(iter(batches))["input_ids"])


class FakeTime:
    """A clock that stands still but for what is said to take time.

    Like `tf.timestamp`, by way of which it is read, it touches no resource: TensorFlow reads it whenever it likes, but
    for what it is tied to.
    """

    def __init__(self):
        self.now, self.readings = 0.0, []

    def read(self):
        self.readings.append(self._called(lambda *_: self.now))
        return self.readings[-1]

    def later(self, seconds, tensor, *after):
        """Return the tensor, so much later than all these tensors are there."""

        def spend(*_):
            self.now += seconds
            return 0.0

        return tensor + tf.cast(self._called(spend, *after), tensor.dtype)

    def _called(self, function, *after):
        # Calls with state would be made one after the other, in the order of the program.
        return tf.ensure_shape(tf.numpy_function(function, [tf.timestamp(), *after], tf.float64, stateful=False), [])


def test_waiting_for_data_is_measured_and_computing_is_not(tiny_data_set):
    time = FakeTime()
    batch = next(
        iter(
            train_batches(
                open_data_set(tiny_data_set),
                global_batch_size=4,
                start_step=0,
                train_steps=1,
                seed=0,
                masking=Masking(),
                shuffle_examples=1,
            )
        )
    )

    class Batches:
        def __next__(self):
            return {**batch, "input_ids": time.later(0.25, batch["input_ids"])}

    class Model(BertMaskedLM):
        def call(self, inputs, training=False, seed=None):
            logits = super().call(inputs, training=training, seed=seed)
            return time.later(64.0, logits, logits, time.readings[-1])

    model = Model(ModelConfig(31, 16, 1, 2, 32, 24), seed=3)
    optimizer = make_optimizer(model.trainable_variables, make_schedule(OPTIONS), weight_decay=0.01)
    loop = TrainLoop(tf.distribute.get_strategy(), model, optimizer, seed=0, clip_norm=1.0, clock=time.read)
    assert loop(Batches(), 0, 5).waited.tolist() == [0.25] * 5
    assert time.now == 5 * 64.25


def test_bfloat16_computes_about_the_same_and_keeps_float32_weights(tiny_data_set, one):
    (losses, *_), weights, _ = one
    (losses_here, *_), weights_here, _ = trained(tiny_data_set, replicas=1, dtype="mixed_bfloat16")
    np.testing.assert_allclose(losses_here, losses, atol=0.02)
    assert not np.array_equal(losses_here, losses)
    assert all(weights_here[name].dtype == value.dtype for name, value in weights.items())


def test_compiled_by_xla_it_computes_the_same(tiny_data_set, one):
    (losses, norms, tokens, _), weights, _ = one
    (losses_here, norms_here, tokens_here, _), weights_here, (_, _, loop) = trained(
        tiny_data_set, replicas=1, jit_compile=True, counts=(1, 3, 2)
    )
    assert loop.traces == 1
    np.testing.assert_allclose(losses_here, losses, rtol=0, atol=1e-5)
    np.testing.assert_allclose(norms_here, norms, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(tokens_here, tokens)
    for name, value in weights.items():
        np.testing.assert_allclose(weights_here[name], value, rtol=0, atol=1e-5, err_msg=name)


def test_dropout_differs_on_each_replica_and_step():
    seeds = {
        tuple(dropout_seed(1, tf.constant(step), tf.constant(replica), replicas=4).numpy())
        for step in range(8)
        for replica in range(4)
    }
    assert len(seeds) == 32
    assert (
        dropout_seed(1, tf.constant(0), tf.constant(0), replicas=1)[0]
        != dropout_seed(2, tf.constant(0), tf.constant(0), replicas=1)[0]
    )


def test_same_seed_drops_the_same(tiny_data_set):
    (first, *_), weights, _ = trained(tiny_data_set, replicas=1, dropout=0.2)
    (again, *_), weights_again, _ = trained(tiny_data_set, replicas=1, dropout=0.2)
    np.testing.assert_array_equal(first, again)
    assert all(np.array_equal(weights_again[name], value) for name, value in weights.items())
