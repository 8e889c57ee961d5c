import json
import os
import signal

import pytest
import tensorflow as tf
import tqdm

from records.errors import RemaskError
from tests.said import must_name
from trainer.run.checkpoint import Evaluation
from trainer.run.progress import Progress, Training, fitting
from trainer.run.stop import stop_signals


def training(step, loss=3.0):
    return Training(step, loss, 1.5, 1e-3, 10.0, 1234.0, 0.125)


def steps(tmp_path):
    return [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]


def test_lines_where_there_is_no_terminal(tmp_path, capsys):
    with Progress(str(tmp_path), start_step=0, train_steps=200) as progress:
        for step in (1, 2, 3, 200):
            progress.show(training(step))
        progress.say("saved")
    said = capsys.readouterr()
    first, last = said.err.splitlines()  # between them less than ten seconds passed
    assert first == "step   1/200: loss 3.0000, 10.0 sequences/s, 1,234 tokens/s, input wait 12.5%"
    assert last == "step 200/200: loss 3.0000, 10.0 sequences/s, 1,234 tokens/s, input wait 12.5%, 0:00 left"
    assert said.out == "saved\n"


def test_bar_on_a_terminal(tmp_path, capsys):
    with Progress(str(tmp_path), start_step=50, train_steps=200, terminal=True) as progress:
        progress.show(training(100))
        progress.say("saved")
    said = capsys.readouterr()
    assert "50%|" in said.err
    assert "| 100/200, loss 3.0000, 10.0 sequences/s, " in said.err
    assert said.out == "saved\n"


@pytest.mark.parametrize("columns", [32, 40, 60, 80, 100, 132])
@pytest.mark.parametrize(("steps", "rate", "left"), [(200, 10.0, "0:59"), (100_000, 12_345.6, "10:01:40")])
def test_a_bar_has_what_a_terminal_has_room_for(columns, steps, rate, left):
    form, text = fitting(
        Training(steps // 2, 3.0, 1.5, 1e-3, rate, 1e6, 0.125), left, train_steps=steps, columns=columns
    )
    line = tqdm.tqdm.format_meter(steps // 2, steps, 1.0, ncols=columns - 1, bar_format=form, postfix=text)
    assert line.endswith(f"{left} left")  # not cut
    assert len(line) < columns
    assert f"{steps // 2}/{steps}" in line or "50%" in line
    if columns >= 40:
        assert "/s" in line
    if columns >= 80:
        assert "50%|" in line
        assert "loss 3.0000" in line


def test_metrics_and_scalars(tmp_path):
    with Progress(str(tmp_path), start_step=0, train_steps=20) as progress:
        progress.record(training(10))
        progress.record_evaluation(Evaluation(10, 2.0, 7.4, 0.5, 0.8, 99))
    first, second = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert first == {
        "step": 10,
        "loss": 3.0,
        "gradient_norm": 1.5,
        "learning_rate": 1e-3,
        "sequences_per_second": 10.0,
        "tokens_per_second": 1234.0,
        "input_wait": 0.125,
    }
    assert second == {
        "step": 10,
        "eval_loss": 2.0,
        "eval_perplexity": 7.4,
        "eval_accuracy": 0.5,
        "eval_top5_accuracy": 0.8,
        "eval_tokens": 99,
    }
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert all(tag in content for tag in (b"train/loss", b"train/input_wait", b"eval/loss", b"eval/top5_accuracy"))


@pytest.mark.parametrize(
    ("start_step", "evaluated", "kept"), [(10, (0, 10), [0, 5, 10, 10]), (10, (0,), [0, 5, 10]), (0, (), [])]
)
def test_what_will_be_done_again_is_forgotten(tmp_path, start_step, evaluated, kept):
    with Progress(str(tmp_path), start_step=0, train_steps=20) as progress:
        progress.record_evaluation(Evaluation(0, 2.0, 7.4, 0.5, 0.8, 99))
        progress.record(training(5))
        progress.record(training(10))
        progress.record_evaluation(Evaluation(10, 2.0, 7.4, 0.5, 0.8, 99))
        progress.record(training(15))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1')  # killed while it wrote
    with Progress(str(tmp_path), start_step=start_step, train_steps=20, evaluated=evaluated):
        assert steps(tmp_path) == kept


def scalars(tmp_path) -> list[tuple[int, str]]:
    """Return step and tag of all that TensorBoard would show."""
    found = []
    for path in sorted((tmp_path / "tensorboard").iterdir()):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            found += [(event.step, value.tag) for value in event.summary.value]
    return sorted(found)


@pytest.mark.parametrize(("start_step", "evaluated"), [(10, (0, 10)), (10, (0,)), (0, ()), (20, (0, 10, 20))])
def test_tensorboard_shows_each_step_once(tmp_path, start_step, evaluated):
    def do(progress, after, measured):
        for step in (0, 10, 20):
            if step > after:
                progress.record(training(step))
            if step not in measured:
                progress.record_evaluation(Evaluation(step, 2.0, 7.4, 0.5, 0.8, 99))

    with Progress(str(tmp_path), start_step=0, train_steps=20) as progress:
        do(progress, 0, ())
    once = scalars(tmp_path)
    assert {step for step, _ in once} == {0, 10, 20}
    (written,) = (tmp_path / "tensorboard").iterdir()
    with written.open("ab") as file:
        file.write(b"\x07\x00")  # killed while it wrote
    # Killed while it rewrote the file: TensorBoard reads whatever has "tfevents" in its name.
    (tmp_path / "tensorboard" / f"{written.name}.0123abcd.partial").write_bytes(written.read_bytes())
    notes = tmp_path / "tensorboard" / "notes.txt"
    notes.write_text("mine")
    with Progress(str(tmp_path), start_step=start_step, train_steps=20, evaluated=evaluated) as progress:
        do(progress, start_step, evaluated)
    assert notes.read_text() == "mine"
    notes.unlink()
    assert scalars(tmp_path) == once


def test_damaged_line_in_the_middle(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 5}\n{"st\n{"step": 10}\n')
    with pytest.raises(RemaskError) as refused:
        Progress(str(tmp_path), start_step=10, train_steps=20)
    must_name(
        str(refused.value),
        f"{path}, line 2:",
        "damaged",
        "expected metrics as JSON",
        "remove the line",
        "run the same command again",
    )


def test_a_folder_that_another_command_has_taken_over_is_not_written_to(tmp_path):
    held = [True]

    def check_lock():
        if not held[0]:
            raise RemaskError("lost")

    with Progress(str(tmp_path), start_step=0, train_steps=20, check_lock=check_lock) as progress:
        progress.record(training(5))
        held[0] = False
        with pytest.raises(RemaskError, match="lost"):
            progress.record(training(10))
    assert steps(tmp_path) == [5]
    with pytest.raises(RemaskError, match="lost"):
        Progress(str(tmp_path), start_step=0, train_steps=20, check_lock=check_lock)
    assert steps(tmp_path) == [5]


def test_disk_that_is_full(tmp_path):
    with Progress(str(tmp_path), start_step=0, train_steps=20) as progress:
        (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
        with pytest.raises(RemaskError) as stopped:
            progress.record(training(10))
    must_name(
        str(stopped.value), f"{tmp_path}/metrics.jsonl:", "no space left on device", "free some space", "another disk"
    )


def test_reader_that_has_gone(tmp_path, monkeypatch):
    (reader, writer), before = os.pipe(), os.dup(1)
    os.close(reader)
    os.dup2(writer, 1)
    try:
        with (
            os.fdopen(writer, "w") as sink,
            Progress(str(tmp_path), start_step=0, train_steps=20) as progress,
            stop_signals(progress.say) as stopped,
        ):
            monkeypatch.setattr("sys.stdout", sink)
            progress.say("a line that nobody reads")
            assert stopped() == signal.SIGPIPE
            monkeypatch.undo()
            os.dup2(os.open(os.devnull, os.O_WRONLY), sink.fileno())  # what it still holds goes there
    finally:
        os.dup2(before, 1)
        os.close(before)
