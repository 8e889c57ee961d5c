"""Checkpoints: model, optimizer, step, what was measured so far, and the run that they belong to.

A checkpoint is a folder, `step-00000200`, of two files. `state.npz` holds every variable; it is a zip archive, so each
has a CRC that reading it checks. `checkpoint.json` is written last: a folder without it is no checkpoint. Both files
appear whole or not at all, so nothing that is interrupted leaves a checkpoint that is half there. The same state gives
the same bytes.
"""

import dataclasses
import glob
import json
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from records import storage
from records.errors import RemaskError

STATE_NPZ = "state.npz"
CHECKPOINT_JSON = "checkpoint.json"

State = Mapping[str, NDArray[Any]]

# RuntimeError: one bit of a zip archive's header makes it encrypted, or of a version to come.
_DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Evaluation:
    """What a model is worth on the held-out split after a number of steps."""

    step: int
    loss: float  # mean cross-entropy of a masked token, in nats
    perplexity: float
    accuracy: float
    top5_accuracy: float
    tokens: int  # masked tokens that were predicted


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint says of itself."""

    step: int
    run: Mapping[str, Any]  # as in run.json
    evaluations: tuple[Evaluation, ...]  # all so far, in order of step

    def to_json(self) -> str:
        """Return the text of `checkpoint.json`."""
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: bytes) -> "Checkpoint":
        """Read what `to_json` wrote."""
        read = json.loads(text)
        return cls(read["step"], read["run"], tuple(Evaluation(**each) for each in read["evaluations"]))


def best(evaluations: Sequence[Evaluation]) -> Evaluation | None:
    """Return the evaluation of lowest loss, the earliest of equals; step 0, the untrained model, is no candidate."""
    return min((each for each in evaluations if each.step > 0), key=lambda each: each.loss, default=None)


def named(model: keras.Model, optimizer: keras.optimizers.Optimizer | None = None) -> dict[str, keras.Variable]:
    """Return the variables of a model, and of its optimizer, by the names under which checkpoints hold them."""
    variables = {f"model/{variable.path}": variable for variable in model.variables}
    if optimizer is not None:
        variables.update({f"optimizer/{variable.path}": variable for variable in optimizer.variables})
    return variables


def save(folder: str, checkpoint: Checkpoint, variables: Mapping[str, keras.Variable]) -> str:
    """Write a checkpoint below `folder`, one variable in memory at a time, and return its path.

    Raises:
        FloatingPointError: a value is no finite number; such a checkpoint is not kept.
    """
    path = path_of(folder, checkpoint.step)
    state = storage.open_write(storage.join(path, STATE_NPZ), in_parts=True)
    with state as file, zipfile.ZipFile(file, "w") as archive:
        for name, variable in variables.items():
            # A ZipInfo of its own, whose date is fixed: the archive is a function of the state alone.
            value = np.asarray(variable.numpy())
            if not np.isfinite(value).all():
                raise FloatingPointError(f"{name} holds values that are no finite numbers")
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, value, allow_pickle=False)
    storage.write_bytes(storage.join(path, CHECKPOINT_JSON), checkpoint.to_json().encode())
    return path


def path_of(folder: str, step: int) -> str:
    """Return where the checkpoint of a step is, or would be.

    >>> path_of("run/checkpoints", 200)
    'run/checkpoints/step-00000200'
    """
    return storage.join(folder, f"step-{step:08}")


def step_of(path: str) -> int:
    """Return the step of a checkpoint, from its path.

    >>> step_of("run/checkpoints/step-00000200")
    200
    """
    return int(path.rpartition("-")[2])


def paths(folder: str) -> list[str]:
    """Return the checkpoints below `folder`, oldest first; what is half there is not among them."""
    return [path.rpartition("/")[0] for path in _files(folder, CHECKPOINT_JSON)]


def read_json(path: str) -> Checkpoint:
    """Read what a checkpoint says of itself."""
    return Checkpoint.from_json(storage.read_bytes(storage.join(path, CHECKPOINT_JSON)))


def read(path: str) -> tuple[Checkpoint, State]:
    """Read a checkpoint, whole and checked, into memory.

    Raises:
        RemaskError: it is damaged.
    """
    try:
        checkpoint = read_json(path)
        with (
            storage.open_read(storage.join(path, STATE_NPZ)) as file,
            np.load(file, allow_pickle=False) as archive,
        ):
            return checkpoint, {name: archive[name] for name in archive.files}
    except _DAMAGE as error:
        raise RemaskError(f"{path}: damaged ({error})") from error


def latest(folder: str, *, say: Callable[[str], None]) -> tuple[Checkpoint, State] | None:
    """Read the newest checkpoint that can be read; None where there is none at all.

    Args:
        folder: of the checkpoints.
        say: is told of each that is damaged.

    Raises:
        RemaskError: there are checkpoints, and all of them are damaged.
    """
    found = paths(folder)
    for path in reversed(found):
        try:
            return read(path)
        except RemaskError as error:
            say(f"{error}; trying the one before")
    if found:
        raise RemaskError(
            f"{folder}: none of its {len(found)} checkpoints can be read; remove the folder to start the run again"
        )
    return None


def restore(variables: Mapping[str, keras.Variable], state: State, *, name: str) -> None:
    """Give variables the values of a checkpoint; in the scope of the strategy that made them.

    Raises:
        RemaskError: the checkpoint is that of another model; no variable is changed then.
    """
    for key, variable in variables.items():
        found = state[key].shape if key in state else "nothing"
        if found != tuple(variable.shape):
            raise RemaskError(f"{name}: {key} is {found}, the model expects {tuple(variable.shape)}")
    for key, variable in variables.items():
        variable.assign(state[key])


def prune(folder: str, *, newest: int, keep: int, best_step: int | None) -> None:
    """Remove all checkpoints but the last `keep` up to step `newest` and that of `best_step`.

    Those of later steps, which were there and could not be read when the run was continued, and what interrupted runs
    left go, too.
    """
    complete = paths(folder)
    up_to_newest = [path for path in complete if path <= path_of(folder, newest)]
    kept = {*up_to_newest[-keep:], *([] if best_step is None else [path_of(folder, best_step)])}
    for path in complete:
        if path not in kept:
            storage.remove(storage.join(path, CHECKPOINT_JSON))  # from here on it is no checkpoint
            storage.remove(path)
    for file in _files(folder, "*"):
        path = file.rpartition("/")[0]
        if path not in complete:
            storage.remove(path)


def _files(folder: str, name: str) -> list[str]:
    """Return the files of that name, which may be a pattern, of all checkpoints; the folder's own name is none."""
    return storage.matching(storage.join(glob.escape(folder), "step-*", name))
