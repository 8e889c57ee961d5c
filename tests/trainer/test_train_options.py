"""What each option of a run changes, and what it leaves alone: an option that `train` forgets to pass on shows here."""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from records.format import manifest as manifests
from trainer.config import TrainOptions
from trainer.models import bridge
from trainer.models.model import BertMaskedLM
from trainer.run import checkpoint, runs
from trainer.train import train

FRESH, LOSS, WEIGHTS = "held-out loss before training", "loss of the first step", "weights after the last"
EXAMPLE, MACHINE, PROBES = "masked example", "arithmetic and replicas", "probes"
MEASURED, EVALUATED, KEPT = "lines of metrics", "evaluations", "checkpoints kept"

LEARNT = {LOSS, WEIGHTS}  # another first step makes other weights
STEPS = {MEASURED, EVALUATED, KEPT}

CHANGES = {
    "data": (..., {EXAMPLE, *LEARNT}),
    "model": (..., {FRESH, *LEARNT}),
    "train_steps": (5, {WEIGHTS, *STEPS}),  # the rate falls faster
    "global_batch_size": (10, LEARNT),
    "per_replica_batch_size": (10, LEARNT),
    "eval_every": (2, {EVALUATED, MEASURED, KEPT}),
    "checkpoint_every": (4, {MEASURED, KEPT}),
    "keep_checkpoints": (1, {KEPT}),
    "steps_per_loop": (1, {MEASURED}),
    "learning_rate": (2e-2, {WEIGHTS}),
    "warmup_steps": (3, {WEIGHTS}),
    "weight_decay": (0.5, {WEIGHTS}),
    "clip_norm": (0.01, {WEIGHTS}),
    "mask_rate": (0.5, {EXAMPLE, *LEARNT}),
    "whole_word": (True, {EXAMPLE, *LEARNT}),  # other draws, even where each word is one piece
    "dropout": (0.0, LEARNT),
    "dtype": ("mixed_bfloat16", {FRESH, MACHINE, *LEARNT}),
    "seed": (1, {FRESH, EXAMPLE, *LEARNT}),
    "shuffle_examples": (1, LEARNT),
    "devices": (2, {MACHINE, *LEARNT}),  # each replica drops out for itself
    "probes": (("the [MASK] was good.",), {PROBES}),
}
"""Of each option another value, and all that this changes."""

CHANGES_NOTHING = {
    "run_dir": "names where all of this is found: no two runs here share it",
    "tpu": "needs a TPU: tests/trainer/test_remote.py trains on what stands for one",
    "zone": "says where the TPU is",
    "project": "says whose the TPU is",
}


class Outcome(NamedTuple):
    """What a run leaves behind, or says, by its name above; figures of time are no part of it."""

    parts: dict[str, object]

    def differences(self, other: "Outcome") -> set[str]:
        return {name for name, value in self.parts.items() if other.parts[name] != value}


@pytest.fixture(scope="module")
def plain(tiny_data_set, tiny_shape):
    """Return options of six steps, of which each option that is changed has room to show."""
    return TrainOptions(
        data=tiny_data_set,
        model=tiny_shape,
        train_steps=6,
        global_batch_size=8,
        eval_every=3,
        checkpoint_every=2,
        keep_checkpoints=9,
        steps_per_loop=5,
        learning_rate=1e-2,
        warmup_steps=2,
        shuffle_examples=60,
        probes=("we saw the [MASK] again.",),
    )


@pytest.fixture(scope="module")
def unchanged(plain, tmp_path_factory):
    return outcome(plain, tmp_path_factory.mktemp("unchanged"))


def outcome(options, folder):
    options, losses, said = replace(options, run_dir=str(folder)), [], io.StringIO()
    with contextlib.redirect_stdout(said):
        train(options, on_steps=lambda session, steps: losses.extend(steps.loss))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found, state = checkpoint.read(checkpoint.paths(runs.checkpoints(str(folder)))[-1])
    return Outcome(
        {
            FRESH: round(found.evaluations[0].loss, 5),  # as sums over other batches have it, too
            LOSS: losses[0],
            WEIGHTS: hashlib.sha256(b"".join(value.tobytes() for value in state.values())).hexdigest(),
            EXAMPLE: re.findall("^example .*", said.getvalue(), re.MULTILINE),
            MACHINE: re.findall(r"parameters, (.*)", said.getvalue()),
            PROBES: set(re.findall(r"^  (.*) -> ", said.getvalue(), re.MULTILINE)),
            MEASURED: [line["step"] for line in lines if "loss" in line],
            EVALUATED: [each.step for each in found.evaluations],
            KEPT: sorted(os.listdir(runs.checkpoints(str(folder)))),
        }
    )


@pytest.fixture
def other(tmp_path, tiny_data_set, tiny_shape):
    """Return values of the options whose values are folders."""
    data = tmp_path / "data"
    data.mkdir()
    whole = manifests.load(tiny_data_set)
    last = whole.data.splits["train"][-1]
    alone = replace(last, file=manifests.shard_file("train", 0, 1))
    for path in Path(tiny_data_set).iterdir():
        if not path.name.startswith(("train-", manifests.MANIFEST_JSON)):
            (data / path.name).symlink_to(path)
    (data / alone.file).symlink_to(Path(tiny_data_set, last.file))
    documents = last.examples + whole.examples("validation")
    sources = (replace(whole.data.sources[0], rows=documents, documents=documents),)
    splits = {**whole.data.splits, "train": (alone,)}
    made = replace(whole, data=replace(whole.data, splits=splits, sources=sources))
    (data / manifests.MANIFEST_JSON).write_text(made.to_json())
    shape = tmp_path / "shape"
    shape.mkdir()
    config = json.loads(Path(tiny_shape.removeprefix("scratch:"), "config.json").read_text())
    (shape / "config.json").write_text(json.dumps({**config, "intermediate_size": 24}))
    return {"data": str(data), "model": f"scratch:{shape}"}


def test_of_each_option_it_is_known_what_it_changes():
    assert {*CHANGES, *CHANGES_NOTHING} == {field.name for field in dataclasses.fields(TrainOptions)}


@pytest.mark.parametrize("name", CHANGES)
def test_an_option_changes_what_it_should_and_nothing_else(name, plain, unchanged, other, tmp_path):
    value, changes = CHANGES[name]
    alone = {"global_batch_size": 0} if name == "per_replica_batch_size" else {}
    changed = replace(plain, **alone, **{name: other.get(name, value)})
    assert outcome(changed, tmp_path / "run").differences(unchanged) == changes


def test_a_gradient_is_clipped_to_the_norm_that_was_asked_for(plain, tmp_path):
    reported = []
    state = trained(
        replace(plain, train_steps=1, warmup_steps=0, clip_norm=0.01),
        tmp_path,
        on_steps=lambda session, steps: reported.extend(steps.gradient_norm),
    )
    assert reported[0] > 0.01  # or there was nothing to clip
    # After one step the first moment is a tenth of the gradient that the optimizer was given.
    moments = [value for name, value in state.items() if name.endswith("_momentum")]
    assert 10 * np.sqrt(sum(np.sum(np.square(each, dtype=np.float64)) for each in moments)) == pytest.approx(
        0.01, rel=1e-5
    )


def test_weight_decay_shrinks_matrices_by_what_was_asked_for_and_spares_vectors(plain, tmp_path):
    options = replace(plain, train_steps=1, warmup_steps=0, learning_rate=0.01)
    without = trained(replace(options, weight_decay=0.0), tmp_path / "without")
    decayed = trained(replace(options, weight_decay=50.0), tmp_path / "decayed")
    run = runs.existing(str(tmp_path / "without"))
    fresh = checkpoint.named(BertMaskedLM(run.model, seed=options.seed))
    assert {len(variable.shape) for variable in fresh.values()} == {1, 2}
    for name, variable in fresh.items():
        lost = 0.01 * 50.0 * variable.numpy() if len(variable.shape) == 2 else 0.0
        np.testing.assert_allclose(decayed[name], without[name] - lost, rtol=0, atol=1e-6, err_msg=name)


def test_what_is_exported_is_the_best_where_the_last_is_worse(plain, tmp_path):
    options = replace(plain, run_dir=str(tmp_path), train_steps=3, learning_rate=0.3, warmup_steps=0, eval_every=1)
    last = trained(options, tmp_path)
    found, _ = checkpoint.latest(runs.checkpoints(str(tmp_path)), say=print)
    best = min(found.evaluations[1:], key=lambda each: each.loss)
    assert best.step < found.step == options.train_steps  # or this shows nothing
    _, wanted = checkpoint.read(checkpoint.path_of(runs.checkpoints(str(tmp_path)), best.step))
    model = BertMaskedLM(found.run.model, seed=1)
    bridge.read_checkpoint(model, runs.export(str(tmp_path)))
    for name, variable in checkpoint.named(model).items():
        np.testing.assert_array_equal(variable.numpy(), wanted[name], err_msg=name)
    assert any((last[name] != wanted[name]).any() for name in checkpoint.named(model))


def trained(options, folder, on_steps=lambda session, steps: None):
    """Return the state after the last step of a run."""
    train(replace(options, run_dir=str(folder)), on_steps=on_steps)
    return checkpoint.read(checkpoint.path_of(runs.checkpoints(str(folder)), options.train_steps))[1]
