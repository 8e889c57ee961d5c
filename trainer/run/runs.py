"""The folder of a run: what it was asked to do, and whether it may be continued with what is asked now."""

import dataclasses
import json
from collections.abc import Callable

from records import storage, typed_json
from records.console.command_line import make_option
from records.errors import RemaskError
from trainer.config import CONTINUABLE, ModelConfig, TrainOptions
from trainer.run import checkpoint
from trainer.run.checkpoint import Checkpoint, Run

RUN_JSON, CHECKPOINTS, EXPORT = "run.json", "checkpoints", "export"
CARD = "README.md"
"""The first file of an export to be written, and the last: what it says at first is that the export is not whole."""

UNFINISHED = "**This export is not whole: it was interrupted. Export again.**"


def checkpoints(run_dir: str) -> str:
    """Return the folder of a run's checkpoints."""
    return storage.join(run_dir, CHECKPOINTS)


def export(run_dir: str) -> str:
    """Return where a run exports its model to."""
    return storage.join(run_dir, EXPORT)


def exported(run_dir: str) -> str:
    """Return the folder of the model that a run has exported.

    Raises:
        RemaskError: it has exported none.
    """
    folder = export(run_dir)
    if not is_complete(folder):
        raise RemaskError(
            f"{folder}: no exported model. A run exports one when it ends; until then "
            f"'make export {make_option('RUN', run_dir)}' does"
        )
    return folder


def is_complete(folder: str) -> bool:
    """Say whether an export has been written to its end."""
    path = storage.join(folder, CARD)
    return storage.exists(path) and UNFINISHED.encode() not in storage.read_bytes(path)


def resume(
    options: TrainOptions, *, manifest_digest: str, say: Callable[[str], None]
) -> tuple[Checkpoint, checkpoint.State] | None:
    """Read the newest checkpoint of the run that `options` name; None where there is none yet.

    A run that ended before its first checkpoint, for whatever reason, has done nothing that could be continued: it is
    begun anew, with whatever options.

    Raises:
        RemaskError: the run has other options or other data, its newest checkpoint cannot be read or all are damaged;
            it has some and no `run.json`, or an exported model and none.
    """
    run = _begun(options.run_dir)
    if run is None:
        return None
    check_continues(options.run_dir, run, options=options, manifest_digest=manifest_digest)
    latest = checkpoint.latest(checkpoints(options.run_dir), say=say)
    if latest:  # each checkpoint says it, too, and its weights are those of what that says
        check_continues(options.run_dir, latest[0].run, options=options, manifest_digest=manifest_digest)
    return latest


def to_resume(run_dir: str, *, say: Callable[[str], None]) -> Checkpoint | None:
    """Return what `resume` would go on from, with the run's own options and data; its state is not read.

    Raises:
        RemaskError: whatever the options are, `resume` would refuse them.
    """
    run = _begun(run_dir)
    if run is None:
        return None
    latest = checkpoint.latest_json(checkpoints(run_dir), say=say)
    if latest:
        check_continues(run_dir, latest.run, options=run.options, manifest_digest=run.manifest)
    return latest


def _begun(run_dir: str) -> Run | None:
    """Return the run in a folder, if it has a checkpoint to go on from.

    Raises:
        RemaskError: there are checkpoints and no `run.json`, or an exported model and no checkpoints.
    """
    if checkpoint.paths(checkpoints(run_dir)):
        return existing(run_dir)
    if is_complete(export(run_dir)):
        raise RemaskError(
            f"{run_dir}: found an exported model and no checkpoints, so this run cannot be continued; give "
            f"another RUN to begin a new one, or remove {run_dir}"
        )
    return None


def load(run_dir: str) -> Run | None:
    """Return the run in a folder; None where there is none.

    Raises:
        RemaskError: `run.json` is damaged.
    """
    path = storage.join(run_dir, RUN_JSON)
    if not storage.exists(path):
        return None
    advice = (
        f"it is damaged, or of another version of remask: copy it again, or remove {run_dir} to start the run again"
    )
    return typed_json.read(Run, storage.read_bytes(path), name=path, advice=advice)


def existing(run_dir: str) -> Run:
    """Return the run in a folder.

    Raises:
        RemaskError: there is none, or `run.json` is damaged, or lost.
    """
    run = load(run_dir)
    if run is None:
        folder = checkpoints(run_dir)
        if found := checkpoint.paths(folder):
            raise RemaskError(
                f"{run_dir}: found checkpoints ({len(found)}) and no {RUN_JSON}; copy that file back, which "
                f"says what they belong to, or remove {folder} to start the run again"
            )
        raise RemaskError(
            f"{run_dir}: no {RUN_JSON}, so this is not a run; make one with 'make train {make_option('RUN', run_dir)}'"
        )
    return run


def begin(
    options: TrainOptions,
    *,
    manifest_digest: str,
    config: ModelConfig,
    global_batch_size: int,
    continued: Checkpoint | None = None,
    writes: bool = True,
) -> Run:
    """Write `run.json`, if this worker `writes`.

    Raises:
        RemaskError: the checkpoint from which the run is `continued` is of another global batch size, since it was
            begun on another number of replicas.
    """
    if continued and continued.run.global_batch_size != global_batch_size:
        raise RemaskError(
            f"{options.run_dir}: holds a run with a global batch of {continued.run.global_batch_size} sequences; with "
            f"the replicas that there are now it would be {global_batch_size}. Continue it on as many replicas as it "
            f"had"
        )
    run = Run(options, manifest_digest, config, global_batch_size)
    if writes:
        content = json.dumps(dataclasses.asdict(run), indent=1, sort_keys=True) + "\n"
        storage.write_bytes(storage.join(options.run_dir, RUN_JSON), content.encode())
    return run


def check_continues(run_dir: str, run: Run, *, options: TrainOptions, manifest_digest: str) -> None:
    """Refuse to continue a run with options, or on data, that contradict it.

    Raises:
        RemaskError: a table of the differences.
    """
    names = [field.name for field in dataclasses.fields(TrainOptions) if field.name not in CONTINUABLE]
    pairs = [(name, getattr(run.options, name), getattr(options, name)) for name in names]
    differences = [(name, has, asked) for name, has, asked in pairs if has != asked]
    if run.manifest != manifest_digest:
        differences.append(("data", f"records with digest {run.manifest[:12]}", manifest_digest[:12]))
    if differences:
        rows = "\n".join(f"  {name}: run has {here}, asked for {wanted}" for name, here, wanted in differences)
        raise RemaskError(
            f"{run_dir}: holds a run that these options contradict:\n{rows}\n"
            f"Give the run's own options to continue it, or another RUN to begin a new one"
        )
