"""What must match before a run begins. No accelerator is touched here: a mismatch costs seconds, not a machine."""

import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterator

import tensorflow as tf

from records import storage
from records.errors import RemaskError
from records.format.manifest import again
from records.format.reader import DataSet, damaged
from trainer.config import GLOBAL_BATCH_SIZE, ModelConfig, TrainOptions
from trainer.input.data import most_memory
from trainer.input.memory import GIB

_LIMITS = {os.strerror(number): number for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE)}
_OF_THE_SYSTEM = re.compile(  # behind where in TensorFlow it happened
    rf"(?:\{{\{{[^{{}}]*\}}\}} )*(.+?); ({'|'.join(map(re.escape, _LIMITS))})(?:\n| \[|$)", re.DOTALL
)


def check_data(data_set: DataSet, config: ModelConfig, *, name: str) -> None:
    """Refuse a data set that a model cannot read.

    (That its format version is known, its shards whole and its tokenizer its own, opening it has checked.)

    Raises:
        RemaskError: sequences longer than the model's positions, or ids beyond its vocabulary.
    """
    folder, made = data_set.folder, data_set.manifest
    if data_set.max_seq_length > config.max_position_embeddings:
        raise RemaskError(
            f"{folder}: max_seq_length is {data_set.max_seq_length}, model {name} has {config.max_position_embeddings} "
            f"positions; make the records again with MAX_SEQ_LENGTH={config.max_position_embeddings} or less"
        )
    if made.data.tokenizer.vocab_size > config.vocab_size:
        raise RemaskError(
            f"{folder}: ids go up to {made.data.tokenizer.vocab_size - 1}, model {name} has a vocab_size of "
            f"{config.vocab_size}; make the records again with that model's tokenizer"
        )


def check_split(data_set: DataSet, split: str) -> None:
    """Refuse a data set in which there is nothing to read for what is to be done.

    Args:
        data_set: the data set.
        split: which is to be trained or evaluated on.

    Raises:
        RemaskError: it is empty.
    """
    if why := data_set.manifest.why_empty(split):
        had = data_set.manifest.data.validation_fraction
        change, fraction = ("smaller", had / 2) if split == "train" else ("larger", min(2 * had, (1 + had) / 2) or 0.05)
        raise RemaskError(
            f"{data_set.folder}: {why}; make the records again from more text, or with a {change} "
            f"validation_fraction: {again(data_set.folder, f'--validation_fraction {fraction:g}')}"
        )


def check_memory(data_set: DataSet, *, shuffle_examples: int, free: int | None) -> None:
    """Refuse a data set of which more is read at once than there is memory for.

    Args:
        data_set: the data set.
        shuffle_examples: sequences that are shuffled together.
        free: bytes of memory that can be had, or None where that is not known.

    Raises:
        RemaskError: the largest group of shards is too large.
    """
    needed = most_memory(data_set, shuffle_examples)
    if free is None or needed <= free:
        return
    shards, folder = data_set.manifest.data.splits["train"], data_set.folder
    fits = shuffle_examples
    while fits and most_memory(data_set, fits) > free:
        fits //= 2
    more = 2 * len(shards) * -(-most_memory(data_set, 1) // max(1, free))  # shards differ in size
    raise RemaskError(
        f"{folder}: to read {shuffle_examples:,} sequences at once, in whole shards, takes up to "
        f"{needed / GIB:,.2f} GiB of memory, of which {free / GIB:,.2f} GiB are free; "
        + (
            f'give ARGS="--shuffle_examples {fits}" or less, or use a machine with more memory'
            if fits
            else f"a single shard is too large: make the records again with more of them, "
            f"{again(folder, f'--num_shards {more}')}, or use a machine with more memory"
        )
    )


@contextlib.contextmanager
def errors_explained(data_set: DataSet, *, saved: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Turn what TensorFlow raises into words for the user: a damaged shard, a full disk, or no memory left.

    Args:
        data_set: that is read.
        saved: says whether the run has a checkpoint, by which its batch is settled.
    """
    try:
        yield
    except tf.errors.OpError as error:
        raise _explained(error, data_set, saved=saved) from error


def _explained(error: tf.errors.OpError, data_set: DataSet, *, saved: Callable[[], bool]) -> Exception:
    """Return an error in words for the user; itself where there are none."""
    if system := _OF_THE_SYSTEM.match(error.message):
        return storage.explained(system[1], OSError(_LIMITS[system[2]], system[2]))
    if isinstance(error, tf.errors.ResourceExhaustedError):
        smaller = "give a smaller global_batch_size"
        if saved():
            smaller = f"continue this run on more devices, or begin another RUN and {smaller}"
        return RemaskError(f"the device has no memory left for a batch of this size; {smaller}")
    shard = _shard_in(error.message, data_set)
    if isinstance(error, tf.errors.PermissionDeniedError) and shard and not storage.is_remote(shard):
        return storage.explained(shard, PermissionError(errno.EACCES, "permission denied"))
    explained = damaged(data_set.folder, error)
    return explained if explained and (shard or not isinstance(error, tf.errors.NotFoundError)) else error


def _shard_in(message: str, data_set: DataSet) -> str:
    """Return the path of the shard that a message names; "" where it names none."""
    paths = (data_set.path(shard.file) for split in data_set.manifest.data.splits.values() for shard in split)
    return next((path for path in paths if path in message), "")


def batch_size(options: TrainOptions, *, replicas: int) -> int:
    """Return the global batch size.

    >>> batch_size(TrainOptions(per_replica_batch_size=16), replicas=8)
    128

    Raises:
        RemaskError: it cannot be dealt out evenly.
    """
    if options.per_replica_batch_size:
        return options.per_replica_batch_size * replicas
    size = options.global_batch_size or GLOBAL_BATCH_SIZE
    check_batch_size(size, replicas=replicas)
    return size


def check_batch_size(global_batch_size: int, *, replicas: int) -> None:
    """Refuse a global batch that cannot be dealt out evenly.

    Raises:
        RemaskError: it is not a multiple of the replicas.
    """
    if global_batch_size % replicas:
        raise RemaskError(
            f"global_batch_size: found {global_batch_size}, expected a multiple of the {replicas} replicas"
        )
