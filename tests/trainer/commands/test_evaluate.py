import json
import shutil

import pytest
import tensorflow as tf

from records.errors import RemaskError
from tests.records import made as records
from tests.said import must_name
from tests.trainer import made
from trainer.commands import evaluate
from trainer.commands.evaluate import main
from trainer.config import DTYPES, EvaluateOptions


def test_command_prints_one_line(tiny_data_set, trained_run, capsys):
    main(EvaluateOptions(data=tiny_data_set, run_dir=trained_run, global_batch_size=16))
    output = capsys.readouterr().out
    said = output.splitlines()
    name = f"{trained_run}/export"
    assert said[0] == f"model {name}: weights read"
    assert said[1].startswith(f"{name} on 37 held-out sequences of {tiny_data_set}, 69 masked tokens: loss ")
    main(EvaluateOptions(run_dir=trained_run, global_batch_size=16))  # the run knows its data
    assert capsys.readouterr().out == output


def test_weights_that_are_no_numbers_are_refused(tiny_data_set, trained_run, tmp_path, capsys):
    folder = made.changed(f"{trained_run}/export", tmp_path / "model", made.one_nan)
    with pytest.raises(RemaskError) as refused:
        main(EvaluateOptions(data=tiny_data_set, model=folder, global_batch_size=16))
    assert str(refused.value).startswith(f"{folder}/model.safetensors: bert.embeddings.LayerNorm.bias has 1 of 16 ")
    assert "accuracy" not in capsys.readouterr().out


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_loss_that_is_no_number_is_refused(tiny_data_set, trained_run, tmp_path, capsys, dtype):
    folder = made.changed(f"{trained_run}/export", tmp_path / "model", made.overflowing)
    with pytest.raises(RemaskError) as refused:
        main(EvaluateOptions(data=tiny_data_set, model=folder, global_batch_size=16, dtype=dtype))
    assert str(refused.value).startswith(f"{folder}: its loss on {tiny_data_set} is nan: ")
    assert f" {dtype.removeprefix('mixed_')} " in str(refused.value)
    assert "--dtype float32" in str(refused.value)
    assert "accuracy" not in capsys.readouterr().out


def test_where_nothing_is_held_out_there_is_nothing_to_evaluate_on(trained_run, tmp_path):
    folder = records.data_set(tmp_path, train=(7,), validation=())
    with pytest.raises(RemaskError) as refused:
        main(EvaluateOptions(data=folder, run_dir=trained_run))
    assert str(refused.value).startswith(f"{folder}: nothing is held out: ")


def test_what_does_not_fit_is_refused_before_an_accelerator_is_looked_for(tiny_data_set, trained_run, tmp_path):
    folder = shutil.copytree(f"{trained_run}/export", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 8}), encoding="utf-8")
    with pytest.raises(RemaskError, match=r": max_seq_length is 24, model .* has 8 positions"):
        main(EvaluateOptions(data=tiny_data_set, model=str(folder), devices=99))
    with pytest.raises(RemaskError, match=r"^global_batch_size: found 3, expected a multiple of the 2 replicas"):
        main(EvaluateOptions(data=tiny_data_set, run_dir=trained_run, devices=2, global_batch_size=3))


def test_a_model_without_a_run_is_measured_on_the_sample(trained_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RemaskError, match=r"^out/sample: no such folder"):
        main(EvaluateOptions(model=f"{trained_run}/export"))


def test_a_run_whose_data_no_other_machine_can_read_is_refused(tiny_data_set, trained_run):
    with pytest.raises(RemaskError) as refused:
        main(EvaluateOptions(run_dir=trained_run, tpu="node-1"))
    must_name(
        str(refused.value),
        "data:",
        f"found {tiny_data_set}",
        "expected a folder in a bucket",
        "DATA=gs://BUCKET/records",
        "TPU node-1",
    )


def test_a_host_that_is_lost_meanwhile_is_said(trained_run, monkeypatch):
    """What it is to lose a host, `test_remote` shows; here it is only made up."""

    def lost(*arguments, **options):
        raise tf.errors.UnavailableError(None, None, "Connection reset by peer. More")

    monkeypatch.setattr(evaluate, "require_within_reach", lambda data, tpu: None)
    monkeypatch.setattr(evaluate.accelerator, "choose_strategy", lambda **asked: tf.distribute.get_strategy())
    monkeypatch.setattr(evaluate.Evaluator, "__call__", lost)
    with pytest.raises(RemaskError) as refused:
        main(EvaluateOptions(run_dir=trained_run, global_batch_size=16, tpu="node-1"))
    must_name(
        str(refused.value), "a host of TPU node-1 is gone", "(Connection reset by peer)", "Run the same command again"
    )


@pytest.mark.parametrize("model", ["tiny", "scratch"])
def test_random_weights_are_not_measured(tiny_data_set, tiny_shape, model):
    name = tiny_shape if model == "scratch" else model
    with pytest.raises(RemaskError, match="has random weights; give the folder or the hub name of a trained model"):
        main(EvaluateOptions(data=tiny_data_set, model=name))


def test_random_weights_are_not_offered_where_a_model_is_measured(tiny_data_set, tiny_shape):
    with pytest.raises(RemaskError) as refused:
        main(EvaluateOptions(data=tiny_data_set, model=tiny_shape.removeprefix("scratch:")))
    assert "no model.safetensors" in str(refused.value)
    assert "scratch" not in str(refused.value)
    assert "random" not in str(refused.value)
