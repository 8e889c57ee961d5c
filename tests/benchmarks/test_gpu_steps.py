"""What is measured on a GPU, on a CPU: the steps of the contenders, and the whole benchmark with a tiny model.

It wants JAX, PyTorch and transformers, which `make test-slow` adds.
"""

import importlib.util
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from benchmarks import gpu, gpu_batches, gpu_result, report
from benchmarks.config import ReportOptions
from benchmarks.step import CLIP_NORM, LEARNING_RATE, WEIGHT_DECAY
from benchmarks.turns import Entrant, Missing, in_turn
from tests import processes
from trainer.config import ModelConfig

ROOT = Path(__file__).parent.parent.parent
MISSING = [name for name in ("jax", "torch", "transformers") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}; run 'make test-slow'"),
]
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
    "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "-1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
}
SHAPE = ModelConfig(
    vocab_size=31,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=32,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    initializer_range=0.3,  # so that the gradient is long enough to be clipped
    cls_token_id=2,
)
STEPS = 3
LONG = 1200.0
"""Seconds; `torch.compile` takes a minute of CPU time for each of four contenders."""


BY_JAX = """
import json, os, sys

sys.modules["tensorflow"] = None  # importing it fails from here on
os.environ["KERAS_BACKEND"] = "jax"
import numpy as np

from benchmarks import gpu_jax
from trainer.config import ModelConfig
from trainer.models.model import BertMaskedLM

folder, steps = sys.argv[1], int(sys.argv[2])
model = BertMaskedLM(ModelConfig(**json.load(open(f"{folder}/shape.json"))), seed=0)
with np.load(f"{folder}/weights.npz") as given:
    for number, variable in enumerate(model.trainable_variables):
        variable.assign(given[f"arr_{number}"])
with np.load(f"{folder}/batch.npz") as given:
    batch = dict(given)
step, state = gpu_jax.make_step(model)
weights, losses = [variable.value for variable in model.trainable_variables], []
for number in range(steps):
    before = weights
    weights, state, loss = step(weights, state, batch, np.int32(number))
    losses.append(float(loss))
assert all(array.is_deleted() for array in before)  # donated
np.savez(f"{folder}/weights-after.npz", *map(np.asarray, weights))
np.save(f"{folder}/losses.npy", losses)
"""


@pytest.fixture
def batch():
    """Return four rows of toy words: [CLS] is 2, [SEP] 3, [MASK] 4, words are 5 to 24."""
    draw = np.random.default_rng(0)
    ids = np.zeros((4, 16), np.int32)
    positions, true, weights = (np.zeros((4, 3), kind) for kind in (np.int32, np.int32, np.float32))
    for row, words in enumerate((14, 13, 9, 5)):
        ids[row, : words + 2] = [2, *draw.integers(5, 25, words), 3]
        used = max(1, round(0.15 * words))
        chosen = np.sort(draw.permutation(np.arange(1, words + 1))[:used])
        positions[row, :used], true[row, :used], weights[row, :used] = chosen, ids[row, chosen], 1
        ids[row, chosen] = 4
    return {"input_ids": ids, "masked_lm_positions": positions, "masked_lm_ids": true, "masked_lm_weights": weights}


@pytest.fixture
def batches(tmp_path, batch):
    """Return a file of one batch, under the names of both kinds of rows and of two lengths."""
    arrays = {}
    for length in (16, 32):
        for rows in gpu_batches.LONG_TEXT:
            for name, array in batch.items():
                wider = np.pad(array, ((0, 0), (0, length - 16))) if name == "input_ids" else array
                arrays[f"{length} {rows} {name}"] = wider
    about = {"text": "toy.csv", "vocab_size": SHAPE.vocab_size, "cls_token_id": SHAPE.cls_token_id, "synthetic": False}
    np.savez(tmp_path / "batches.npz", about=np.array(json.dumps(about)), **arrays)
    return str(tmp_path / "batches.npz")


def test_a_step_by_way_of_jax_is_the_trainers(tmp_path, batch):
    import tensorflow as tf

    from trainer.engines.optimizer import WarmupLinearDecay, make_optimizer
    from trainer.engines.step import TrainLoop
    from trainer.models.model import BertMaskedLM

    model = BertMaskedLM(SHAPE, seed=1)
    initial = [variable.numpy().copy() for variable in model.trainable_variables]
    np.savez(tmp_path / "weights.npz", *initial)
    np.savez(tmp_path / "batch.npz", **batch)
    (tmp_path / "shape.json").write_text(json.dumps(asdict(SHAPE)))

    constant = WarmupLinearDecay(LEARNING_RATE, warmup_steps=0, train_steps=10**9)
    optimizer = make_optimizer(model.trainable_variables, constant, weight_decay=WEIGHT_DECAY)
    loop = TrainLoop(tf.distribute.get_strategy(), model, optimizer, seed=0, clip_norm=CLIP_NORM)
    ours = loop(iter(tf.data.Dataset.from_tensors(batch).repeat()), 0, STEPS)
    assert ours.gradient_norm[0] > 2 * CLIP_NORM  # it is clipped

    command = [sys.executable, "-c", BY_JAX, str(tmp_path), str(STEPS)]
    processes.run(command, cwd=ROOT, env={**os.environ, **ONE_THREAD}, check=True, limit=LONG)
    np.testing.assert_allclose(np.load(tmp_path / "losses.npy"), ours.loss, rtol=1e-5)
    with np.load(tmp_path / "weights-after.npz") as found:
        for number, (variable, before) in enumerate(zip(model.trainable_variables, initial, strict=True)):
            moved = np.abs(variable.numpy() - before).max()
            assert moved > LEARNING_RATE, variable.path
            np.testing.assert_allclose(
                found[f"arr_{number}"], variable.numpy(), rtol=0, atol=0.02 * LEARNING_RATE, err_msg=variable.path
            )


PREPARES = """
import json, sys
from benchmarks import gpu_jax, gpu_torch

common = json.loads(sys.argv[1])
work = [gpu_jax.remask(**common), gpu_torch.transformers(**common, everywhere=True, compiled=True)]
work.append(gpu_torch.ceiling(device="gpu", seconds=1.0, size=8))
import torch
from jax._src import xla_bridge

assert not xla_bridge.backends_are_initialized() and not torch.cuda.is_initialized()
for one in work:
    try:
        next(one())
    except RuntimeError as error:
        print(error)
"""


def test_who_prepares_leaves_the_device_alone_and_a_gpu_that_is_not_there_is_no_cpu(batches):
    common = {"config": asdict(SHAPE), "batches": batches, "length": 16, "rows": ["padded"], "sequences": 4}
    command = [sys.executable, "-c", PREPARES, json.dumps({**common, "device": "gpu", "seconds": 0.1})]
    done = processes.run(
        command, cwd=ROOT, env={**os.environ, **ONE_THREAD}, capture_output=True, text=True, check=False, limit=LONG
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["JAX found no gpu: it has cpu", *["PyTorch found no gpu"] * 2]


def test_the_same_weights_give_the_same_loss_as_transformers(tmp_path, batches):
    from trainer.models.bridge import write_checkpoint
    from trainer.models.model import BertMaskedLM

    write_checkpoint(BertMaskedLM(SHAPE, seed=1), tmp_path)
    common = {
        "config": asdict(SHAPE),
        "batches": batches,
        "length": 16,
        "rows": ("padded",),
        "sequences": 4,
        "device": "cpu",
        "seconds": 0.01,
        "dtype": "float32",
        "weights": str(tmp_path),
    }
    entrants = [Entrant("remask", "benchmarks.gpu_jax:remask", common)] + [
        Entrant(f"everywhere {everywhere}", gpu.TRANSFORMERS, {**common, "everywhere": everywhere, "compiled": False})
        for everywhere in (True, False)
    ]
    losses = {}
    for entrant, found in in_turn(entrants, seconds=LONG, limit=LONG, environment=ONE_THREAD):
        assert not isinstance(found, Missing), found
        losses[entrant.name] = found["first_loss"]
    ours = losses.pop("remask")
    assert losses == {name: pytest.approx(ours, abs=1e-5) for name in ("everywhere True", "everywhere False")}


@pytest.mark.timeout(3 * LONG)
def test_the_whole_benchmark_on_a_cpu(tmp_path, batches):
    readme = tmp_path / "README.md"
    readme.write_text(f"{report.BEGIN}\n{report.END}\n")
    command = [sys.executable, "-m", "benchmarks", "gpu", "--device", "cpu", "--model", "tiny", "--batches", batches]
    command += ["--length", "16", "32", "--tokens", "64", "--figure_seconds", "0.05", "--seconds", str(LONG)]
    command += ["--limit", str(LONG / 2), "--out", str(tmp_path)]
    done = processes.run(
        command,
        cwd=ROOT,
        env={**os.environ, **ONE_THREAD},
        capture_output=True,
        text=True,
        check=False,
        limit=2 * LONG,
    )
    assert done.returncode == 0, done.stderr
    found = gpu_result.read(tmp_path / gpu_result.FILE)
    assert found.absent == (), (tmp_path / gpu.LOG).read_text()
    assert [(one.length, one.contender, one.rows) for one in found.figures] == [
        (length, contender.name, rows)
        for length in (16, 32)
        for contender in gpu.CONTENDERS.values()
        for rows in ("padded", "packed")
    ]
    assert found.device == "cpu"
    assert found.ceiling_flops > 0
    assert set(found.versions) >= {"jax", "keras", "torch", "transformers"}
    assert found.text == "toy.csv"
    for one in found.figures:
        assert len(one.windows) == 5
        assert one.length != 16 or one.windows[0].tokens == one.windows[0].steps * 49
        assert one.peak_bytes > 1e8
        assert one.loss < one.first_loss
    report.main(ReportOptions(results=str(tmp_path), readme=str(readme)))
    assert readme.read_text().count("\n| 16, packed | ") == len(gpu.CONTENDERS)
