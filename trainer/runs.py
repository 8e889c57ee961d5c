"""The folder of a run: what it was asked to do, and whether it may be continued with what is asked now."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from records import storage
from records.errors import RemaskError
from trainer import checkpoint
from trainer.checkpoint import Checkpoint
from trainer.config import CONTINUABLE, ModelConfig, TrainOptions

RUN_JSON, CHECKPOINTS, EXPORT = "run.json", "checkpoints", "export"
CARD = "README.md"
"""The last file of an export to be written: with it, it is complete."""

Run = Mapping[str, Any]
"""`options`, `manifest` (its digest), `model` (its shape) and `global_batch_size`, as in `run.json`."""


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
            f"{folder}: no exported model. A run exports one when it ends; until then 'make export RUN={run_dir}' does"
        )
    return folder


def is_complete(folder: str) -> bool:
    """Say whether an export has been written to its end."""
    return storage.exists(storage.join(folder, CARD))


def resume(
    options: TrainOptions, *, manifest_digest: str, say: Callable[[str], None]
) -> tuple[Checkpoint, checkpoint.State] | None:
    """Read the newest checkpoint of the run that `options` name; None where there is none yet.

    Raises:
        RemaskError: the run has other options or other data, none of its checkpoints can be read, or it has some and
            no `run.json`.
    """
    run = load(options.run_dir)
    if run is None:
        if found := checkpoint.paths(checkpoints(options.run_dir)):
            raise RemaskError(
                f"{options.run_dir}: found checkpoints ({len(found)}) and no {RUN_JSON}; copy that file back, which "
                f"says what they belong to, or remove {checkpoints(options.run_dir)} to start the run again"
            )
        return None
    check_continues(options.run_dir, run, options=options, manifest_digest=manifest_digest)
    return checkpoint.latest(checkpoints(options.run_dir), say=say)


def describe(options: TrainOptions, *, manifest_digest: str, **more: Any) -> Run:
    """Return what identifies a run, as it will be read from `run.json`: tuples are lists."""
    described: Run = json.loads(
        json.dumps({"options": dataclasses.asdict(options), "manifest": manifest_digest, **more})
    )
    return described


def load(run_dir: str) -> Run | None:
    """Return the run in a folder; None where there is none.

    Raises:
        RemaskError: `run.json` is damaged.
    """
    path = storage.join(run_dir, RUN_JSON)
    if not storage.exists(path):
        return None
    try:
        run = json.loads(storage.read_bytes(path))
        return {key: run[key] for key in ("options", "manifest", "model", "global_batch_size")}
    except (ValueError, KeyError, TypeError):
        raise RemaskError(f"{path}: damaged; remove {run_dir} to start the run again") from None


def existing(run_dir: str) -> Run:
    """Return the run in a folder.

    Raises:
        RemaskError: there is none, or `run.json` is damaged.
    """
    run = load(run_dir)
    if run is None:
        raise RemaskError(f"{run_dir}: no {RUN_JSON}, so this is not a run; make one with 'make train RUN={run_dir}'")
    return run


def begin(
    options: TrainOptions, *, manifest_digest: str, config: ModelConfig, global_batch_size: int, writes: bool = True
) -> Run:
    """Write `run.json`, if this worker `writes`, and check that a run which is there has the same global batch size.

    Raises:
        RemaskError: it has another, since it was begun on another number of replicas.
    """
    earlier = load(options.run_dir)
    if earlier and earlier["global_batch_size"] != global_batch_size:
        raise RemaskError(
            f"{options.run_dir}: holds a run with a global batch of {earlier['global_batch_size']} sequences; with the "
            f"replicas that there are now it would be {global_batch_size}. Continue it on as many replicas as it had"
        )
    run = describe(
        options,
        manifest_digest=manifest_digest,
        model=dataclasses.asdict(config),
        global_batch_size=global_batch_size,
    )
    if writes:
        storage.write_bytes(
            storage.join(options.run_dir, RUN_JSON), (json.dumps(run, indent=1, sort_keys=True) + "\n").encode()
        )
    return run


def check_continues(run_dir: str, run: Run, *, options: TrainOptions, manifest_digest: str) -> None:
    """Refuse to continue a run with options, or on data, that contradict it.

    Raises:
        RemaskError: a table of the differences.
    """
    has, asked = run["options"], describe(options, manifest_digest=manifest_digest)["options"]
    differences = [
        (name, has.get(name, "nothing"), asked[name])
        for name in asked
        if name not in CONTINUABLE and has.get(name) != asked[name]
    ]
    if run["manifest"] != manifest_digest:
        differences.append(("data", f"records with digest {run['manifest'][:12]}", manifest_digest[:12]))
    if differences:
        rows = "\n".join(f"  {name}: run has {here}, asked for {wanted}" for name, here, wanted in differences)
        raise RemaskError(
            f"{run_dir}: holds a run that these options contradict:\n{rows}\n"
            f"Give the run's own options to continue it, or another RUN to begin a new one"
        )
