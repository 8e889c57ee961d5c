"""What a run says while it goes: a bar or plain lines on standard error, `metrics.jsonl`, and TensorBoard scalars."""

import contextlib
import dataclasses
import io
import json
import sys
import time
from collections.abc import Callable, Collection, Mapping
from types import TracebackType
from typing import Any

import tensorflow as tf
import tqdm

from records import storage
from records.errors import RemaskError
from records.format import tfrecord
from trainer.run.checkpoint import Evaluation

METRICS_JSONL, TENSORBOARD = "metrics.jsonl", "tensorboard"
_EVENTS = "events.out.tfevents."  # begins the name of each of TensorBoard's files
_EVALUATION = "eval/"  # begins the tags of the held-out split's scalars
_BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"
_NARROW = "{n_fmt}/{total_fmt}{postfix}"
_SHARE = "{percentage:3.0f}%{postfix}"
_LEAST_BAR = 8  # columns
_LINE_SECONDS = 10.0  # between two lines where there is no terminal


@dataclasses.dataclass(frozen=True)
class Training:
    """How the steps since the last report went."""

    step: int
    loss: float  # mean over the steps
    gradient_norm: float  # of the last of them, before clipping
    learning_rate: float  # of the last of them
    sequences_per_second: float
    tokens_per_second: float  # padding is no work and not counted
    input_wait: float  # share of the time in which nothing was computed for want of data


class Progress:
    """Shows and records a run, from `start_step` on.

    What an earlier run wrote beyond its checkpoint, to `metrics.jsonl` and for TensorBoard, is removed: that is done
    again.

    Args:
        run_dir: the folder of the run.
        train_steps: steps of the whole run.
        start_step: steps that are done already.
        evaluated: steps whose evaluation the checkpoint holds.
        check_lock: refuses to write to a folder that another command has taken over.
        terminal: whether to draw a bar; by default where standard error is a terminal.
    """

    def __init__(
        self,
        run_dir: str,
        *,
        start_step: int,
        train_steps: int,
        evaluated: Collection[int] = (),
        check_lock: Callable[[], None] = lambda: None,
        terminal: bool | None = None,
    ) -> None:
        self._check_lock = check_lock
        check_lock()
        self._metrics = storage.join(run_dir, METRICS_JSONL)
        board = storage.join(run_dir, TENSORBOARD)
        _forget(self._metrics, start_step, evaluated)
        storage.remove_partial(board)  # TensorBoard would read it
        _forget_events(board, start_step, evaluated)
        # In a bucket TensorFlow sends the whole file each time it flushes: not after ten values, but when we say so.
        queue = {"max_queue": 1000, "flush_millis": 10 * 60 * 1000} if storage.is_remote(run_dir) else {}
        self._writer = tf.summary.create_file_writer(board, **queue)
        self._terminal = sys.stderr.isatty() if terminal is None else terminal
        self._train_steps = train_steps
        self._first: tuple[int, float] | None = None  # the step first shown, and when: until then functions are traced
        self._last_line = 0.0
        self._unwritten, self._written = "", 0.0  # lines of metrics, and when the last ones were written
        self._bar = tqdm.tqdm(
            initial=start_step,
            total=train_steps,
            disable=not self._terminal,
            dynamic_ncols=True,
            bar_format=_BAR,
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.close()
        try:
            self.flush()
        except RemaskError:
            if error is None:  # otherwise what went wrong first is to be told
                raise
        finally:
            self._writer.close()

    def say(self, text: str) -> None:
        """Print a line, above the bar where there is one; if anybody still reads (see `trainer.run.stop`)."""
        with contextlib.suppress(BrokenPipeError):
            if self._terminal:
                self._bar.write(text, file=sys.stdout)
            else:
                print(text, flush=True)

    def show(self, training: Training) -> None:
        """Show how it goes; on a terminal at once, elsewhere a line every ten seconds and one at the end."""
        now = time.monotonic()
        self._first = self._first or (training.step, now)
        done = training.step - self._first[0]
        left = duration((now - self._first[1]) / done * (self._train_steps - training.step)) if done else ""
        if self._terminal:
            self._bar.n = training.step
            measure = self._bar.dynamic_ncols
            columns = (measure(self._bar.fp)[0] if callable(measure) else 0) or 80
            self._bar.bar_format, text = fitting(training, left, train_steps=self._train_steps, columns=columns)
            self._bar.set_postfix_str(text)
        elif now - self._last_line >= _LINE_SECONDS or training.step == self._train_steps:
            self._last_line = now
            width, text = len(str(self._train_steps)), ", ".join(said(training, left))
            with contextlib.suppress(BrokenPipeError):
                print(f"step {training.step:>{width}}/{self._train_steps}: {text}", file=sys.stderr, flush=True)

    def record(self, training: Training) -> None:
        """Write a line of metrics and the same as TensorBoard scalars."""
        values = dataclasses.asdict(training)
        self._append(values, prefix="train")

    def record_evaluation(self, evaluation: Evaluation) -> None:
        """Write a line with the figures of the held-out split, under names that begin with `eval_`."""
        values = {f"eval_{key}": value for key, value in dataclasses.asdict(evaluation).items() if key != "step"}
        self._append({"step": evaluation.step, **values}, prefix="")
        self.flush()

    def _append(self, values: Mapping[str, Any], *, prefix: str) -> None:
        self._unwritten += json.dumps(values) + "\n"
        with self._writer.as_default():
            for name, value in values.items():
                if name != "step":
                    tag = f"{prefix}/{name}" if prefix else name.replace("eval_", _EVALUATION, 1)
                    tf.summary.scalar(tag, value, step=values["step"])
        # An object takes a write a second, and each costs a few round trips.
        if not storage.is_remote(self._metrics) or time.monotonic() - self._written >= _LINE_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what has been recorded."""
        lines, self._unwritten = self._unwritten, ""  # what cannot be written is not tried again at the end
        if lines:
            self._check_lock()
            storage.append(self._metrics, lines.encode())
            self._written = time.monotonic()
            self._writer.flush()


class Quiet:
    """Says and records nothing: the progress of a worker that follows another."""

    def __enter__(self) -> "Quiet":
        return self

    def __exit__(self, *exception: object) -> None:
        """Has nothing to close."""

    def say(self, text: str) -> None:
        """Say nothing."""

    def show(self, training: Training) -> None:
        """Show nothing."""

    def record(self, training: Training) -> None:
        """Record nothing."""

    def record_evaluation(self, evaluation: Evaluation) -> None:
        """Record nothing."""


def said(training: Training, left: str) -> list[str]:
    """Return what there is to say of the steps since the last report, and the time left, if that is known.

    >>> ", ".join(said(Training(5, 3.0, 1.5, 1e-3, 10.0, 1234.0, 0.125), "1:15"))
    'loss 3.0000, 10.0 sequences/s, 1,234 tokens/s, input wait 12.5%, 1:15 left'
    """
    return [
        f"loss {training.loss:.4f}",
        f"{training.sequences_per_second:,.1f} sequences/s",
        f"{training.tokens_per_second:,.0f} tokens/s",
        f"input wait {training.input_wait:.1%}",
        *([f"{left} left"] if left else []),
    ]


def fitting(training: Training, left: str, *, train_steps: int, columns: int) -> tuple[str, str]:
    """Return the format of the bar and what stands behind it, as much as a line of a terminal has room for.

    The time left and the rate come first, then the bar, the loss and the rest.

    >>> training = Training(5, 3.0, 1.5, 1e-3, 10.0, 1234.0, 0.125)
    >>> fitting(training, "1:15", train_steps=800, columns=40)
    ('{n_fmt}/{total_fmt}{postfix}', '10.0 seq/s, 1:15 left')
    >>> fitting(training, "1:15", train_steps=800, columns=80)[1]
    'loss 3.0000, 10.0 sequences/s, 1:15 left'
    """
    loss, rate, tokens, wait, *time_left = said(training, left)
    short = f"{training.sequences_per_second:,.1f} seq/s"
    count = 2 * len(str(train_steps)) + len("/, ")
    with_bar = len("100%|| ") + _LEAST_BAR + count
    for texts in ([loss, rate, tokens, wait], [loss, rate, wait], [loss, rate], [loss, short], [short]):
        text = ", ".join((*texts, *time_left))
        if with_bar + len(text) < columns:
            return _BAR, text
    for form, texts in ((_NARROW, [loss, short]), (_NARROW, [short]), (_SHARE, [short]), (_SHARE, [])):
        text = ", ".join((*texts, *time_left))
        if (count if form == _NARROW else len("100%, ")) + len(text) < columns:
            break
    return form, text


def duration(seconds: float) -> str:
    """Return a time as one reads it.

    >>> duration(75.2), duration(3700), duration(9)
    ('1:15', '1:01:40', '0:09')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _forget(path: str, step: int, evaluated: Collection[int]) -> None:
    """Remove the lines of what will be done again."""
    if not storage.exists(path):
        return

    def stays(number: int, line: bytes) -> bool:
        if not line.endswith(b"\n"):  # a killed run was about to write it
            return False
        try:
            values = json.loads(line)
            return _stays(values["step"], step, evaluated, is_evaluation="eval_loss" in values)
        except (ValueError, KeyError, TypeError):
            raise RemaskError(
                f"{path}, line {number}: damaged, expected metrics as JSON; remove the line, then run the same command "
                f"again"
            ) from None

    lines = storage.read_bytes(path).splitlines(keepends=True)
    kept = [line for number, line in enumerate(lines, start=1) if stays(number, line)]
    if kept != lines:
        storage.write_bytes(path, b"".join(kept))


def _forget_events(folder: str, step: int, evaluated: Collection[int]) -> None:
    """Remove the TensorBoard events of what will be done again; those that stay keep their time."""
    for path in sorted(storage.join(folder, name) for name in storage.files(folder) if name.startswith(_EVENTS)):
        events, content = [], io.BytesIO(storage.read_bytes(path))
        with contextlib.suppress(RemaskError):  # a killed run leaves half an event at the end
            for event in tfrecord.read(content, name=path):
                events.append(event)
        kept = [event for event in events if _event_stays(event, step, evaluated)]
        if kept != events:
            storage.write_bytes(path, b"".join(map(tfrecord.framed, kept)))


def _event_stays(content: bytes, step: int, evaluated: Collection[int]) -> bool:
    event = tf.compat.v1.Event.FromString(content)
    tags = [value.tag for value in event.summary.value]  # none in the event that begins a file
    is_evaluation = any(tag.startswith(_EVALUATION) for tag in tags)
    return not tags or _stays(event.step, step, evaluated, is_evaluation=is_evaluation)


def _stays(of: int, step: int, evaluated: Collection[int], *, is_evaluation: bool) -> bool:
    """Say whether what was recorded at step `of` will not be done again by a run that continues after `step`."""
    return of in evaluated if is_evaluation else of <= step
