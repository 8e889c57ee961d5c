import dataclasses
import json

import pytest

from records.errors import RemaskError
from tests.said import must_name
from trainer.config import CONTINUABLE, ModelConfig, TrainOptions
from trainer.run import checkpoint, runs

CONFIG = ModelConfig(31, 16, 1, 2, 32, 24)


def begun(tmp_path, **options):
    asked = TrainOptions(run_dir=str(tmp_path), **options)
    return asked, runs.begin(asked, manifest_digest="a" * 64, config=CONFIG, global_batch_size=64)


def test_run_is_read_as_it_was_written(tmp_path):
    options, run = begun(tmp_path)
    assert runs.load(str(tmp_path)) == run
    assert (run.options, run.model) == (options, CONFIG)
    assert runs.load(str(tmp_path / "elsewhere")) is None


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda run: "{", "line 1"),
        (lambda run: [], "expected a JSON object"),
        (lambda run: {**run, "global_batch_size": 0.5}, "global_batch_size: found 0.5, expected "),
        (lambda run: {**run, "manifest": None}, "manifest: found null, expected "),
        (lambda run: {**run, "model": {**run["model"], "hidden_size": "16"}}, "model.hidden_size: found "),
        (lambda run: {**run, "options": {**run["options"], "train_steps": 0}}, "train_steps: found 0, expected "),
        (lambda run: {**run, "options": {**run["options"], "unknown": 1}}, "options.unknown: "),
        (lambda run: {key: run[key] for key in run if key != "model"}, "model: found nothing"),
    ],
)
def test_damaged_run_json(tmp_path, damage, found):
    begun(tmp_path)
    damaged = damage(json.loads((tmp_path / "run.json").read_text()))
    (tmp_path / "run.json").write_text(damaged if isinstance(damaged, str) else json.dumps(damaged))
    with pytest.raises(RemaskError) as refused:
        runs.load(str(tmp_path))
    must_name(str(refused.value), f"{tmp_path}/run.json:", found, f"remove {tmp_path} to start the run again")


def test_checkpoints_without_run_json_are_not_written_over(tmp_path):
    _, run = begun(tmp_path)
    (tmp_path / "run.json").unlink()
    checkpoint.save(f"{tmp_path}/checkpoints", checkpoint.Checkpoint(5, run, ()), {})
    with pytest.raises(RemaskError) as refused:
        runs.resume(TrainOptions(run_dir=str(tmp_path)), manifest_digest="a" * 64, say=print)
    must_name(
        str(refused.value),
        f"{tmp_path}:",
        "checkpoints (1)",
        "no run.json",
        "copy that file back",
        f"remove {tmp_path}/checkpoints to start the run again",
    )


@pytest.mark.parametrize("left", ["whole", "damaged", "half a checkpoint"])
def test_a_run_without_a_checkpoint_is_begun_anew_whatever_it_was(tmp_path, left):
    options, _ = begun(tmp_path, global_batch_size=512)
    if left == "damaged":
        (tmp_path / "run.json").write_text("{")
    if left == "half a checkpoint":
        (tmp_path / "checkpoints" / "step-00000005").mkdir(parents=True)
        (tmp_path / "checkpoints" / "step-00000005" / "state.npz").write_bytes(b"half")
    smaller = dataclasses.replace(options, global_batch_size=64, seed=7)
    assert runs.resume(smaller, manifest_digest="b" * 64, say=pytest.fail) is None
    run = runs.begin(smaller, manifest_digest="b" * 64, config=CONFIG, global_batch_size=64)
    assert runs.load(str(tmp_path)) == run
    assert run.options == smaller


def test_a_model_that_was_exported_is_not_lost_with_the_checkpoints(tmp_path):
    options, _ = begun(tmp_path)
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "README.md").write_text("the card")
    with pytest.raises(RemaskError, match=r"found an exported model and no checkpoints.*give another RUN"):
        runs.resume(options, manifest_digest="a" * 64, say=pytest.fail)


def test_the_checkpoint_says_what_its_weights_are_whatever_has_become_of_run_json(tmp_path):
    options, run = begun(tmp_path)
    checkpoint.save(f"{tmp_path}/checkpoints", checkpoint.Checkpoint(5, run, ()), {})
    other = dataclasses.replace(options, seed=5)
    runs.begin(other, manifest_digest="a" * 64, config=CONFIG, global_batch_size=64)  # as if a digit had changed
    with pytest.raises(RemaskError, match=r"seed: run has 0, asked for 5"):
        runs.resume(other, manifest_digest="a" * 64, say=pytest.fail)


def test_every_option_is_either_continuable_or_refused(tmp_path):
    options, run = begun(tmp_path)
    for field in dataclasses.fields(TrainOptions):
        other = dataclasses.replace(options, run_dir=options.run_dir)  # a copy, changed in one place past its checks
        object.__setattr__(other, field.name, "other")
        if field.name in CONTINUABLE:
            runs.check_continues(str(tmp_path), run, options=other, manifest_digest="a" * 64)
        else:
            with pytest.raises(RemaskError, match=f"\n  {field.name}: run has .*, asked for other\n"):
                runs.check_continues(str(tmp_path), run, options=other, manifest_digest="a" * 64)


def test_other_data_is_refused(tmp_path):
    options, run = begun(tmp_path)
    with pytest.raises(RemaskError) as refused:
        runs.check_continues(str(tmp_path), run, options=options, manifest_digest="b" * 64)
    must_name(
        str(refused.value),
        f"{tmp_path}:",
        "holds a run",
        "data: run has records with digest aaaaaaaaaaaa, asked for bbbbbbbbbbbb",
        "the run's own options",
        "another RUN",
    )


def test_other_global_batch_is_refused(tmp_path):
    options, run = begun(tmp_path, per_replica_batch_size=32)
    asked = {"manifest_digest": "a" * 64, "config": CONFIG, "global_batch_size": 128}
    with pytest.raises(RemaskError) as refused:
        runs.begin(options, **asked, continued=checkpoint.Checkpoint(5, run, ()))
    must_name(
        str(refused.value),
        f"{tmp_path}:",
        "a global batch of 64 sequences",
        "128",
        "Continue it on as many replicas as it had",
    )
    assert runs.begin(options, **asked).global_batch_size == 128
