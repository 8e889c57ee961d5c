import importlib.util
import os
import sys
from pathlib import Path
from statistics import NormalDist

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from tests import processes
from trainer.config import ModelConfig
from trainer.models.model import BertMaskedLM, dropout, gelu, layer_norm, segments

CLS, SEP = 2, 3
SHAPE = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
RATES = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.2}
CONFIG = ModelConfig(
    vocab_size=23, **SHAPE, **RATES, max_position_embeddings=10, initializer_range=0.5, cls_token_id=CLS
)

ONE, TWO = [CLS, 7, 9, 8, SEP], [CLS, 11, 7, SEP]
PACKED = [*ONE, *TWO, 0]


@pytest.fixture(scope="module")
def model() -> BertMaskedLM:
    return BertMaskedLM(CONFIG, seed=1)


def hidden(model: BertMaskedLM, *rows: list[int]) -> np.ndarray:
    return ops.convert_to_numpy(model.encode(np.array(rows, np.int32)))


def batch(*rows: list[int]) -> dict[str, np.ndarray]:
    positions = [[1, 3, 0]] * len(rows)
    return {"input_ids": np.array(rows, np.int32), "masked_lm_positions": np.array(positions, np.int32)}


def numbers(tensor: object) -> np.ndarray:
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def test_segments_are_int32_of_the_shape_of_the_ids():
    for tensor in segments(np.array([PACKED, [0] * 10], np.int64), cls_token_id=CLS):
        assert tuple(tensor.shape) == (2, 10)
        assert keras.backend.standardize_dtype(tensor.dtype) == "int32"


@settings(max_examples=50)
@given(st.lists(st.integers(1, 4), max_size=5), st.integers(0, 3))
def test_segments_are_counted_from_one_and_positions_from_zero(lengths: list[int], padding: int):
    ids = [id_ for length in lengths for id_ in [CLS, *[7] * length, SEP]] + [0] * padding
    segment_ids = [number for number, length in enumerate(lengths, 1) for _ in range(length + 2)] + [0] * padding
    positions = [place for length in [*(length + 2 for length in lengths), padding] for place in range(length)]
    found = segments(np.array([ids], np.int32), cls_token_id=CLS)
    assert [ops.convert_to_numpy(each)[0].tolist() for each in found] == [segment_ids, positions]


def test_all_weights_exist_once_the_model_is_constructed():
    model = BertMaskedLM(CONFIG, seed=1)
    vocabulary, width, inner, layers = CONFIG.vocab_size, CONFIG.hidden_size, CONFIG.intermediate_size, 2
    norm = 2 * width
    embeddings = (vocabulary + CONFIG.max_position_embeddings + CONFIG.type_vocab_size) * width + norm
    layer = 4 * (width * width + width) + (width * inner + inner) + (inner * width + width) + 2 * norm
    head = (width * width + width) + norm + vocabulary
    assert model.count_params() == embeddings + layers * layer + head
    paths = [variable.path for variable in model.trainable_variables]
    assert len(set(paths)) == len(paths) == len(model.variables)
    assert "bert_masked_lm/encoder_layer_1/attention_output_dense/kernel" in paths


def test_initial_weights_are_those_of_devlin_et_al_and_a_function_of_the_seed():
    values = [{v.path: numbers(v) for v in BertMaskedLM(CONFIG, seed=seed).variables} for seed in (5, 5, 6)]
    matrices = [path for path in values[0] if values[0][path].ndim == 2]
    for path in matrices:
        assert np.abs(values[0][path]).max() <= 2 * CONFIG.initializer_range
        np.testing.assert_array_equal(values[0][path], values[1][path])
        assert (values[0][path] != values[2][path]).all()
    for path in values[0].keys() - matrices:
        assert (values[0][path] == path.endswith("gamma")).all()
    assert len({values[0][path].ravel()[0] for path in matrices}) == len(matrices)


def test_shapes_follow_batch_length_and_positions(model: BertMaskedLM):
    assert tuple(model(batch(PACKED, PACKED)).shape) == (2, 3, 23)
    assert hidden(model, PACKED, PACKED).shape == (2, 10, 8)
    assert hidden(model, ONE).shape == (1, 5, 8)


def test_the_head_sees_the_masked_positions(model: BertMaskedLM):
    everywhere = model.decode(model.encode(np.array([PACKED, PACKED[::-1]], np.int32)))
    positions = np.array([[4, 0], [9, 4]], np.int32)
    found = model({"input_ids": np.array([PACKED, PACKED[::-1]], np.int32), "masked_lm_positions": positions})
    np.testing.assert_allclose(found, np.take_along_axis(numbers(everywhere), positions[:, :, None], 1), atol=1e-6)


def test_the_decoder_is_tied_to_the_word_embeddings(model: BertMaskedLM):
    biased = BertMaskedLM(CONFIG, seed=1)
    biased.decoder_bias.assign(np.arange(23.0))
    np.testing.assert_allclose(
        numbers(biased(batch(ONE))) - numbers(model(batch(ONE))), [[np.arange(23)] * 3], atol=1e-5
    )
    biased.word_embeddings.embeddings[22].assign(biased.word_embeddings.embeddings[21])  # ids that ONE does not hold
    logits = numbers(biased(batch(ONE)))
    np.testing.assert_allclose(logits[..., 22] - logits[..., 21], 1, atol=1e-5)


def test_a_segment_gives_in_company_what_it_gives_alone(model: BertMaskedLM):
    packed = hidden(model, PACKED)[0]
    np.testing.assert_allclose(packed[:5], hidden(model, ONE)[0], atol=1e-5)
    np.testing.assert_allclose(packed[5:9], hidden(model, TWO)[0], atol=1e-5)


def test_a_segment_sees_itself_and_its_order(model: BertMaskedLM):
    assert np.abs(hidden(model, ONE) - hidden(model, [CLS, 7, 10, 8, SEP]))[0, 1].max() > 1e-3
    assert np.abs(hidden(model, ONE) - hidden(model, [CLS, 7, 8, 9, SEP]))[0, 1].max() > 1e-3


def test_padding_changes_nothing(model: BertMaskedLM):
    np.testing.assert_allclose(hidden(model, [*ONE, 0, 0, 0])[0, :5], hidden(model, ONE)[0], atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_rows_of_padding_give_numbers_and_disturb_no_one(dtype: str):
    model = BertMaskedLM(CONFIG, seed=1, dtype=dtype)
    with tf.GradientTape() as tape:
        logits = ops.cast(model(batch([0] * 10, PACKED), training=True, seed=[1, 2]), "float32")
        loss = ops.sum(ops.square(logits))
    assert np.isfinite(numbers(logits)).all()
    gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    assert all(np.isfinite(numbers(gradient)).all() for gradient in gradients)
    np.testing.assert_allclose(
        numbers(model(batch([0] * 10, PACKED)))[1], numbers(model(batch(PACKED)))[0], atol=1e-6, rtol=0
    )


def test_gradients_reach_every_weight_and_are_dense(model: BertMaskedLM):
    with tf.GradientTape() as tape:
        loss = ops.sum(ops.square(model(batch(PACKED))))
    gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert isinstance(gradient, tf.Tensor), variable.path
        assert np.abs(gradient).max() > 0, variable.path


def test_a_sequence_beyond_the_position_embeddings_is_refused(model: BertMaskedLM):
    with pytest.raises(ValueError, match=r"^input_ids is 11 long, the model has 10 position embeddings$"):
        hidden(model, [CLS] * 11)


def test_bfloat16_is_close_and_keeps_its_weights_in_float32(model: BertMaskedLM):
    half = BertMaskedLM(CONFIG, seed=1, dtype="mixed_bfloat16")
    logits = half(batch(PACKED))
    assert keras.backend.standardize_dtype(logits.dtype) == "bfloat16"
    assert {variable.dtype for variable in half.variables} == {"float32"}
    np.testing.assert_allclose(numbers(logits), numbers(model(batch(PACKED))), atol=0.15)
    assert np.abs(numbers(model(batch(PACKED)))).max() > 2


# Dropout.


@pytest.mark.parametrize(("dtype", "atol"), [("float32", 1e-6), ("bfloat16", 2**-7)])  # its spacing around the slopes
def test_gelu_and_its_slope_are_exact(dtype: str, atol: float):
    x = tf.constant([-40.0, -4.0, -1.0, -0.25, 0.0, 0.25, 1.0, 4.0, 40.0], dtype)  # all of them exact in either
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = 2 * gelu(x)
    normal = NormalDist()
    values = [2 * at * normal.cdf(at) for at in x.numpy().astype(float)]
    slopes = [2 * (normal.cdf(at) + at * normal.pdf(at)) for at in x.numpy().astype(float)]
    slope = tape.gradient(y, x)
    assert (y.dtype, slope.dtype) == (dtype, dtype)
    np.testing.assert_allclose(tf.cast(y, tf.float64), values, rtol=2 * atol, atol=atol)
    np.testing.assert_allclose(tf.cast(slope, tf.float64), slopes, atol=2 * atol)


def test_layer_norm_and_its_gradients_are_those_of_the_layer():
    layer, x = keras.layers.LayerNormalization(epsilon=1e-12), 3 + 2 * tf.random.stateless_normal([2, 5, 8], [1, 2])
    layer.build(x.shape)
    layer.gamma.assign(tf.random.stateless_normal([8], [3, 4]))
    layer.beta.assign(tf.random.stateless_normal([8], [5, 6]))
    weights = [layer.gamma.value, layer.beta.value]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        ours, theirs = layer_norm(layer, x), layer(x)
        sums = [tf.reduce_sum(tf.sin(each)) for each in (ours, theirs)]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    for found, expected in zip(*(tape.gradient(each, [x, *weights]) for each in sums), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_dropout_of_nothing_is_the_identity():
    x = np.arange(6.0, dtype=np.float32)
    assert dropout(x, 0.0, seed=[1, 2]) is x
    assert dropout(x, 0.5, seed=None) is x


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dropout_keeps_the_mean_in_any_precision(dtype: str):
    x = keras.random.uniform((1000, 1000), 0.5, 1.5, seed=3)
    dropped = numbers(dropout(ops.cast(x, dtype), 0.1, seed=[1, 2]))
    assert abs((dropped == 0).mean() - 0.1) < 5 * (0.1 * 0.9 / 1e6) ** 0.5
    assert abs(dropped.mean() / numbers(ops.cast(x, dtype)).mean() - 1) < 5 * (0.1 / 0.9 / 1e6) ** 0.5 * 1.1


def test_dropout_is_a_function_of_the_seed():
    once, again, other, another = (
        numbers(dropout(np.ones((40, 40)), 0.5, seed=seed)) for seed in ([1, 2], np.array([1, 2]), [1, 3], [2, 2])
    )
    np.testing.assert_array_equal(once, again)
    for different in (other, another):
        assert abs((once == different).mean() - 0.5) < 0.1


def test_a_training_pass_is_a_function_of_its_seed_alone(model: BertMaskedLM):
    keras.utils.set_random_seed(1)
    once = numbers(model(batch(PACKED), training=True, seed=[1, 2]))
    keras.utils.set_random_seed(2)
    np.testing.assert_array_equal(once, model(batch(PACKED), training=True, seed=tf.constant([1, 2])))
    for other in ([1, 3], [2, 2]):
        assert np.abs(once - numbers(model(batch(PACKED), training=True, seed=other))).max() > 1e-2


def test_each_site_of_dropout_has_its_rate_and_a_seed_of_its_own(model: BertMaskedLM, monkeypatch: pytest.MonkeyPatch):
    rates, used = [], []

    def noted(x: object, rate: float, *, seed: object) -> object:
        rates.append(rate)
        used.append(tuple(ops.convert_to_numpy(seed).tolist()))
        return dropout(x, rate, seed=seed)

    monkeypatch.setattr("trainer.models.model.dropout", noted)
    for seed in ([1, 2], [1, 3], [1, 2]):
        model(batch(PACKED), training=True, seed=seed)
    assert rates == [0.1, *[0.2, 0.1, 0.1] * CONFIG.num_hidden_layers] * 3
    first, second, again = np.array_split(used, 3)
    assert len({*map(tuple, first), *map(tuple, second)}) == len(first) + len(second)
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("name", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_each_rate_alone_has_effect_and_needs_a_seed(name: str):
    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, name: 0.5}
    model = BertMaskedLM(ModelConfig(vocab_size=23, **SHAPE, **rates, cls_token_id=CLS), seed=1)
    assert (
        np.abs(numbers(model(batch(PACKED), training=True, seed=[1, 2])) - numbers(model(batch(PACKED)))).max() > 1e-4
    )
    with pytest.raises(ValueError, match=r"training with dropout needs a seed: int32 \[2\], another in each step"):
        model(batch(PACKED), training=True)


def test_without_dropout_training_needs_no_seed_and_changes_nothing():
    config = ModelConfig(
        vocab_size=23, **SHAPE, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, cls_token_id=CLS
    )
    model = BertMaskedLM(config, seed=1)
    np.testing.assert_array_equal(model(batch(PACKED), training=True), model(batch(PACKED)))


# Ways to run it.


@pytest.mark.parametrize("jit_compile", [False, True])
def test_it_runs_compiled_and_for_any_batch_size(model: BertMaskedLM, jit_compile: bool):
    ids = tf.TensorSpec([None, 10], tf.int32)
    places = tf.TensorSpec([None, 3], tf.int32)

    @tf.function(jit_compile=jit_compile, input_signature=[{"input_ids": ids, "masked_lm_positions": places}])
    def evaluate(inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        return model(inputs)

    @tf.function(jit_compile=jit_compile)
    def train(inputs: dict[str, tf.Tensor], seed: tf.Tensor) -> tf.Tensor:
        return model(inputs, training=True, seed=seed)

    for rows in ([PACKED], [PACKED, ONE + [0] * 5]):
        np.testing.assert_allclose(evaluate(batch(*rows)), model(batch(*rows)), atol=3e-5)
    once, again, other = (numbers(train(batch(PACKED), tf.constant(seed))) for seed in ([1, 2], [1, 2], [1, 3]))
    np.testing.assert_array_equal(once, again)
    assert np.abs(once - other).max() > 1e-2
    if not jit_compile:  # XLA draws from a generator of its own
        np.testing.assert_allclose(once, model(batch(PACKED), training=True, seed=[1, 2]), atol=1e-5)


UNDER_A_STRATEGY = """
import sys
import numpy as np, tensorflow as tf
from trainer.models import bridge
from trainer.config import ModelConfig
from trainer.models.model import BertMaskedLM

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice())
config = ModelConfig(vocab_size=23, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12)
batch = {"input_ids": tf.constant([[101, 5, 6, 0]]), "masked_lm_positions": tf.constant([[1, 2]])}
batch["input_ids"] %= 23
alone = BertMaskedLM(config, seed=1)
bridge.write_checkpoint(alone, sys.argv[1] + "/alone")
with strategy.scope():
    model = BertMaskedLM(config, seed=2)
    bridge.read_checkpoint(model, sys.argv[1] + "/alone")
bridge.write_checkpoint(model, sys.argv[1] + "/mirrored")

@tf.function
def run():
    def on_a_replica():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return model(batch, training=True, seed=tf.stack([7, tf.cast(replica, tf.int32)]))
    return strategy.run(on_a_replica)

first, second = strategy.experimental_local_results(run())
assert np.abs(first - second).max() > 1e-4
for number, logits in enumerate((first, second)):
    np.testing.assert_allclose(logits, alone(batch, training=True, seed=[7, number]), atol=1e-5)
"""


def run_alone(program: str, *arguments: str, **environment: str) -> str:
    """Run a program in an interpreter of its own, since devices and the backend are chosen once a process."""
    done = processes.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, **environment},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_replicas_hold_the_same_weights_and_drop_what_their_seed_says(tmp_path: Path):
    run_alone(UNDER_A_STRATEGY, str(tmp_path))
    written = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("alone", "mirrored")]
    assert written[0] == written[1]


ON_JAX = """
import json, sys
import jax, keras, numpy as np, safetensors.numpy
from tests.trainer.make_goldens import GOLDENS, recipe
from trainer.models import bridge
from trainer.config import ModelConfig
from trainer.models.model import BertMaskedLM

goldens = json.loads(GOLDENS.read_text())
config = ModelConfig(**goldens["config"], cls_token_id=goldens["cls_token_id"])
model = BertMaskedLM(config, seed=1)
tensors = {name: recipe(name, each.shape) for each in bridge.table(model) for name in each.names}
safetensors.numpy.save_file(tensors, sys.argv[1] + "/model.safetensors")
bridge.read_checkpoint(model, sys.argv[1])
bridge.write_checkpoint(model, sys.argv[1] + "/out")
written = safetensors.numpy.load_file(sys.argv[1] + "/out/model.safetensors")
assert all((written[name] == tensors[name]).all() for name in tensors)

segment = goldens["segments"][0]
batch = {"input_ids": np.array([segment], "int32"), "masked_lm_positions": np.array([range(len(segment))], "int32")}
found = np.asarray(model(batch))[0, :, : len(goldens["logits"][0][0])]
np.testing.assert_allclose(found, goldens["logits"][0], atol=1e-4)

weights = [variable.value for variable in model.trainable_variables]

@jax.jit
def train(weights, batch, seed):
    return model.stateless_call(weights, [], batch, training=True, seed=seed)[0]

once, again, other = (np.asarray(train(weights, batch, np.array(seed, "int32"))) for seed in ([1, 2], [1, 2], [1, -3]))
assert (once == again).all() and np.abs(once - other).max() > 1e-2
np.testing.assert_allclose(once, model(batch, training=True, seed=[1, 2]), atol=1e-4)
assert keras.backend.backend() == "jax"
assert BertMaskedLM(config, seed=1, dtype="mixed_bfloat16")(batch, training=True, seed=[1, 2]).dtype == "bfloat16"
"""


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_it_gives_the_same_on_jax(tmp_path: Path):
    run_alone(ON_JAX, str(tmp_path), KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")
