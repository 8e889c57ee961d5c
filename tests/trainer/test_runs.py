import dataclasses

import pytest

from records.errors import RemaskError
from trainer import checkpoint, runs
from trainer.config import CONTINUABLE, ModelConfig, TrainOptions

CONFIG = ModelConfig(31, 16, 1, 2, 32, 24)


def begun(tmp_path, **options):
    asked = TrainOptions(run_dir=str(tmp_path), **options)
    return asked, runs.begin(asked, manifest_digest="a" * 64, config=CONFIG, global_batch_size=64)


def test_run_is_read_as_it_was_written(tmp_path):
    options, run = begun(tmp_path)
    assert runs.load(str(tmp_path)) == run
    assert run["options"]["probes"] == list(options.probes)
    assert ModelConfig(**run["model"]) == CONFIG
    assert runs.load(str(tmp_path / "elsewhere")) is None


def test_damaged_run_json(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(RemaskError) as refused:
        runs.load(str(tmp_path))
    assert str(refused.value) == f"{tmp_path}/run.json: damaged; remove {tmp_path} to start the run again"


def test_checkpoints_without_run_json_are_not_written_over(tmp_path):
    run = {"options": {}, "manifest": "", "model": {}, "global_batch_size": 64}
    checkpoint.save(f"{tmp_path}/checkpoints", checkpoint.Checkpoint(5, run, ()), {})
    with pytest.raises(RemaskError) as refused:
        runs.resume(TrainOptions(run_dir=str(tmp_path)), manifest_digest="a" * 64, say=print)
    assert str(refused.value) == (
        f"{tmp_path}: found checkpoints (1) and no run.json; copy that file back, which says what they belong to, or "
        f"remove {tmp_path}/checkpoints to start the run again"
    )


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
    assert str(refused.value) == (
        f"{tmp_path}: holds a run that these options contradict:\n"
        f"  data: run has records with digest aaaaaaaaaaaa, asked for bbbbbbbbbbbb\n"
        f"Give the run's own options to continue it, or another RUN to begin a new one"
    )


def test_other_global_batch_is_refused(tmp_path):
    options, _ = begun(tmp_path, per_replica_batch_size=32)
    with pytest.raises(RemaskError) as refused:
        runs.begin(options, manifest_digest="a" * 64, config=CONFIG, global_batch_size=128)
    assert str(refused.value) == (
        f"{tmp_path}: holds a run with a global batch of 64 sequences; with the replicas that there are now it would "
        f"be 128. Continue it on as many replicas as it had"
    )
