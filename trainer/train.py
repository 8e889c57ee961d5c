"""Training, from a data set and a model's name to an exported model. `_train` is the whole flow, from top to bottom."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence

import keras
import tensorflow as tf

from records import storage
from records.console.command_line import make_option
from records.errors import Full, RemaskError
from records.format.manifest import SYNTHETIC
from records.format.reader import DataSet, open_data_set
from records.storage import folder_lock
from trainer.config import TrainOptions, is_remote_tpu, usual_dtype
from trainer.devices import lost, workers
from trainer.devices.workers import Place, Workers
from trainer.engines import accelerator
from trainer.engines.optimizer import make_optimizer, make_schedule
from trainer.engines.step import Batch, TrainLoop
from trainer.input.data import HELD_OUT, HeldOut, dealt, train_batches
from trainer.input.masking import Masking
from trainer.input.memory import available
from trainer.input.rendering import first, masked_row, rendered
from trainer.models import mask_filling, pretrained
from trainer.models.model import BertMaskedLM
from trainer.run import checkpoint, checks, export, notices, probes, runs
from trainer.run.checkpoint import Checkpoint, Evaluation
from trainer.run.evaluation import Evaluator
from trainer.run.progress import Progress, Quiet, duration
from trainer.run.session import OnSteps, Session
from trainer.run.stop import stop_signals


def train(
    options: TrainOptions,
    *,
    strategy: tf.distribute.Strategy | None = None,
    on_steps: OnSteps = lambda session, steps: None,
) -> int:
    """Train, or continue to train, then export the model; return the exit status of the command.

    Args:
        options: of the run; where it has begun already, only those of `CONTINUABLE` may differ from what it has.
        strategy: where to train; by default what `trainer.engines.accelerator` chooses.
        on_steps: is called after each look at the device.

    Raises:
        RemaskError: something does not match, a shard is damaged, the loss is no number any more, or another command
            writes to the folder of the run.
    """
    options = dataclasses.replace(options, dtype=options.dtype or usual_dtype(options.tpu))
    place = workers.place()
    if not place.leads:  # the chief holds the lock, and writes
        return _train(options, place, strategy=strategy, on_steps=on_steps, say=_nothing, check_lock=lambda: None)
    with folder_lock.held(options.run_dir, what="run", instead="choose another folder with RUN=") as lock:
        storage.remove_partial(options.run_dir)
        export.prepare(runs.export(options.run_dir))
        return _train(options, place, strategy=strategy, on_steps=on_steps, say=print, check_lock=lock.check)


def _train(
    options: TrainOptions,
    place: Place,
    *,
    strategy: tf.distribute.Strategy | None,
    on_steps: OnSteps,
    say: Callable[[str], None],
    check_lock: Callable[[], None],
) -> int:
    """Do what `train` says, in a folder that nobody else writes to."""
    began = time.monotonic()
    # What needs no accelerator comes first: to be refused then costs seconds.
    data_set = open_data_set(options.data)
    digest, kept = data_set.manifest.digest(), runs.checkpoints(options.run_dir)
    found = runs.resume(options, manifest_digest=digest, say=say)
    if found:
        config, start = found[0].run.model, None
    else:
        start = pretrained.find(options.model, data=data_set.tokenizer, dropout=options.dropout)
        config = start.config
    checks.check_data(data_set, config, name=options.model)
    checks.check_split(data_set, "train")
    filled = probes.choose(options.probes, data_set, longest=config.max_position_embeddings)
    example = probes.example(filled, data_set.tokenizer)
    if found and found[0].step == options.train_steps and export.is_final(runs.export(options.run_dir), found[0]):
        say(_finished(options, example))
        return 0

    if not is_remote_tpu(options.tpu):  # whose own hosts read
        checks.check_memory(data_set, shuffle_examples=options.shuffle_examples, free=available())

    if not place.alone:
        say(f"workers  {len(place.addresses)}, at {', '.join(place.addresses)}: waiting until all of them are there")
    with (
        _room_explained(options.run_dir),
        lost.explained(_others(options, place), outcome=lambda: _kept(options.run_dir, place)),
    ):
        strategy = strategy or accelerator.choose_strategy(
            tpu=options.tpu, zone=options.zone, project=options.project, devices=options.devices, place=place
        )
        batch_size = checks.batch_size(options, replicas=strategy.num_replicas_in_sync)
        check_lock()  # to come here may take minutes
        run = runs.begin(
            options,
            manifest_digest=digest,
            config=config,
            global_batch_size=batch_size,
            continued=found[0] if found else None,
            writes=place.leads,
        )
        with strategy.scope():
            model = BertMaskedLM(config, seed=options.seed, dtype=options.dtype)
            schedule = make_schedule(options)
            optimizer = make_optimizer(model.trainable_variables, schedule, weight_decay=options.weight_decay)
            variables = checkpoint.named(model, optimizer)
            if start:
                pretrained.read_weights(model, start, say=say)
            if found:
                checkpoint.restore(variables, found[1], name=checkpoint.path_of(kept, found[0].step))
        at = found[0] if found else Checkpoint(0, run, ())
        del found  # the state just read is as large as the model and its optimizer together
        together = Workers(strategy, place)
        together.check_alike(step=at.step, asked=dataclasses.asdict(run), variables=variables)

        with (
            checks.errors_explained(data_set, saved=lambda: bool(checkpoint.paths(kept))),
            _progress(options, at, check_lock) if place.leads else Quiet() as progress,
            stop_signals(progress.say) as stopped,
            notices.watched(progress.say) as noticed,
        ):
            progress.say(introduction(options, data_set, model, strategy, batch_size))
            if note := probes.note(filled):
                progress.say(f"probes   {note}")
            if at.step:
                progress.say(f"continue after step {at.step}")
            session = Session(
                options=options,
                run=run,
                global_batch_size=batch_size,
                variables=variables,
                loop=TrainLoop(strategy, model, optimizer, seed=options.seed, clip_norm=options.clip_norm),
                batches=_train_batches(strategy, data_set, options, batch_size, start_step=at.step),
                evaluate=Evaluator(strategy, model),
                held_out=HeldOut.of(data_set, strategy, global_batch_size=batch_size),
                fill=mask_filling.Filler(strategy, model, filled, data_set.tokenizer, top_k=5),
                learning_rate=lambda step: float(schedule(step)),
                progress=progress,
                workers=together,
                check_lock=check_lock,
                step=at.step,
                evaluations=list(at.evaluations),
                saved=checkpoint.path_of(kept, at.step) if at.step else "",
            )
            signal = session.go(lambda: stopped() or noticed(), on_steps)
            together.meet()  # by then the chief has saved
            if signal:
                progress.say(f"saved {session.saved}; run the same command again to continue after step {session.step}")
                return 128 + signal

        if place.leads:
            try:
                check_lock()
                saved, state = export.choose(kept, which="best")
                checkpoint.restore(checkpoint.named(model), state, name=checkpoint.path_of(kept, saved.step))
                export.write(
                    model,
                    runs.export(options.run_dir),
                    artifact=data_set.tokenizer,
                    manifest=data_set.manifest,
                    saved=saved,
                    example=example,
                )
            except KeyboardInterrupt:  # the export may be whole: signals wait while its files get their names
                last = Checkpoint(session.step, run, tuple(session.evaluations))
                if export.is_final(runs.export(options.run_dir), last):
                    say(_finished(options, example))
                else:
                    say(f"all {options.train_steps} steps are saved; run the same command again to export the model")
                raise
            seconds = time.monotonic() - began
            print(conclusion(options, session.evaluations, exported=saved.step, seconds=seconds, example=example))
            if filled:  # by the model that was exported
                print(mask_filling.table(session.fill()[0]))
        together.meet()  # nobody leaves before the chief has written, whom that would disturb
        return 0


def introduction(
    options: TrainOptions, data_set: DataSet, model: keras.Model, strategy: tf.distribute.Strategy, batch_size: int
) -> str:
    """Return what to know before the first step: all sizes, and one masked example as it will be learnt."""
    made = data_set.manifest
    train_examples, length = made.examples("train"), data_set.max_seq_length
    filled = made.tokens("train") / (train_examples * length)
    steps = train_examples / batch_size
    return "\n".join(
        (
            f"data     {data_set.folder}: {train_examples:,} sequences of {length} tokens ({filled:.1%} filled), "
            f"{made.examples(HELD_OUT):,} held out" + (f"; {SYNTHETIC}" if made.data.synthetic else ""),
            f"model    {options.model}: {model.count_params():,} parameters, {options.dtype}, "
            f"on {strategy.num_replicas_in_sync} {accelerator.kind()}",
            f"step     {batch_size} sequences, {batch_size * length * filled:,.0f} tokens; {steps:,.1f} steps an "
            f"epoch; {options.train_steps:,} steps, {options.train_steps / steps:,.2f} epochs",
            f"example  {_example(data_set, options)}",
        )
    )


def conclusion(
    options: TrainOptions, evaluations: Sequence[Evaluation], *, exported: int, seconds: float, example: str
) -> str:
    """Return what was made, what it is worth, and what to do next."""
    worth, chosen = "held-out: nothing was, so what the model is worth on text it has not seen is unknown", "last"
    if evaluations:
        first, last = evaluations[0], evaluations[-1]
        worth = (
            f"held-out, step {first.step} -> {last.step}: loss {first.loss:.4f} -> {last.loss:.4f}, perplexity "
            f"{first.perplexity:,.2f} -> {last.perplexity:,.2f}, accuracy {first.accuracy:.1%} -> {last.accuracy:.1%}"
        )
        chosen = "best on the held-out split"
    return "\n".join(
        (
            worth,
            f"{duration(seconds)} in all; exported the model after step {exported}, the {chosen}",
            _next(options, example),
        )
    )


def _others(options: TrainOptions, place: Place) -> str:
    """Return what other machines take part."""
    if not place.alone:
        return "another worker"
    return lost.host_of(options.tpu)


def _saved(run_dir: str) -> str:
    """Return what is left of a run that has ended before its time."""
    saved = checkpoint.paths(runs.checkpoints(run_dir))
    return f"The run is saved up to step {checkpoint.step_of(saved[-1])}" if saved else "Nothing had been saved yet"


@contextlib.contextmanager
def _room_explained(run_dir: str) -> Iterator[None]:
    """Say what is saved, and what to do, where the disk is full."""
    try:
        yield
    except Full as error:
        again = "run the same command again"
        if checkpoint.paths(runs.checkpoints(run_dir)):
            again += " to continue from there"
        raise RemaskError(f"{error.said}. {_saved(run_dir)}; {error.hint}, then {again}") from error


def _kept(run_dir: str, place: Place) -> str:
    """Return what is left of a run that others have left, and what to do."""
    kept = _saved(run_dir)
    if not place.alone:
        return f"{kept}; start the same command again, on all workers, to continue from there"
    return f"{kept}; run the same command again to continue from there: {lost.IT_BEGINS}"


def _nothing(line: str) -> None:
    """Say nothing: another worker does."""


def _progress(options: TrainOptions, at: Checkpoint, check_lock: Callable[[], None]) -> Progress:
    return Progress(
        options.run_dir,
        start_step=at.step,
        train_steps=options.train_steps,
        evaluated=[each.step for each in at.evaluations],
        check_lock=check_lock,
    )


def _finished(options: TrainOptions, example: str) -> str:
    return f"{options.run_dir}: this run is finished, after {options.train_steps} steps\n{_next(options, example)}"


def _next(options: TrainOptions, example: str) -> str:
    command = f"make fill-mask {make_option('RUN', options.run_dir)} {make_option('TEXT', example)}"
    return f"model    {runs.export(options.run_dir)}\ntry      {command}"


def _train_batches(
    strategy: tf.distribute.Strategy, data_set: DataSet, options: TrainOptions, batch_size: int, *, start_step: int
) -> Iterator[Batch]:
    if start_step == options.train_steps:  # only the export was missing
        return iter(())
    batches = functools.partial(
        train_batches,
        data_set,
        global_batch_size=batch_size,
        start_step=start_step,
        train_steps=options.train_steps,
        seed=options.seed,
        masking=_masking(options),
        shuffle_examples=options.shuffle_examples,
    )
    return iter(dealt(strategy, lambda share: batches(share=share)))


def _masking(options: TrainOptions) -> Masking:
    return Masking(rate=options.mask_rate, whole_word=options.whole_word)


def _example(data_set: DataSet, options: TrainOptions) -> str:
    """Return a sequence of the train split as the first epoch masks it, with what is to be found."""
    ((input_ids, example_id),) = first(data_set, "train", 1)
    row = masked_row(data_set, input_ids, example_id, seed=options.seed, epoch=0, masking=_masking(options))
    return rendered(data_set, row["input_ids"], row)
