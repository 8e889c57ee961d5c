"""Checkpoints: model, optimizer, step, what was measured so far, and the run that they belong to.

A checkpoint is a folder, `step-00000200`, of two files. `state.npz` holds every variable; it is a zip archive, so each
has a CRC that reading it checks. `checkpoint.json`, which has a checksum, is written last: a folder without it is no
checkpoint. Both files appear whole or not at all, so nothing that is interrupted leaves a checkpoint that is half
there. The same state gives the same bytes.
"""

import contextlib
import dataclasses
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import google_crc32c
import keras
import numpy as np
from numpy.typing import NDArray

from records import storage, typed_json
from records.errors import Damaged, RemaskError
from trainer.config import ModelConfig, TrainOptions

STATE_NPZ = "state.npz"
CHECKPOINT_JSON = "checkpoint.json"

State = Mapping[str, NDArray[Any]]
_Read = TypeVar("_Read")

# OSError: an archive that leads to a place before its begin; what the disk says itself, storage has explained.
# RuntimeError: one bit of a zip archive's header makes it encrypted, or of a version to come.
_DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
_OPTIMIZER = "optimizer/"
_SHOWN = 6  # variables that do not fit
_REMOVE = "it is damaged: copy the checkpoint again, or remove its folder"
_NAME = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class Run:
    """What a run was asked to do, as `run.json` and each of its checkpoints say."""

    options: TrainOptions
    manifest: str  # digest of the data set's
    model: ModelConfig
    global_batch_size: int


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
    run: Run
    evaluations: tuple[Evaluation, ...]  # all so far, in order of step


@dataclass(frozen=True)
class _Stored:
    """What `checkpoint.json` holds."""

    checkpoint: Checkpoint
    state_crc32c: str  # of `state.npz`, 8 hexadecimal digits
    checksum: str  # CRC-32C of the other two as JSON without blanks, 8 hexadecimal digits

    @classmethod
    def of(cls, checkpoint: Checkpoint, state_crc32c: str) -> "_Stored":
        """Return it with its checksum."""
        said = {"checkpoint": dataclasses.asdict(checkpoint), "state_crc32c": state_crc32c}
        return cls(checkpoint, state_crc32c, _checksum(said))

    def to_json(self) -> str:
        """Return the text of `checkpoint.json`."""
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: bytes, *, name: str) -> "_Stored":
        """Read what `to_json` wrote.

        Raises:
            Damaged: it is something else, or a digit of it has changed.
            RemaskError: an earlier version has written it.
        """
        try:
            said = typed_json.parse(text, name=name, advice=_REMOVE)
            is_earlier = "step" in said and "checksum" not in said
            stored = None if is_earlier else typed_json.read(cls, text, name=name, advice=_REMOVE)
        except RemaskError as error:
            raise Damaged(str(error)) from error
        if stored is None:
            raise RemaskError(
                f"{name}: has no checksum, so an earlier remask has written it, which alone can read it; go on with "
                f"that one, or begin a new run with another RUN="
            )
        found = _checksum({name: value for name, value in said.items() if name != "checksum"})
        if found != stored.checksum:
            raise Damaged(f"{name}: its checksum is {found}, expected {stored.checksum}, which it says; {_REMOVE}")
        return stored


def best(evaluations: Sequence[Evaluation]) -> Evaluation | None:
    """Return the evaluation of lowest loss, the earliest of equals; step 0, the untrained model, is no candidate."""
    return min((each for each in evaluations if each.step > 0), key=lambda each: each.loss, default=None)


def named(model: keras.Model, optimizer: keras.optimizers.Optimizer | None = None) -> dict[str, keras.Variable]:
    """Return the variables of a model, and of its optimizer, by the names under which checkpoints hold them."""
    variables = {f"model/{variable.path}": variable for variable in model.variables}
    if optimizer is not None:
        variables.update({f"{_OPTIMIZER}{variable.path}": variable for variable in optimizer.variables})
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
    stored = _Stored.of(checkpoint, storage.crc32c(storage.join(path, STATE_NPZ)))
    storage.write_bytes(storage.join(path, CHECKPOINT_JSON), stored.to_json().encode())
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
    """Return the checkpoints below `folder`, oldest first; what is half there is not among them.

    Raises:
        RemaskError: the folder cannot be read. (That is not to be taken for a folder without checkpoints.)
    """
    return [path for path in _folders(folder) if CHECKPOINT_JSON in storage.files(path)]


def read_json(path: str) -> Checkpoint:
    """Read what a checkpoint says of itself.

    Raises:
        Damaged: it is damaged, or says another step than the name of its folder.
        RemaskError: it cannot be read.
    """
    return _stored(path).checkpoint


def read(path: str) -> tuple[Checkpoint, State]:
    """Read a checkpoint, whole and checked, into memory.

    Raises:
        Damaged: it is damaged, or its two files do not belong together.
        RemaskError: it cannot be read, which says nothing of what it holds.
    """
    stored, file = _stored(path), storage.join(path, STATE_NPZ)
    if STATE_NPZ not in storage.files(path):
        raise Damaged(f"{file}: missing; {_REMOVE}")
    if (found := storage.crc32c(file)) != stored.state_crc32c:
        raise Damaged(f"{file}: its crc32c is {found}, expected {stored.state_crc32c}; {_REMOVE}")
    try:
        with storage.open_read(file) as opened, np.load(opened, allow_pickle=False) as archive:
            return stored.checkpoint, {name: archive[name] for name in archive.files}
    except _DAMAGE as error:
        raise Damaged(f"{file}: {error}; {_REMOVE}") from error


def _stored(path: str) -> _Stored:
    name = storage.join(path, CHECKPOINT_JSON)
    found = _Stored.from_json(storage.read_bytes(name), name=name)
    step = found.checkpoint.step
    if path_of(path.rpartition("/")[0], step) != path:
        raise Damaged(f"{name}: it is that of step {step}, expected {step_of(path)} as its folder says; {_REMOVE}")
    return found


def latest(folder: str, *, say: Callable[[str], None]) -> tuple[Checkpoint, State] | None:
    """Read the newest checkpoint that is whole; None where there is none at all.

    Args:
        folder: of the checkpoints.
        say: is told of each that is damaged.

    Raises:
        RemaskError: there are checkpoints, and all of them are damaged; or one cannot be read, for whatever else
            reason: to go on from the one before would be to do again what is done.
    """
    return _newest(folder, read, say=say)


def latest_json(folder: str, *, say: Callable[[str], None]) -> Checkpoint | None:
    """Read what the newest checkpoint says of itself, as `latest` does, but without its state."""
    return _newest(folder, read_json, say=say)


def _newest(folder: str, read_at: Callable[[str], _Read], *, say: Callable[[str], None]) -> _Read | None:
    found = paths(folder)
    for path in reversed(found):
        try:
            return read_at(path)
        except Damaged as error:
            say(f"WARNING: {error}. Trying the checkpoint before")
    if found:
        raise RemaskError(f"{folder}: all {len(found)} checkpoints are damaged; remove it to start the run again")
    return None


def restore(variables: Mapping[str, keras.Variable], state: State, *, name: str) -> None:
    """Give variables the values of a checkpoint; in the scope of the strategy that made them.

    Args:
        variables: those of the model, or of the model and its optimizer, as `named` names them.
        state: as `read` returns it; what it holds of the optimizer is left alone where that is not asked for.
        name: path of the checkpoint.

    Raises:
        RemaskError: the checkpoint is that of another model; no variable is changed then.
    """
    alone = not any(key.startswith(_OPTIMIZER) for key in variables)
    held = {key: _described(value) for key, value in state.items() if not (alone and key.startswith(_OPTIMIZER))}
    expected = {key: _described(variable) for key, variable in variables.items()}
    unfit = [
        f"{key}: expected {expected.get(key, 'nothing')}, found {held.get(key, 'nothing')}"
        for key in sorted(held.keys() | expected.keys())
        if held.get(key) != expected.get(key)
    ]
    if unfit:
        shown = "".join(f"\n  {line}" for line in unfit[:_SHOWN])
        more = f"\n  .. and {len(unfit) - _SHOWN} more" if len(unfit) > _SHOWN else ""
        raise RemaskError(
            f"{name}: {len(unfit)} of its variables do not fit the model:{shown}{more}\n"
            f"It belongs to another model, or to another version of remask: give another RUN, or remove this checkpoint"
        )
    for key, variable in variables.items():
        variable.assign(state[key])


def prune(folder: str, *, newest: int, keep: int, best_step: int | None) -> None:
    """Remove the checkpoints up to step `newest` but the last `keep` and that of `best_step`.

    What interrupted runs have left half there goes, too. What is not ours stays, and so does a checkpoint that is of a
    later step, or does not say what it is: it may be worth something yet.
    """
    whole = [path for path in paths(folder) if step_of(path) <= newest and _is_whole(path)]
    kept = {*whole[-keep:], *([] if best_step is None else [path_of(folder, best_step)])}
    for path in whole:
        if path not in kept:
            storage.remove(storage.join(path, CHECKPOINT_JSON))  # from here on it is no checkpoint
    for path in _folders(folder):
        storage.remove_partial(path)
        if set(storage.files(path)) <= {STATE_NPZ} and not storage.folders(path):
            storage.remove(path)


def _is_whole(path: str) -> bool:
    """Say whether a checkpoint says what it is."""
    with contextlib.suppress(RemaskError):
        read_json(path)
        return True
    return False


def _folders(folder: str) -> list[str]:
    """Return the folders below `folder` that have a checkpoint's name, in the order of their steps."""
    found = [storage.join(folder, name) for name in storage.folders(folder) if _NAME.fullmatch(name)]
    return sorted(found, key=step_of)


def _checksum(said: Mapping[str, Any]) -> str:
    """Return the CRC-32C of what a checkpoint says of itself, 8 hexadecimal digits."""
    text = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return f"{google_crc32c.value(text.encode()):08x}"


def _described(array: Any) -> str:
    """Return type and shape of an array or a variable.

    >>> _described(np.zeros((3, 2), np.float32))
    'float32 [3, 2]'
    """
    return f"{array.dtype} {list(array.shape)}"
