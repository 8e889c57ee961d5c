import json
from pathlib import Path

import numpy as np
import pytest
import safetensors
from hypothesis import given
from hypothesis import strategies as st
from keras import ops
from safetensors.numpy import load_file, save_file

from records.errors import RemaskError
from tests.said import must_name
from tests.trainer.make_goldens import GOLDENS, recipe
from trainer.config import ModelConfig
from trainer.models import bridge
from trainer.models.model import BertMaskedLM

THEIRS = json.loads(GOLDENS.read_text())

CONFIG = ModelConfig(**THEIRS["config"], cls_token_id=THEIRS["cls_token_id"])
WORDS = "bert.embeddings.word_embeddings.weight"
KEY = "bert.encoder.layer.2.attention.self.key.weight"

Tensors = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    """Return what a checkpoint of `CONFIG` holds."""
    model = BertMaskedLM(CONFIG, seed=0)
    return {name: recipe(name, weight.shape) for weight in bridge.table(model) for name in weight.names}


def fresh() -> BertMaskedLM:
    return BertMaskedLM(CONFIG, seed=0)


def values(model: BertMaskedLM) -> Tensors:
    return {variable.path: np.array(variable.numpy()) for variable in model.variables}


def read(tensors: Tensors, folder: Path) -> tuple[BertMaskedLM, bridge.CheckpointReport]:
    model = fresh()
    save_file(tensors, folder / "model.safetensors")
    return model, bridge.read_checkpoint(model, folder)


def refusal(tensors: Tensors, folder: Path) -> str:
    """Return the text of the error, which must leave the model as it was."""
    model = fresh()
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(RemaskError) as refused:
        bridge.read_checkpoint(model, folder)
    for path, value in values(fresh()).items():
        np.testing.assert_array_equal(values(model)[path], value)
    return str(refused.value)


def assert_holds(model: BertMaskedLM, tensors: Tensors) -> None:
    found = {name: tensor for weight in bridge.table(model) for name, tensor in weight.tensors().items()}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)


def test_logits_are_those_of_pytorch(tensors: Tensors, tmp_path: Path):
    model, _ = read(tensors, tmp_path)
    one, two, three = THEIRS["segments"]
    rows = np.array([[*one, *two, 0], [*three, 0, 0, 0]], np.int32)  # what PyTorch was given one by one
    positions = np.array([range(10)] * 2, np.int32)
    found = ops.convert_to_numpy(model({"input_ids": rows, "masked_lm_positions": positions}))[:, :, :6]
    wanted = THEIRS["logits"]
    np.testing.assert_allclose(found[0, :9], [*wanted[0], *wanted[1]], atol=2e-5)
    np.testing.assert_allclose(found[1, :7], wanted[2], atol=2e-5)


# The table.


def test_the_table_holds_every_variable_and_every_name_once():
    model = fresh()
    table = bridge.table(model)
    assert {id(weight.variable) for weight in table} == {id(variable) for variable in model.variables}
    assert len(table) == len(model.variables)
    names = [name for weight in table for name in weight.names]
    assert len(set(names)) == len(names) == 4 + 1 + CONFIG.num_hidden_layers * 16 + 4 + 1


def test_tensors_have_the_shapes_of_pytorch(tensors: Tensors):
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    assert shapes[WORDS] == (40, 16)
    assert shapes[KEY] == (16, 16)
    assert shapes["bert.encoder.layer.0.intermediate.dense.weight"] == (24, 16)
    assert shapes["bert.encoder.layer.0.output.dense.weight"] == (16, 24)
    assert shapes["bert.encoder.layer.1.attention.self.value.bias"] == (16,)
    assert shapes["cls.predictions.bias"] == (40,)


# Reading.


def test_a_whole_checkpoint_is_read_from_its_folder_or_its_file(tensors: Tensors, tmp_path: Path):
    model, report = read(tensors, tmp_path)
    assert report == bridge.CheckpointReport(missing=(), unused=())
    assert_holds(model, tensors)
    again = fresh()
    bridge.read_checkpoint(again, str(tmp_path / "model.safetensors"))
    assert_holds(again, tensors)


@pytest.mark.parametrize("given", ["", "model.safetensors.index.json"])
def test_a_checkpoint_in_shards_is_read_by_its_index(tensors: Tensors, tmp_path: Path, given: str):
    names = sorted(tensors)
    files = {"model-00001-of-00002.safetensors": names[:20], "model-00002-of-00002.safetensors": names[20:]}
    for file, held in files.items():
        save_file({name: tensors[name] for name in held}, tmp_path / file)
    index = {"metadata": {}, "weight_map": {name: file for file, held in files.items() for name in held}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    model = fresh()
    assert bridge.read_checkpoint(model, tmp_path / given) == bridge.CheckpointReport((), ())
    assert_holds(model, tensors)


def test_old_names_are_read_and_what_is_of_no_use_is_passed_over(tensors: Tensors, tmp_path: Path):
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in tensors.items()
    }
    old["bert.embeddings.position_ids"] = np.arange(12)[None]
    old["bert.embeddings.token_type_ids"] = np.zeros((1, 12), np.int64)
    old["bert.pooler.dense.weight"] = np.ones((16, 16), np.float32)
    old["cls.seq_relationship.bias"] = np.ones(2, np.float32)
    old["cls.predictions.decoder.weight"] = tensors[WORDS]
    old["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"]
    model, report = read(old, tmp_path)
    assert report == bridge.CheckpointReport((), ())
    assert_holds(model, tensors)


def test_a_tied_tensor_may_have_its_second_name_alone(tensors: Tensors, tmp_path: Path):
    renamed = dict(tensors)
    renamed["cls.predictions.decoder.bias"] = renamed.pop("cls.predictions.bias")
    model, report = read(renamed, tmp_path)
    assert report == bridge.CheckpointReport((), ())
    assert_holds(model, tensors)


def test_an_encoder_alone_leaves_the_head_as_it_was(tensors: Tensors, tmp_path: Path):
    encoder = {name.removeprefix("bert."): tensor for name, tensor in tensors.items() if name.startswith("bert.")}
    encoder["pooler.dense.bias"] = np.ones(16, np.float32)
    encoder["embeddings.position_ids"] = np.arange(12)[None]
    model, report = read(encoder, tmp_path)
    head = (
        "cls.predictions.bias",
        "cls.predictions.transform.LayerNorm.bias",
        "cls.predictions.transform.LayerNorm.weight",
        "cls.predictions.transform.dense.bias",
        "cls.predictions.transform.dense.weight",
    )
    assert report == bridge.CheckpointReport(missing=head, unused=())
    before = bridge.table(fresh())
    kept = {name: tensor for weight in before for name, tensor in weight.tensors().items() if name in head}
    assert_holds(model, {**tensors, **kept})


def test_what_is_left_over_is_listed_by_its_own_name(tensors: Tensors, tmp_path: Path):
    more = {
        "classifier.weight": np.ones((2, 16), np.float32),
        "qa_outputs.bias": np.ones(2, np.float32),
        WORDS.removeprefix("bert."): tensors[WORDS],
    }
    model, report = read({**tensors, **more}, tmp_path)
    assert report.unused[0] == "classifier.weight"
    assert report.unused[-1] == "qa_outputs.bias"
    assert report.unused[1] in {WORDS, WORDS.removeprefix("bert.")}  # either, for they are equal
    assert len(report.unused) == 3
    assert_holds(model, tensors)


def heads_of(tensors: Tensors, heads: int) -> Tensors:
    """Let the attention of each head be larger than that of the one before, as training would in some way."""
    scale = np.repeat(np.exp(np.arange(heads)), CONFIG.hidden_size // heads).astype(np.float32)[:, None]
    attention = [name for name in tensors if ".attention.self." in name and name.endswith(".weight")]
    return {**tensors, **{name: scale * (1 + 0.1 * np.tanh(tensors[name])) for name in attention}}


@pytest.mark.parametrize("heads", [2, 4, 8])
def test_weights_that_look_as_if_they_had_other_heads_are_told(tensors: Tensors, tmp_path: Path, heads: int):
    assert CONFIG.num_attention_heads == 2
    _, report = read(heads_of(tensors, heads), tmp_path)
    assert report.heads == (None if heads == 2 else heads)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_floats_become_float32(tensors: Tensors, tmp_path: Path, dtype: str):
    import ml_dtypes

    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    others = {name: tensor.astype(kind) for name, tensor in tensors.items()}
    if dtype == "bfloat16":
        write_bfloat16(others, tmp_path / "model.safetensors")
        model = fresh()
        bridge.read_checkpoint(model, tmp_path)
    else:
        model, _ = read(others, tmp_path)
    assert_holds(model, {name: tensor.astype(np.float32) for name, tensor in others.items()})


def write_bfloat16(tensors: Tensors, path: Path) -> None:
    """Write what older versions of safetensors cannot write from numpy: a header, then the bytes."""
    header, start = {}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "BF16", "shape": tensor.shape, "data_offsets": [start, start := start + tensor.nbytes]}
    text = json.dumps(header).encode()
    content = b"".join(tensor.tobytes() for tensor in tensors.values())
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)


# Refusals.


def test_a_missing_tensor_of_the_encoder_is_refused(tensors: Tensors, tmp_path: Path):
    names = ["bert.embeddings.LayerNorm.bias", KEY]
    left = {name: tensor for name, tensor in tensors.items() if name not in names}
    must_name(
        refusal({**left, "roberta.x": np.ones(1, np.float32)}, tmp_path),
        f"{tmp_path}:",
        "2 tensors of the encoder are missing",
        "bert.embeddings.LayerNorm.bias [16]",
        "bert.encoder.layer.2.attention.self.key.weight [16, 16]",
        "not expected",
        "roberta.x",
        "config.json",
    )


def test_a_checkpoint_of_something_else_is_refused_in_few_lines(tmp_path: Path):
    must_name(
        refusal({}, tmp_path),
        f"{tmp_path}:",
        "53 tensors of the encoder are missing",
        "bert.embeddings.word_embeddings.weight [40, 16]",
        "bert.embeddings.position_embeddings.weight [12, 16]",
        "bert.embeddings.token_type_embeddings.weight [2, 16]",
        "bert.embeddings.LayerNorm.weight [16]",
        "bert.embeddings.LayerNorm.bias [16]",
        "bert.encoder.layer.0.attention.self.query.weight [16, 16]",
        "47 more",
        "not expected: nothing",
        "config.json",
    )


def test_tensors_of_another_shape_or_type_are_refused(tensors: Tensors, tmp_path: Path):
    unfit = {KEY: tensors[KEY][:, :8], "cls.predictions.bias": tensors["cls.predictions.bias"].astype(np.int8)}
    must_name(
        refusal({**tensors, **unfit}, tmp_path),
        f"{tmp_path}:",
        "2 tensors",
        "bert.encoder.layer.2.attention.self.key.weight:",
        "expected [16, 16] of floats",
        "found [16, 8] of F32",
        "cls.predictions.bias:",
        "expected [40] of floats",
        "found [40] of I8",
        "config.json",
    )


def test_a_tensor_by_its_old_and_its_new_name_is_refused_where_they_differ(tensors: Tensors, tmp_path: Path):
    new, old = (f"bert.embeddings.LayerNorm.{name}" for name in ("weight", "gamma"))
    text = refusal({**tensors, old: tensors[new] + 1}, tmp_path)
    assert text.startswith((f"{tmp_path}: {new} differs from {old}, ", f"{tmp_path}: {old} differs from {new}, "))


@pytest.mark.parametrize(
    "name",
    [
        "bert.encoder.layer.3.output.dense.bias",
        "encoder.layer.0.attention.self.distance_embedding.weight",
        "bert.encoder.layer.1.crossattention.self.query.weight",
        "cls.predictions.extra.bias",
    ],
)
def test_a_tensor_of_another_model_is_refused(tensors: Tensors, tmp_path: Path, name: str):
    """A layer too many, relative positions, a decoder's attention: without it the rest computes something else."""
    text = refusal({**tensors, name: np.ones((4, 16), np.float32)}, tmp_path)
    assert text.startswith(f"{tmp_path}: 1 tensors of the encoder or the head have no place in the model:\n  {name}\n")
    layers = 4 if ".3." in name else 3
    assert f"has {layers} layers, its config.json says num_hidden_layers 3" in text


@pytest.mark.parametrize(
    ("second", "first"),
    [("cls.predictions.decoder.weight", WORDS), ("cls.predictions.decoder.bias", "cls.predictions.bias")],
)
def test_a_decoder_of_its_own_is_refused(tensors: Tensors, tmp_path: Path, second: str, first: str):
    must_name(
        refusal({**tensors, second: tensors[first] + 1}, tmp_path),
        f"{tmp_path}:",
        f"{second} differs from {first}",
        "expected equal",
        "decoder is tied to the word embeddings",
    )


@pytest.mark.parametrize(
    ("value", "dtype", "counted"),
    [
        (np.nan, "float32", "1 of 256 values that are no finite numbers in float32, 1 of them NaN; stored as F32"),
        (np.inf, "float32", "1 of 256 values that are no finite numbers in float32, 0 of them NaN; stored as F32"),
        (-np.inf, "float16", "1 of 256 values that are no finite numbers in float32, 0 of them NaN; stored as F16"),
        (1e39, "float64", "1 of 256 values that are no finite numbers in float32, 0 of them NaN; stored as F64"),
        (-1e39, "float64", "1 of 256 values that are no finite numbers in float32, 0 of them NaN; stored as F64"),
    ],
)
def test_a_value_that_is_no_finite_number_is_refused(tensors: Tensors, tmp_path: Path, value, dtype, counted):
    broken = tensors[KEY].astype(dtype)
    broken[3, 5] = value
    text = refusal({**tensors, KEY: broken}, tmp_path)
    assert text.startswith(f"{tmp_path}/model.safetensors: {KEY} has {counted}")
    assert "take an earlier checkpoint" in text


def test_each_tensor_is_looked_at_also_that_with_two_names(tensors: Tensors, tmp_path: Path):
    for name in (WORDS, "cls.predictions.bias", "bert.encoder.layer.2.output.LayerNorm.weight"):
        broken = {**tensors, name: np.full_like(tensors[name], np.nan)}
        broken["cls.predictions.decoder.weight"] = broken[WORDS]
        assert f": {name} has {tensors[name].size:,} of " in refusal(broken, tmp_path)


def test_the_file_of_a_checkpoint_in_shards_is_named(tensors: Tensors, tmp_path: Path):
    files = {"a.safetensors": {KEY: np.full_like(tensors[KEY], np.inf)}}
    files["b.safetensors"] = {name: tensor for name, tensor in tensors.items() if name != KEY}
    for file, held in files.items():
        save_file(held, tmp_path / file)
    index = {"weight_map": {name: file for file, held in files.items() for name in held}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert refused_path(tmp_path).startswith(f"{tmp_path}/a.safetensors: {KEY} has 256 of 256 values ")


def test_what_is_not_read_may_hold_anything(tensors: Tensors, tmp_path: Path):
    more = {"classifier.bias": np.full(2, np.nan, np.float32), "pooler.dense.bias": np.full(2, np.inf, np.float32)}
    model, _ = read({**tensors, **more}, tmp_path)
    assert_holds(model, tensors)


def test_a_value_beyond_the_arithmetic_is_refused(tensors: Tensors, tmp_path: Path):
    large = {**tensors, KEY: tensors[KEY] * 0 + np.float32(3.4e38)}
    read(large, tmp_path)  # of float32
    with pytest.raises(RemaskError, match="256 of 256 values that are no finite numbers in bfloat16, 0 of them NaN"):
        bridge.read_checkpoint(BertMaskedLM(CONFIG, seed=0, dtype="mixed_bfloat16"), tmp_path)


def refused_path(path: Path | str) -> str:
    with pytest.raises(RemaskError) as refused:
        bridge.read_checkpoint(fresh(), path)
    return str(refused.value)


def test_no_checkpoint_is_refused(tmp_path: Path):
    for path in (tmp_path, tmp_path / "none"):
        must_name(refused_path(path), f"{path}:", "no checkpoint", "expected a folder with model.safetensors")


def test_a_url_is_refused():
    assert refused_path("s3://bucket/model").startswith("s3://bucket/model: found a s3:// URL")


def test_a_pickle_is_refused_and_says_how_to_convert_it(tmp_path: Path):
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "pytorch_model.bin").write_bytes(b"")
    command = (
        "import torch; from safetensors.torch import save_file; old = torch.load('pytorch_model.bin', 'cpu'); "
        "save_file({name: old[name].clone().contiguous() for name in old}, 'model.safetensors')"
    )
    for path in (folder, folder / "pytorch_model.bin"):
        must_name(
            refused_path(path),
            f"{path}:",
            "found pytorch_model.bin, a pickle",
            "expected model.safetensors",
            f"cd '{folder}' && python -c \"{command}\"",
        )


def test_damage_is_refused(tensors: Tensors, tmp_path: Path):
    file = tmp_path / "model.safetensors"
    save_file(tensors, file)
    file.write_bytes(file.read_bytes()[:-1])
    text = refused_path(tmp_path)
    must_name(text, f"{file}:", "damaged", "copy the checkpoint again")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": 1}', '{"weight_map": {"a": 1}}', '{"weight_map": {"a": "../b"}}']
)
def test_a_damaged_index_is_refused(tmp_path: Path, text: str):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(text)
    said = refused_path(tmp_path)
    must_name(said, f"{index}:", "copy the checkpoint again")


def test_a_missing_shard_is_refused(tmp_path: Path):
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "one.safetensors"}}')
    assert refused_path(tmp_path) == f"{tmp_path / 'one.safetensors'}: no such file or directory"


# Writing.


def test_what_is_written_is_what_was_read_to_the_bit(tensors: Tensors, tmp_path: Path):
    model, _ = read(tensors, tmp_path)
    bridge.write_checkpoint(model, tmp_path / "out")
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert written.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert written[name].dtype == np.float32
        assert written[name].tobytes() == tensor.tobytes(), name
    with safetensors.safe_open(tmp_path / "out" / "model.safetensors", framework="np") as file:
        assert file.metadata() == {"format": "pt"}


def test_the_same_weights_give_the_same_bytes_and_nothing_else(tensors: Tensors, tmp_path: Path):
    model, _ = read(tensors, tmp_path)
    for folder in ("one", "two"):
        bridge.write_checkpoint(model, tmp_path / folder)
        bridge.write_checkpoint(model, tmp_path / folder)  # over what is there
        assert sorted(path.name for path in (tmp_path / folder).iterdir()) == ["config.json", "model.safetensors"]
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RemaskError, match="file"):
        bridge.write_checkpoint(fresh(), tmp_path / "file")


def test_config_json_describes_the_model(tmp_path: Path):
    bridge.write_checkpoint(fresh(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config == {
        "architectures": ["BertForMaskedLM"],
        "attention_probs_dropout_prob": 0.1,
        "dtype": "float32",
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": 16,
        "initializer_range": 0.02,
        "intermediate_size": 24,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 12,
        "model_type": "bert",
        "num_attention_heads": 2,
        "num_hidden_layers": 3,
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        "tie_word_embeddings": True,
        "type_vocab_size": 2,
        "vocab_size": 40,
    }
    assert list(config) == sorted(config)


@given(st.integers(1, 9), st.integers(1, 4), st.integers(1, 9), st.floats(0, 0.9), st.integers(0, 99))
def test_config_json_gives_the_shape_back(size: int, heads: int, layers: int, rate: float, cls_token_id: int):
    config = ModelConfig(
        vocab_size=size + 1,
        hidden_size=size * heads,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=size + 2,
        max_position_embeddings=size + 3,
        type_vocab_size=size,
        hidden_dropout_prob=rate,
        attention_probs_dropout_prob=rate / 2,
        initializer_range=rate + 0.01,
        layer_norm_eps=rate + 1e-12,
        cls_token_id=cls_token_id,
    )
    text = json.dumps(bridge.huggingface_config(config))
    assert ModelConfig.from_huggingface(json.loads(text), cls_token_id=cls_token_id) == config
