import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from records.errors import RemaskError
from records.tokenizer import loading
from records.tokenizer.artifact import TokenizerArtifact
from tests.said import must_name
from tests.trainer import made
from trainer.config import ModelConfig
from trainer.models import bridge, pretrained
from trainer.models.model import BertMaskedLM

CONFIG = ModelConfig(31, 16, 1, 2, 32, 24, cls_token_id=2)


@pytest.fixture
def folder(tmp_path, toy_tokenizer):
    bridge.write_checkpoint(BertMaskedLM(CONFIG, seed=1), str(tmp_path))
    toy_tokenizer.save(str(tmp_path))
    return tmp_path


def other_tokenizer(toy_tokenizer):
    changed = toy_tokenizer.tokenizer_json.replace(b'"good": 10', b'"swap": 10')
    assert changed != toy_tokenizer.tokenizer_json
    return TokenizerArtifact("other", changed, toy_tokenizer.tokenizer_config_json)


def test_folder(folder, toy_tokenizer):
    assert pretrained.find(str(folder), data=toy_tokenizer) == pretrained.Start(
        str(folder), CONFIG, str(folder), toy_tokenizer
    )
    assert pretrained.find(str(folder)).tokenizer.vocabulary == toy_tokenizer.vocabulary


def test_dropout_replaces_what_the_config_says(folder, toy_tokenizer):
    config = pretrained.find(str(folder), data=toy_tokenizer, dropout=0.0).config
    assert config == replace(CONFIG, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def test_shapes_that_are_known_by_name(toy_tokenizer):
    start = pretrained.find("tiny", data=toy_tokenizer)
    assert start.weights == ""
    assert (start.config.hidden_size, start.config.vocab_size, start.config.cls_token_id) == (128, 31, 2)
    assert start.config.max_position_embeddings == 512
    with pytest.raises(RemaskError) as refused:
        pretrained.find("tiny")
    must_name(
        str(refused.value), "model:", "tiny has random weights", "give the folder or the hub name of a trained model"
    )


def test_config_without_weights_trains_only_when_said_so(folder, toy_tokenizer):
    (folder / "model.safetensors").unlink()
    with pytest.raises(RemaskError) as refused:
        pretrained.find(str(folder), data=toy_tokenizer)
    must_name(
        str(refused.value),
        f"{folder}:",
        "no model.safetensors",
        f"MODEL=scratch:{folder}",
        "pytorch_model.bin",
        "AutoModelForMaskedLM.from_pretrained(...).save_pretrained(...)",
    )
    start = pretrained.find(f"scratch:{folder}", data=toy_tokenizer)
    assert (start.weights, start.config) == ("", CONFIG)


def test_another_tokenizer_is_refused(folder, toy_tokenizer):
    with pytest.raises(RemaskError) as refused:
        pretrained.find(str(folder), data=other_tokenizer(toy_tokenizer))
    must_name(
        str(refused.value),
        f"model {folder}:",
        "tokenizer",
        "(other)",
        "token 'good' is id 10 in the model",
        "no id in the records",
        f"TOKENIZER={folder}",
        "random weights",
        "tiny, small, base",
    )


def test_vocabulary_that_is_too_small(folder, toy_tokenizer):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 30}))
    with pytest.raises(RemaskError) as refused:
        pretrained.find(str(folder), data=toy_tokenizer)
    must_name(
        str(refused.value),
        f"model {folder}:",
        "vocab_size is 30",
        "tokenizer toy has ids up to 30",
        "make the records with this model's tokenizer",
        "random weights",
        "tiny, small, base",
    )


def test_folder_of_something_else(tmp_path, toy_tokenizer):
    with pytest.raises(RemaskError) as refused:
        pretrained.find(str(tmp_path), data=toy_tokenizer)
    must_name(str(refused.value), f"{tmp_path}:", "no config.json", "not the folder of a HuggingFace model")
    (tmp_path / "config.json").write_text("[1,")
    with pytest.raises(RemaskError) as refused:
        pretrained.find(str(tmp_path), data=toy_tokenizer)
    assert str(refused.value).startswith(f"{tmp_path}/config.json: line 1, column 4: found nothing, expected JSON")


def test_a_file_in_the_place_of_its_folder(folder, toy_tokenizer):
    with pytest.raises(RemaskError) as refused:
        pretrained.find(f"{folder}/config.json", data=toy_tokenizer)
    assert str(refused.value).startswith(f"model {folder}/config.json: found a file, expected the folder ")


def test_name_that_is_not_to_be_had(toy_tokenizer, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(RemaskError) as refused:
        pretrained.find("no-such/model", data=toy_tokenizer)
    must_name(
        str(refused.value),
        "model no-such/model:",
        "no folder",
        "not fetched before",
        "HF_HUB_OFFLINE=1",
        "a folder with config.json and model.safetensors",
        "a hub name such as bert-base-uncased",
        "tiny, small, base",
    )


@pytest.fixture
def snapshot(tmp_path, monkeypatch, folder):
    """Return the folder in which the hub's client keeps the model `toy/bert`, of which `folder` holds a copy."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    kept = tmp_path / "hub" / "models--toy--bert"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("c" * 40)
    return shutil.copytree(folder, kept / "snapshots" / ("c" * 40), ignore=shutil.ignore_patterns("hub"))


def refused(name, toy_tokenizer) -> str:
    with pytest.raises(RemaskError) as caught:
        pretrained.find(name, data=toy_tokenizer)
    return str(caught.value)


def test_what_was_fetched_before_does_without_a_network(snapshot, toy_tokenizer):
    assert pretrained.find("toy/bert", data=toy_tokenizer).weights == str(snapshot)
    (snapshot / "model.safetensors").unlink()
    start = pretrained.find("scratch:toy/bert", data=toy_tokenizer)  # of which only the shape is wanted
    assert (start.weights, start.config) == ("", CONFIG)


def test_a_tokenizer_alone_that_was_fetched_before_is_no_model(snapshot, toy_tokenizer):
    for file in ("config.json", "model.safetensors"):
        (snapshot / file).unlink()
    said = refused("toy/bert", toy_tokenizer)
    assert said.startswith(
        f"model toy/bert: HF_HUB_OFFLINE=1 forbids to ask the HuggingFace hub, and what was fetched before, in "
        f"{snapshot}, is tokenizer.json, tokenizer_config.json, without config.json and model.safetensors or "
        f"model.safetensors.index.json. With a network "
    )
    assert "hf download toy/bert --include config.json " in said
    assert loading.load("toy/bert").vocabulary == toy_tokenizer.vocabulary


@pytest.mark.parametrize("fetched", [True, False])
def test_shards_of_weights_that_are_not_there_are_named(snapshot, toy_tokenizer, fetched):
    (snapshot / "model.safetensors").rename(snapshot / "one.safetensors")
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors", "c": "three.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    said = refused("toy/bert" if fetched else str(snapshot), toy_tokenizer)
    assert said.startswith(
        f"{snapshot}: without three.safetensors, two.safetensors, which model.safetensors.index.json"
    )
    how = "hf download toy/bert --include 'model*.safetensors*'" if fetched else "copy them again"
    assert how in said


def test_fill_mask_and_evaluate_need_the_models_own_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(RemaskError) as refused:
        pretrained.find(str(folder))
    must_name(
        str(refused.value), f"model {folder}:", "neither tokenizer.json nor vocab.txt", "copy the tokenizer there"
    )


def test_encoder_alone_starts_with_a_fresh_head_and_says_so(folder, toy_tokenizer):
    from safetensors.numpy import load_file, save_file

    weights = folder / "model.safetensors"
    tensors = {name.removeprefix("bert."): value for name, value in load_file(weights).items() if "cls." not in name}
    save_file({**tensors, "something.else": tensors["embeddings.LayerNorm.weight"]}, weights)
    said = []
    pretrained.read_weights(
        BertMaskedLM(CONFIG, seed=2), pretrained.find(str(folder), data=toy_tokenizer), say=said.append
    )
    read, fresh, unused = said
    assert read == f"model {folder}: weights read"
    must_name(
        fresh,
        "WARNING:",
        "not in the checkpoint",
        "random weights",
        "cls.predictions.bias, cls.predictions.transform.LayerNorm.bias, cls.predictions.transform.LayerNorm.weight, "
        "cls.predictions.transform.dense.bias, cls.predictions.transform.dense.weight",
    )
    must_name(unused, "in the checkpoint", "not used", "something.else")


def test_heads_that_do_not_fit_are_said_loudly(folder, toy_tokenizer):
    def eight_heads(tensors):
        for name, tensor in tensors.items():
            if ".attention.self." in name and name.endswith(".weight"):
                tensor[:] = np.repeat(np.exp(np.arange(8)), 2)[:, None] * (1 + 0.1 * np.tanh(tensor))

    changed = made.changed(folder, folder / "changed", eight_heads)
    said = []
    pretrained.read_weights(BertMaskedLM(CONFIG, seed=2), pretrained.find(changed, data=toy_tokenizer), say=said.append)
    assert said[1].startswith("  WARNING: config.json says num_attention_heads 2, but the weights look ")
    assert "8; " in said[1]
