import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import step_gpu
from benchmarks.config import StepGpuBenchOptions
from records.command_line import parse_options
from records.errors import RemaskError

ROOT = Path(__file__).parent.parent.parent

LEARNS = """
import sys

sys.modules["tensorflow"] = None  # importing it fails from here on

import jax
import numpy as np

from benchmarks import step_gpu
from benchmarks import step_gpu
from benchmarks.config import StepGpuBenchOptions
from benchmarks.step import make_batch
from trainer.config import ModelConfig
from trainer.model import BertMaskedLM

model = BertMaskedLM(ModelConfig(30522, 16, 1, 2, 32, 32), seed=0)
step, state = step_gpu.make_step(model)
weights = [variable.value for variable in model.trainable_variables]
batch, losses = make_batch("full", sequences=4, length=32), []
for number in range(30):
    given = weights
    weights, state, loss = step(weights, state, batch, np.int32(number))
    losses.append(float(loss))
assert all(array.is_deleted() for array in given)  # donated
assert abs(losses[0] - np.log(30522)) < 0.1 and losses[-1] < losses[0] - 0.01, losses
step_gpu.main(StepGpuBenchOptions(model="tiny", length=(16, 32), batch=(2, 4), steps=2))
"""


def alone(program: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_importing_it_imports_neither_a_backend_nor_keras():
    program = "import sys, benchmarks.step_gpu; print({'tensorflow', 'keras', 'jax'} & sys.modules.keys())"
    assert alone(program).stdout == "set()\n"


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_it_learns_without_tensorflow():
    done = alone(LEARNS, KERAS_BACKEND="jax", JAX_PLATFORMS="cpu")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()[-4:]]
    assert [line[:2] for line in lines] == [["16", "2"], ["16", "4"], ["32", "2"], ["32", "4"]]


def test_lengths_and_batches_are_lists():
    options = parse_options(StepGpuBenchOptions, ["--length", "32", "64", "--batch", "4"], prog="step-gpu")
    assert (options.length, options.batch) == ((32, 64), (4,))


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")  # main changes it: let it be changed back
    with pytest.raises(RemaskError, match=r"^step-gpu: .*jax.*; it needs what benchmarks/gpu\.txt names: python3"):
        step_gpu.main(StepGpuBenchOptions())
