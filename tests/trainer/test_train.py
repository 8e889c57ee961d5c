import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file as read_tensors

from records.errors import RemaskError
from records.format import manifest
from records.format.reader import open_data_set
from records.storage import disk, folder_lock
from tests import moments, processes
from tests.cloud import metadata
from tests.said import must_name
from tests.trainer import made
from trainer.config import TrainOptions
from trainer.engines.accelerator import choose_strategy
from trainer.models.mask_filling import fill, table
from trainer.models.model import BertMaskedLM
from trainer.models.pretrained import find, read_weights
from trainer.run import checkpoint, notices, runs
from trainer.train import introduction, train

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def options(tiny_data_set, tiny_shape):
    """Return a run of 24 steps with dropout, over two epochs; evaluations, checkpoints and looks do not coincide."""
    return TrainOptions(
        data=tiny_data_set,
        model=tiny_shape,
        train_steps=24,
        global_batch_size=20,
        eval_every=7,
        checkpoint_every=5,
        steps_per_loop=4,
        learning_rate=1e-2,
        warmup_steps=4,
        shuffle_examples=60,
        probes=("we saw the [MASK] again.",),
    )


@pytest.fixture(scope="module")
def whole(options, tmp_path_factory):
    """Return the options of a run that never stopped, what it printed, and how often its functions were traced."""
    run = replace(options, run_dir=str(tmp_path_factory.mktemp("whole")))
    traces, said = set(), io.StringIO()
    with contextlib.redirect_stdout(said):
        train(run, on_steps=lambda session, steps: traces.add((session.loop.traces, session.evaluate.traces)))
    return run, said.getvalue(), traces


def command(run, program=("-m", "trainer")):
    """Return the command line of a run."""
    arguments = [
        f"--{name}={value}"
        for name, value in vars(run).items()
        if name != "probes" and value != TrainOptions.__dataclass_fields__[name].default
    ]
    return [sys.executable, *program, "train", *arguments, "--probes", *run.probes]


def last_state(run):
    return checkpoint.read(checkpoint.paths(f"{run.run_dir}/checkpoints")[-1])


def assert_same_end(run, other):
    (ours, state), (theirs, expected) = last_state(run), last_state(other)
    assert (ours.step, ours.evaluations) == (theirs.step, theirs.evaluations)
    assert state.keys() == expected.keys()
    assert all(np.array_equal(state[name], expected[name]) for name in expected)


def saved(run):
    """Return the last step that was saved."""
    return max(map(checkpoint.step_of, checkpoint.paths(f"{run.run_dir}/checkpoints")), default=-1)


def lines(run):
    return [json.loads(line) for line in Path(run.run_dir, "metrics.jsonl").read_text().splitlines()]


def test_whole_run_leaves_what_it_should(whole):
    run, _, _ = whole
    folder = Path(run.run_dir)
    found = last_state(run)[0]
    assert [each.step for each in found.evaluations] == [0, 7, 14, 21, 24]
    assert found.evaluations[-1].loss < found.evaluations[0].loss
    best = checkpoint.best(found.evaluations).step
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {
        f"step-{step:08}" for step in sorted({*sorted({5, 10, 15, 20, 24, 7, 14, 21})[-2:], best})
    }
    assert {path.name for path in (folder / "export").iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert list((folder / "tensorboard").glob("events.*"))
    told = json.loads((folder / "run.json").read_text())
    assert told["options"]["train_steps"] == 24
    assert told["options"]["dtype"] == "float32"  # what was computed with, not that none was asked for
    assert told["global_batch_size"] == 20


def test_metrics_are_one_line_for_each_border(whole):
    run, _, _ = whole
    trained = [line for line in lines(run) if "loss" in line]
    assert [line["step"] for line in trained] == [4, 5, 7, 8, 10, 12, 14, 15, 16, 20, 21, 24]
    assert set(trained[0]) == {
        "step",
        "loss",
        "gradient_norm",
        "learning_rate",
        "sequences_per_second",
        "tokens_per_second",
        "input_wait",
    }
    assert trained[0]["learning_rate"] == pytest.approx(1e-2)  # the peak, at the last step of the warm-up
    assert all(0 <= line["input_wait"] <= 1 for line in trained)
    evaluated = [line for line in lines(run) if "eval_loss" in line]
    assert [line["step"] for line in evaluated] == [0, 7, 14, 21, 24]
    assert evaluated[0]["eval_perplexity"] == pytest.approx(np.exp(evaluated[0]["eval_loss"]))


def test_step_and_evaluation_are_each_traced_once_in_two_epochs_with_evaluations_and_checkpoints_between(whole):
    run, _, traces = whole
    assert run.train_steps * run.global_batch_size > 2 * open_data_set(run.data).manifest.examples("train")
    assert {loop for loop, _ in traces} == {1}
    assert {evaluation for _, evaluation in traces} == {1}


def test_stopped_and_continued_ends_as_if_it_never_stopped(whole, options, tmp_path, capsys):
    run = replace(options, run_dir=str(tmp_path), steps_per_loop=1)  # looked at otherwise, which must not matter

    def stop_at(step, number):
        return lambda session, steps: signal.raise_signal(number) if session.step == step else None

    for step, number in ((1, signal.SIGTERM), (7, signal.SIGINT), (10, signal.SIGTERM), (23, signal.SIGTERM)):
        assert train(run, on_steps=stop_at(step, number)) == 128 + number
        assert last_state(run)[0].step == step
        assert (
            f"saved {tmp_path}/checkpoints/step-{step:08}; run the same command again to continue after step {step}"
            in (capsys.readouterr().out)
        )
    assert train(run) == 0
    assert_same_end(run, whole[0])
    assert [line["step"] for line in lines(run) if "loss" in line] == list(range(1, 25))


def test_a_notice_that_this_machine_will_be_stopped_saves_and_the_run_continues_exactly(
    whole, options, tmp_path, capsys, monkeypatch
):
    run = replace(options, run_dir=str(tmp_path))
    monkeypatch.setattr(notices, "SECONDS", 0.01)
    monkeypatch.delenv("NO_GCE_CHECK", raising=False)

    def warn(session, steps):
        server.values["instance/preempted"] = "TRUE"
        # It ends when it has heard.
        processes.wait_for(lambda: not any(thread.name == "notices" for thread in threading.enumerate()))

    with metadata.running({"instance/maintenance-event": "NONE"}) as server:
        monkeypatch.setenv("GCE_METADATA_HOST", server.address)
        assert train(run, on_steps=warn) == 128 + signal.SIGTERM
    assert "Google Cloud gives notice (instance/preempted is TRUE): " in capsys.readouterr().out
    assert 0 < last_state(run)[0].step < run.train_steps
    assert train(run) == 0
    assert_same_end(run, whole[0])


def test_killed_process_continues_exactly(whole, options, tmp_path):
    """SIGKILL, then SIGTERM, in real processes; then to the end."""
    run = replace(options, run_dir=str(tmp_path / "run"), train_steps=200, checkpoint_every=2, eval_every=75)
    reference = replace(run, run_dir=str(tmp_path / "reference"), checkpoint_every=200)
    for number, step, status in ((signal.SIGKILL, 10, -signal.SIGKILL), (signal.SIGTERM, 30, 128 + signal.SIGTERM)):
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        with processes.started(command(run), **output, cwd=ROOT) as process:
            processes.wait_for(lambda step=step: saved(run) >= step, process)
            process.send_signal(number)
            said, _ = processes.ended(process)
        assert process.returncode == status, said
        assert step <= last_state(run)[0].step < 200
    assert train(run) == 0
    assert train(reference) == 0
    assert_same_end(run, reference)


def test_finished_run_says_so(whole, capsys):
    run, _, _ = whole
    assert train(run) == 0
    assert capsys.readouterr().out == (
        f"{run.run_dir}: this run is finished, after 24 steps\n"
        f"model    {run.run_dir}/export\n"
        f'try      make fill-mask RUN={run.run_dir} TEXT="we saw the [MASK] again."\n'
    )


def test_what_a_killed_export_has_left_is_removed_also_where_nothing_else_is_to_be_done(whole, tmp_path, capsys):
    run = replace(whole[0], run_dir=str(tmp_path / "run"))
    shutil.copytree(whole[0].run_dir, run.run_dir)
    left = Path(run.run_dir, "export", ".remask-export.0123abcd.partial")
    left.mkdir()
    (left / "model.safetensors").write_text("half")
    half = Path(run.run_dir, "export", "config.json.0123abcd.partial")
    half.write_text("half")
    assert train(run) == 0
    assert "this run is finished" in capsys.readouterr().out
    assert not left.exists()
    assert not half.exists()


def test_finished_run_whose_export_was_cut_short_exports_again(whole, tmp_path, capsys):
    run, _, _ = whole
    weights = Path(run.run_dir, "export", "model.safetensors")
    expected = weights.read_bytes()
    Path(run.run_dir, "export", "README.md").unlink()
    weights.unlink()
    assert train(run) == 0
    assert weights.read_bytes() == expected
    assert "this run is finished" not in capsys.readouterr().out


def test_a_run_that_ended_before_its_first_checkpoint_is_begun_anew(whole, options, tmp_path):
    """As one that had no memory for its batch; it must not be held to what did not work."""
    larger = replace(options, run_dir=str(tmp_path), global_batch_size=40, seed=3, steps_per_loop=1)

    def crash(session, steps):
        raise RuntimeError("crash")

    with pytest.raises(RuntimeError, match="crash"):
        train(larger, on_steps=crash)
    assert json.loads(Path(tmp_path, "run.json").read_text())["global_batch_size"] == 40
    run = replace(options, run_dir=str(tmp_path))
    assert train(run) == 0
    assert_same_end(run, whole[0])
    assert [line["step"] for line in lines(run)] == [line["step"] for line in lines(whole[0])]


def test_one_command_at_a_time_writes_to_a_run(options, tmp_path):
    run = replace(options, run_dir=str(tmp_path), steps_per_loop=1)
    refused = []

    def again(session, steps):
        if session.step == 3:
            before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
            with pytest.raises(RemaskError) as second:
                train(run)
            refused.append(str(second.value))
            assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        if session.step == 6:  # after the checkpoint of step 5
            folder_lock.take(str(tmp_path), what="run", instead="", say=print, take_over=True).release()

    with pytest.raises(RemaskError, match=f"^{tmp_path}: ") as lost:
        train(run, on_steps=again)
    assert "has taken it over" in str(lost.value)
    assert [checkpoint.step_of(path) for path in checkpoint.paths(f"{tmp_path}/checkpoints")] == [5]
    assert [line["step"] for line in lines(run) if "loss" in line] == [1, 2, 3, 4, 5, 6]
    (said,) = refused
    assert said.startswith(f"{tmp_path}: another run writes there, begun by ")
    assert f"'kill {os.getpid()}'" in said
    assert "RUN=" in said


def test_how_often_to_evaluate_and_to_save_may_change(whole, options, tmp_path):
    run = replace(options, run_dir=str(tmp_path))
    stop = lambda session, steps: signal.raise_signal(signal.SIGTERM) if session.step >= 7 else None  # noqa: E731
    assert train(run, on_steps=stop) == 128 + signal.SIGTERM
    other = replace(run, eval_every=6, checkpoint_every=4, keep_checkpoints=9)
    assert train(other) == 0
    found, state = last_state(other)
    assert [each.step for each in found.evaluations] == [0, 12, 18, 24]
    kept = {checkpoint.step_of(path) for path in checkpoint.paths(f"{tmp_path}/checkpoints")}
    assert {8, 12, 16, 20, 24} <= kept
    expected = last_state(whole[0])[1]
    assert all(np.array_equal(state[name], expected[name]) for name in expected)


def test_training_on_everything_exports_the_last_step_and_says_what_is_not_known(whole, options, tmp_path, capsys):
    made = manifest.load(options.data)
    data = tmp_path / "data"
    shutil.copytree(options.data, data)
    nothing = replace(made.data, splits={**made.data.splits, "validation": ()}, validation_fraction=0.0)
    (data / "manifest.json").write_text(replace(made, data=nothing).to_json())
    for shard in data.glob("validation-*"):
        shard.unlink()
    run = replace(options, data=str(data), run_dir=str(tmp_path / "run"))
    assert train(run) == 0
    said = capsys.readouterr().out
    assert ", 0 held out\n" in said
    assert said.count("  we saw the [MASK] again. -> ") == 5
    assert "\nheld-out: nothing was, " in said
    assert " exported the model after step 24, the last\n" in said
    found, state = last_state(run)
    assert found.evaluations == ()
    assert not [line for line in lines(run) if "eval_loss" in line]
    card = Path(run.run_dir, "export", "README.md").read_text()
    assert "\n\nNone: no text was held out" in card
    # The weights of the last step, which do not depend on what was measured.
    expected = last_state(whole[0])[1]
    assert all(np.array_equal(state[name], expected[name]) for name in expected)
    words = read_tensors(Path(run.run_dir, "export", "model.safetensors"))["bert.embeddings.word_embeddings.weight"]
    assert any(np.array_equal(words, value) for value in state.values())
    assert train(run) == 0
    assert "this run is finished" in capsys.readouterr().out


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize(("file", "saved"), [("checkpoint", "step 7"), ("metrics.jsonl", "step 5"), ("first", "")])
def test_a_full_disk_says_up_to_which_step_the_run_is_saved_and_what_to_do(options, tmp_path, file, saved):
    run = replace(options, run_dir=str(tmp_path), train_steps=10)
    full = tmp_path / "metrics.jsonl"
    if file != "metrics.jsonl":
        folder = tmp_path / "checkpoints" / ("step-00000005" if file == "first" else "step-00000010")
        full = folder / f"state.npz.{disk.PROCESS}.partial"

    def fill(session, steps):
        if session.step > (0 if file == "first" else 5) and not full.is_symlink():
            full.parent.mkdir(parents=True, exist_ok=True)
            full.unlink(missing_ok=True)
            full.symlink_to("/dev/full")

    with pytest.raises(RemaskError, match="no space left on device") as refused:
        train(run, on_steps=fill)
    said = str(refused.value)
    kept = f"saved up to {saved};" if saved else "Nothing had been saved yet;"
    must_name(
        said, str(full).replace(f".{disk.PROCESS}.partial", ":"), kept, "free some space", "run the same command again"
    )
    assert ("to continue from there" in said) == bool(saved)
    assert len(said.split("free some space")) == 2
    full.unlink(missing_ok=True)
    assert train(run) == 0


def test_a_file_that_may_not_grow_is_not_a_disk_without_space(options, tmp_path):
    """As where 'ulimit -f' is reached, which Python answers with an error."""
    limited = """
import resource, signal, sys
from trainer import __main__
from records.console.command_line import main

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
sys.exit(main("trainer", "", __main__.COMMANDS))
"""
    run = replace(options, run_dir=str(tmp_path), train_steps=8, eval_every=8, checkpoint_every=8)
    done = processes.run(command(run, ("-c", limited)), capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1, done.stderr
    must_name(
        done.stderr.splitlines()[-1],
        f"error: {tmp_path}/checkpoints/step-00000008/state.npz: file too large.",
        "Nothing had been saved yet;",
        "a limit of this process or of the disk is reached: raise it",
        "run the same command again",
    )
    assert "free some space" not in done.stderr
    assert "from there" not in done.stderr


KILLED_IN_EXPORT = """
import os, signal, sys, time
from trainer import __main__
from trainer.models import bridge
from records.console.command_line import main

def write_checkpoint(*arguments):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)

bridge.write_checkpoint = write_checkpoint
sys.exit(main("trainer", "", __main__.COMMANDS))
"""


def test_sigterm_in_the_export_ends_as_it_does_in_training(options, tmp_path):
    run = replace(options, run_dir=str(tmp_path), train_steps=8, eval_every=8, checkpoint_every=8)
    program = ("-c", KILLED_IN_EXPORT)
    done = processes.run(command(run, program), capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert "all 8 steps are saved; run the same command again to export the model\n" in done.stdout
    assert done.stderr.endswith("terminated\n")
    assert not runs.is_complete(f"{tmp_path}/export")
    assert train(run) == 0
    assert runs.is_complete(f"{tmp_path}/export")


@pytest.mark.parametrize(("moment", "is_whole"), [("export.py:card", False), ("disk.py:move", True)])
def test_an_interrupt_in_the_export_says_whether_the_model_is_exported(whole, tmp_path, capsys, moment, is_whole):
    run = replace(whole[0], run_dir=str(tmp_path / "run"))
    shutil.copytree(whole[0].run_dir, run.run_dir)
    shutil.rmtree(Path(run.run_dir, "export"))
    with moments.signalled(signal.SIGINT, moment, "call") as sent, pytest.raises(KeyboardInterrupt):
        train(run)
    assert sent
    said = capsys.readouterr().out
    assert runs.is_complete(runs.export(run.run_dir)) == is_whole
    assert ("run the same command again to export the model" in said) == (not is_whole)
    assert (f"this run is finished, after 24 steps\nmodel    {run.run_dir}/export\n" in said) == is_whole


def test_other_options_are_refused_with_the_difference(whole):
    run, _, _ = whole
    other = replace(run, learning_rate=0.5, train_steps=30, steps_per_loop=9, keep_checkpoints=7)
    with pytest.raises(RemaskError) as refused:
        train(other)
    must_name(
        str(refused.value),
        f"{run.run_dir}:",
        "holds a run",
        "train_steps: run has 24, asked for 30",
        "learning_rate: run has 0.01, asked for 0.5",
        "the run's own options",
        "another RUN",
    )


def test_loss_that_is_no_number_stops_the_run(options, tmp_path):
    run = replace(options, run_dir=str(tmp_path), learning_rate=1e38, warmup_steps=0, checkpoint_every=1)
    with pytest.raises(RemaskError) as stopped:
        train(run)
    step = len(checkpoint.paths(f"{tmp_path}/checkpoints")) and last_state(run)[0].step
    assert str(stopped.value).startswith(f"step {step + 1}: the loss is nan, the norm of its gradient nan. ")
    assert f"The last good checkpoint is {tmp_path}/checkpoints/step-{step:08}. " in str(stopped.value)
    assert "a lower learning_rate" in str(stopped.value)
    assert not Path(tmp_path, "export").exists()


def test_starting_weights_that_are_no_numbers_are_refused_before_the_first_step(options, whole, tmp_path):
    run, _, _ = whole
    folder = made.changed(f"{run.run_dir}/export", tmp_path / "start", made.one_nan)
    with pytest.raises(RemaskError) as stopped:
        train(replace(options, model=folder, run_dir=str(tmp_path / "run")))
    assert str(stopped.value).startswith(f"{folder}/model.safetensors: bert.embeddings.LayerNorm.bias has 1 of 16 ")
    assert not Path(tmp_path, "run", "metrics.jsonl").exists()


def test_a_start_that_computes_no_numbers_is_blamed_and_not_the_learning_rate(options, whole, tmp_path):
    run, _, _ = whole
    folder = made.changed(f"{run.run_dir}/export", tmp_path / "start", made.overflowing)
    with pytest.raises(RemaskError) as stopped:
        train(replace(options, model=folder, run_dir=str(tmp_path / "run")))
    said = str(stopped.value)
    assert said.startswith(
        f"step 0: the held-out loss is nan, before anything was learnt: the weights of model {folder} "
    )
    assert "not the learning rate" in said
    assert "lower learning_rate" not in said
    assert "float32" in said
    assert not Path(tmp_path, "run", "checkpoints").exists()


def test_damaged_shard_is_named_with_what_to_do(options, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(options.data, data)
    shard = data / "train-00002-of-00004.tfrecord"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(RemaskError) as stopped:
        train(replace(options, data=str(data), run_dir=str(tmp_path / "run")))
    must_name(str(stopped.value), f"{data}:", "damaged", f"'make verify DATA={data}'")


@pytest.mark.slow
def test_replicas_train_alike_from_end_to_end(whole, options, tmp_path):
    run = replace(options, run_dir=str(tmp_path / "two"), dropout=0.0, train_steps=6, eval_every=3)
    train(run, strategy=choose_strategy(devices=2))
    alone = replace(run, run_dir=str(tmp_path / "one"))
    train(alone)
    (ours, state), (theirs, expected) = last_state(run), last_state(alone)
    for name, value in expected.items():
        np.testing.assert_allclose(state[name], value, rtol=0, atol=1e-6, err_msg=name)
    for two, one in zip(ours.evaluations, theirs.evaluations, strict=True):
        assert two.loss == pytest.approx(one.loss, abs=1e-6)
        assert (two.accuracy, two.top5_accuracy, two.tokens) == (one.accuracy, one.top5_accuracy, one.tokens)


def test_of_text_that_a_program_made_it_is_said_before_any_is_shown(options):
    opened = open_data_set(options.data)
    data = replace(opened.manifest.data, synthetic=True)
    synthetic = replace(opened, manifest=replace(opened.manifest, data=data))
    model = BertMaskedLM(find(options.model, data=opened.tokenizer).config, seed=0)
    first, *_ = introduction(options, synthetic, model, choose_strategy(), 20).splitlines()
    assert first.endswith(", 37 held out; synthetic film reviews (made by remask, not real)")


def test_everything_is_said_before_the_first_step_and_after_the_last(whole):
    run, said, _ = whole
    assert said.startswith(
        f"model {run.model}: random weights\n"
        f"data     {run.data}: 203 sequences of 24 tokens (62.2% filled), 37 held out\n"
        f"model    {run.model}: 3,503 parameters, float32, on 1 CPU\n"
        f"step     20 sequences, 299 tokens; 10.2 steps an epoch; 24 steps, 2.36 epochs\n"
        f"example  [CLS] "
    )
    (example,) = (line for line in said.splitlines() if line.startswith("example "))
    assert "⟨" in example  # the word to find, behind each masked one
    assert said.count("  we saw the [MASK] again. -> ") == 5  # at each evaluation
    evaluations = last_state(run)[0].evaluations
    first, last = evaluations[0], evaluations[-1]
    assert f"\nheld-out, step 0 -> 24: loss {first.loss:.4f} -> {last.loss:.4f}, " in said
    ending = said.partition(f'\ntry      make fill-mask RUN={run.run_dir} TEXT="we saw the [MASK] again."\n')[2]
    model = find(f"{run.run_dir}/export")
    made_again = BertMaskedLM(model.config, seed=1)
    read_weights(made_again, model, say=lambda line: None)
    assert ending == table(fill(made_again, "we saw the [MASK] again.", model.tokenizer, top_k=5)) + "\n"
