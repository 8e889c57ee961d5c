"""The host's side of training: when to look at the device, measure, show, evaluate, save and stop."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import keras
import numpy as np

from records.errors import RemaskError
from trainer.config import TrainOptions
from trainer.devices.workers import Workers
from trainer.engines.step import Batch, Steps, TrainLoop
from trainer.input.data import HeldOut
from trainer.models import mask_filling
from trainer.models.mask_filling import Filled
from trainer.run import checkpoint, runs
from trainer.run.checkpoint import Checkpoint, Evaluation, Run
from trainer.run.evaluation import Evaluator
from trainer.run.progress import Progress, Quiet, Training

LOOK_SECONDS = 5.0
"""The host looks at the device this often, if a step is no longer: to show how it goes, and to see a signal in time."""


@dataclass
class Session:
    """A run that is under way. What it computes is a function of the step; when it is looked at changes nothing."""

    options: TrainOptions
    run: Run
    global_batch_size: int
    variables: Mapping[str, keras.Variable]  # of the model and its optimizer
    loop: TrainLoop
    batches: Iterator[Batch]  # from `step` on
    evaluate: Evaluator
    held_out: HeldOut
    fill: Callable[[], Sequence[Filled]]  # the probes
    learning_rate: Callable[[int], float]  # of a step, counted from 0
    progress: Progress | Quiet
    workers: Workers
    check_lock: Callable[[], None]  # refuses to write to a folder that another command has taken over
    step: int  # steps done
    evaluations: list[Evaluation]  # all so far
    saved: str = ""  # path of the newest checkpoint
    seconds_a_step: float = 0.0  # as of the last look; 0 while not known

    def go(self, stopped_here: Callable[[], int], on_steps: "OnSteps") -> int:
        """Train to the last step, or until `stopped_here()` of any worker; save in either case.

        Returns:
            What stopped it, 0 where nothing did.

        Raises:
            RemaskError: the loss, a gradient or a weight is no number any more.
        """

        def stopped() -> int:
            return int(self.workers.most(stopped_here()))

        interval = Interval()
        while True:
            if self._is_due(self.options.eval_every) and not self._evaluated():
                self._evaluate(stopped)
            lowest = checkpoint.best(self.evaluations)
            is_best = lowest is not None and lowest.step == self.step
            stop = stopped()  # asked once: a signal that comes any later is seen at the next look
            if stop or is_best or (self.step and self._is_due(self.options.checkpoint_every)):
                self._save(best_step=lowest.step if lowest else None)
            if stop or self.step == self.options.train_steps:
                return stopped()  # again, for to save takes a while
            steps = self._advance(interval)
            training = interval.report(self.step, self.global_batch_size, self.learning_rate(self.step - 1))
            self.progress.show(training)
            dues = (self.options.steps_per_loop, self.options.eval_every, self.options.checkpoint_every)
            if stopped() or any(map(self._is_due, dues)):
                self.progress.record(training)
                interval = Interval()
            on_steps(self, steps)

    def _is_due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.options.train_steps

    def _evaluated(self) -> bool:
        return bool(self.evaluations) and self.evaluations[-1].step == self.step

    def _advance(self, interval: "Interval") -> Steps:
        """Do the steps until the next look."""
        count = steps_until_look(self.step, self.options, seconds_a_step=self.seconds_a_step)
        began = time.monotonic()
        steps = self.loop(self.batches, self.step, count)
        seconds = time.monotonic() - began
        interval.add(steps, seconds=seconds)
        self.seconds_a_step = self.workers.most(seconds / count)  # so that all look again after as many steps
        wrong = np.flatnonzero(~(np.isfinite(steps.loss) & np.isfinite(steps.gradient_norm)))
        if wrong.size:
            first = wrong[0]
            what = f"the loss is {steps.loss[first]}, the norm of its gradient {steps.gradient_norm[first]}"
            raise self._broken(self.step + int(first) + 1, what, learnt=self.step + int(first))
        self.step += count
        return steps

    def _evaluate(self, stopped: Callable[[], int]) -> None:
        """Measure the model, if anything is held out, and show what it puts into the probes."""
        if self.held_out.count:
            evaluation = self.evaluate(self.held_out, step=self.step, stop=stopped)
            if evaluation is None:  # stopped: continued, the run begins with it
                return
            if not math.isfinite(evaluation.loss):
                raise self._broken(self.step, f"the held-out loss is {evaluation.loss}", learnt=self.step)
            self.evaluations.append(evaluation)
            self.progress.record_evaluation(evaluation)
        if self.workers.place.leads:
            try:
                filled = self.fill()
            except mask_filling.NotFinite as error:
                what = "what the model computes for the probes is no finite number"
                raise self._broken(self.step, what, learnt=self.step) from error
            for each in filled:
                self.progress.say(f"  {mask_filling.line(each)}")

    def _save(self, *, best_step: int | None) -> None:
        folder = runs.checkpoints(self.options.run_dir)
        state = Checkpoint(self.step, self.run, tuple(self.evaluations))
        path = checkpoint.path_of(folder, self.step)
        if not self.workers.place.leads:
            self.saved = path
            return
        if path == self.saved and checkpoint.read_json(path) == state:  # continued, and stopped again at once
            return
        self.check_lock()
        try:
            self.saved = checkpoint.save(folder, state, self.variables)
        except FloatingPointError as error:
            raise self._broken(self.step, str(error), learnt=self.step) from error
        checkpoint.prune(folder, newest=self.step, keep=self.options.keep_checkpoints, best_step=best_step)

    def _broken(self, step: int, what: str, *, learnt: int) -> RemaskError:
        """Return what to say of a step at which something is no number, after `learnt` updates of the weights."""
        if not learnt:
            return RemaskError(
                f"step {step}: {what}, before anything was learnt: the weights of model {self.options.model} that the "
                f"run starts from are at fault, or their dtype {self.options.dtype}; not the learning rate. Nothing is "
                f"saved. Begin with another model, or with dtype float32 where it was another"
            )
        last = f"The last good checkpoint is {self.saved}" if self.saved else "No checkpoint had been saved yet"
        return RemaskError(
            f"step {step}: {what}. Nothing is saved from here on. {last}. Begin a new run with a lower "
            f"learning_rate or a longer warm-up, and with dtype float32 where it was another"
        )


OnSteps = Callable[[Session, Steps], None]
"""Is told of each look at the device: the session, and what the last steps reported."""


@dataclass
class Interval:
    """What happened since the last line of metrics."""

    loss: list[float] = field(default_factory=list)
    gradient_norm: float = 0.0
    tokens: float = 0.0
    waited: float = 0.0
    seconds: float = 0.0

    def add(self, steps: Steps, *, seconds: float) -> None:
        """Add the steps of one look at the device."""
        self.loss += steps.loss.tolist()
        self.gradient_norm = float(steps.gradient_norm[-1])
        self.tokens += float(steps.tokens.sum())
        self.waited += float(steps.waited.sum())
        self.seconds += seconds

    def report(self, step: int, global_batch_size: int, learning_rate: float) -> Training:
        """Return means over the interval."""
        return Training(
            step=step,
            loss=sum(self.loss) / len(self.loss),
            gradient_norm=self.gradient_norm,
            learning_rate=learning_rate,
            sequences_per_second=len(self.loss) * global_batch_size / self.seconds,
            tokens_per_second=self.tokens / self.seconds,
            input_wait=min(1.0, self.waited / self.seconds),
        )


def steps_until_look(step: int, options: TrainOptions, *, seconds_a_step: float) -> int:
    """Return how many steps to do before the host looks again.

    Up to the next line of metrics, evaluation, checkpoint or the end, whichever is first, but no longer than
    `LOOK_SECONDS`; one step where it is not known how long a step takes.

    >>> options = TrainOptions(steps_per_loop=20, eval_every=50, checkpoint_every=100, train_steps=110)
    >>> [steps_until_look(step, options, seconds_a_step=0.01) for step in (0, 20, 40, 50, 100)]
    [20, 20, 10, 10, 10]
    >>> steps_until_look(0, options, seconds_a_step=1.0), steps_until_look(0, options, seconds_a_step=0.0)
    (5, 1)
    """
    everies = (options.steps_per_loop, options.eval_every, options.checkpoint_every)
    wanted = min(options.train_steps - step, *(every - step % every for every in everies))
    patience = int(LOOK_SECONDS / seconds_a_step) if seconds_a_step else 1
    return max(1, min(wanted, patience))
