import dataclasses

import pytest

from records.console.command_line import parse_options
from records.errors import RemaskError
from tests.said import must_name
from trainer.config import (
    CONTINUABLE,
    NO_PROBES,
    PRESETS,
    SCRATCH,
    EvaluateOptions,
    ExportOptions,
    FillMaskOptions,
    ModelConfig,
    ShowOptions,
    TrainOptions,
)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_options(preset):
    options = parse_options(TrainOptions, ["--preset", preset], prog="train", presets=PRESETS)
    assert options == TrainOptions(**PRESETS[preset])


@pytest.mark.parametrize(
    ("preset", "argv", "sizes"),
    [
        ("article", "--global_batch_size 64", (64, 0)),
        ("sample", "--per_replica_batch_size 8", (0, 8)),
        ("article", "--per_replica_batch_size 8", (0, 8)),
        ("sample", "", (64, 0)),
    ],
)
def test_a_batch_size_that_is_given_replaces_that_of_a_preset(preset, argv, sizes):
    options = parse_options(TrainOptions, ["--preset", preset, *argv.split()], prog="train", presets=PRESETS)
    assert (options.global_batch_size, options.per_replica_batch_size) == sizes


def test_article_is_one_preset_away():
    options = TrainOptions(**PRESETS["article"])
    assert (options.per_replica_batch_size, options.train_steps, options.eval_every) == (16, 2000, 200)
    assert options.learning_rate == 1e-5
    assert options.model == "bert-base-uncased"


def test_what_may_change_is_an_option():
    assert {*CONTINUABLE} <= {field.name for field in dataclasses.fields(TrainOptions)}


@pytest.mark.parametrize("name", SCRATCH)
def test_shapes_can_be_built(name):
    assert ModelConfig(vocab_size=99, **SCRATCH[name]).max_position_embeddings == 512


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ({"vocab_size": None}, ("model:", "vocab_size is None", "expected a whole number")),
        ({"hidden_size": "768"}, ("model:", "hidden_size is '768'", "expected a whole number")),
        ({"num_hidden_layers": 2.0}, ("model:", "num_hidden_layers is 2.0", "expected a whole number")),
        ({"type_vocab_size": True}, ("model:", "type_vocab_size is True", "expected a whole number")),
        ({"hidden_dropout_prob": None}, ("model:", "hidden_dropout_prob is None", "expected a number")),
        ({"layer_norm_eps": 0.0}, ("model:", "layer_norm_eps is 0.0", "expected more than 0, at most 1")),
        (
            {"initializer_range": float("inf")},
            ("model:", "initializer_range is inf", "expected more than 0, at most 1"),
        ),
        ({"layer_norm_eps": 10**400}, ("model:", f"layer_norm_eps is {10**400}", "expected more than 0, at most 1")),
        ({"num_hidden_layers": 1001}, ("model:", "num_hidden_layers is 1,001", "expected at most 1,000")),
        (
            {"vocab_size": 10**9},
            ("model:", "number of parameters is 769,086,042,880", "expected at most 100,000,000,000"),
        ),
        ({"num_attention_heads": 0}, ("model:", "num_attention_heads is 0", "expected a positive number")),
    ],
)
def test_what_a_config_json_may_hold_by_mistake_is_refused(config, parts):
    with pytest.raises(RemaskError) as refused:
        ModelConfig.from_huggingface({"vocab_size": 99, **config}, cls_token_id=2)
    must_name(str(refused.value), *parts)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "roberta"),
        ("hidden_act", "gelu_new"),
        ("position_embedding_type", "relative_key"),
        ("is_decoder", True),
        ("auto_map", {"AutoModelForMaskedLM": "modeling.Ours"}),
        ("pad_token_id", 1),
        ("pad_token_id", "0"),
        ("pad_token_id", False),
    ],
)
def test_what_weights_do_not_tell_and_would_change_the_arithmetic_is_refused(key, value):
    with pytest.raises(RemaskError) as refused:
        ModelConfig.from_huggingface({"vocab_size": 99, key: value}, cls_token_id=2)
    assert str(refused.value).startswith(f"model: {key} is ")


@pytest.mark.parametrize("value", [0, None])
def test_padding_that_is_that_of_the_records(value):
    config = ModelConfig.from_huggingface({"vocab_size": 99, "pad_token_id": value}, cls_token_id=2)
    assert config == ModelConfig(99, cls_token_id=2)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"train_steps": 0}, ("train_steps:", "found 0", "expected 1 to 2**31 - 1")),
        ({"train_steps": 2**31}, ("train_steps:", "found 2147483648", "expected 1 to 2**31 - 1")),
        ({"global_batch_size": -1}, ("global_batch_size:", "found -1", "expected 0 or more")),
        (
            {"global_batch_size": 2**20 + 1},
            ("global_batch_size:", "found 1048577", "expected at most 1,048,576"),
        ),
        (
            {"per_replica_batch_size": 10**30},
            ("per_replica_batch_size:", f"found {10**30}", "expected at most 1,048,576"),
        ),
        ({"per_replica_batch_size": -1}, ("per_replica_batch_size:", "found -1", "expected 0 or more")),
        (
            {"per_replica_batch_size": 16, "global_batch_size": 64},
            ("per_replica_batch_size:", "found 16", "expected none beside global_batch_size", "64"),
        ),
        (
            {"warmup_steps": 11, "train_steps": 10},
            ("warmup_steps:", "found 11", "expected 0 to train_steps", "10", "give both"),
        ),
        ({"learning_rate": 0.0}, ("learning_rate:", "found 0.0", "expected more than 0")),
        ({"learning_rate": float("inf")}, ("learning_rate:", "found inf", "expected a finite number")),
        ({"clip_norm": float("nan")}, ("clip_norm:", "found nan", "expected a finite number")),
        ({"weight_decay": -0.1}, ("weight_decay:", "found -0.1", "expected 0 or more")),
        ({"clip_norm": 0.0}, ("clip_norm:", "found 0.0", "expected more than 0")),
        ({"mask_rate": 0.0}, ("mask_rate:", "found 0.0", "expected more than 0, at most 1")),
        ({"dropout": 1.0}, ("dropout:", "found 1.0", "expected -1, or 0 <= dropout < 1")),
        (
            {"tpu": "node-1"},
            ("data:", "found out/sample", "expected a folder in a bucket", "DATA=gs://BUCKET/records", "TPU node-1"),
        ),
        (
            {"tpu": "grpc://10.0.0.2:8470", "data": "gs://bucket/records"},
            (
                "run_dir:",
                "found out/sample-run",
                "expected a folder in a bucket",
                "RUN=gs://BUCKET/run",
                "TPU grpc://10.0.0.2:8470",
            ),
        ),
        (
            {"zone": "us-central1-b"},
            ("zone:", "found us-central1-b", "expected none unless tpu", "TPU="),
        ),
        (
            {"tpu": "local", "project": "mine"},
            ("project:", "found mine", "expected none unless tpu", "TPU="),
        ),
        ({"tpu": "local", "devices": 2}, ("devices:", "found 2", "expected none beside tpu")),
        ({"probes": ("", "a [MASK]")}, ("probes:", "found an empty one", "expected none beside others")),
        ({"seed": -1}, ("seed:", "found -1", "expected 0 to 2**63 - 1")),
    ],
)
def test_options_out_of_range(options, parts):
    with pytest.raises(RemaskError) as refused:
        TrainOptions(**options)
    must_name(str(refused.value), *parts)


def test_probes_can_be_switched_off():
    assert parse_options(TrainOptions, ["--probes", ""], prog="train").probes == NO_PROBES
    assert parse_options(TrainOptions, [], prog="train").probes == ()


def test_other_commands_check_theirs():
    with pytest.raises(RemaskError, match=r"^top_k: found 0, expected at least 1$"):
        FillMaskOptions(text="[MASK]", top_k=0)
    with pytest.raises(RemaskError) as refused:
        FillMaskOptions()
    must_name(str(refused.value), "text:", "nothing to fill", "TEXT='The film was [MASK].'", "- for standard input")
    with pytest.raises(RemaskError, match=r"^seed: found -1, expected 0 to "):
        ShowOptions(seed=-1)
    with pytest.raises(RemaskError, match=r"^global_batch_size: found 0, expected at least 1$"):
        EvaluateOptions(global_batch_size=0)
    with pytest.raises(RemaskError, match=r"^global_batch_size: found 9999999, expected at most "):
        EvaluateOptions(global_batch_size=9_999_999)
    with pytest.raises(RemaskError, match=r"^data: found out, expected a folder in a bucket, as in DATA="):
        EvaluateOptions(tpu="node-1", data="out")
    assert EvaluateOptions(tpu="node-1", zone="us-central1-b").data == ""  # the run's own, which is looked at later
    assert ExportOptions().checkpoint == "best"
