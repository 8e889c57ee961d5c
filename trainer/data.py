"""From a data set to masked batches: the tf.data chain, which reads from top to bottom in `train_batches`.

The order of an epoch is a function of (seed, epoch, manifest). Its shards are permuted and taken in groups; the shards
of a group are read together and its sequences permuted whole. A shard holds a random sample of the corpus, sorted by a
hash, so neighbours in the corpus are not neighbours here. The stream of epochs is cut into batches without regard to
their borders, and so the state of the input is one number, the step: to resume, whole groups are passed over by the
manifest's counts, and at most one is read again.

There is no Python in the pipeline: it runs as well on the hosts of a remote TPU.
"""

import functools
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, count, islice
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from records.manifest import Shard
from records.reader import CHANGED, DataSet, parse
from trainer import randomness
from trainer.masking import Masking, Vocabulary, mask_tokens

EVAL_SEED, EVAL_EPOCH = 0, 2**31 - 1
"""Evaluation masks are always these, at 15 %: losses compare across steps, runs and machines."""

_PARSE_BLOCK = 2048  # records parsed at once
# Fixed: what TensorFlow would choose depends on the machine, and the order on what it chooses.
_FILES_AT_ONCE = 16
_READ_BYTES = 4 << 20  # asked of the file system at once


class Group(NamedTuple):
    """Shards that are read and shuffled together, in one epoch."""

    epoch: int
    shards: tuple[int, ...]  # numbers of the shards in the manifest
    skip: int  # sequences at its head that an earlier run has consumed


def train_batches(
    data_set: DataSet,
    *,
    global_batch_size: int,
    start_step: int,
    train_steps: int,
    seed: int,
    masking: Masking,
    shuffle_examples: int,
) -> tf.data.Dataset:
    """Return the batches of steps `start_step` to `train_steps`, masked.

    Args:
        data_set: what to read; its train split must not be empty.
        global_batch_size: B, over all replicas.
        start_step: steps that are done already.
        train_steps: steps of the whole run.
        seed: of the order and the masks.
        masking: how much is masked, and how.
        shuffle_examples: sequences that are shuffled together, at least; two such groups are in memory at a time.

    Returns:
        A dataset of `train_steps - start_step` dictionaries as `trainer.masking.mask_tokens` returns them, of static
        shapes.
    """
    shards = data_set.manifest.data.splits["train"]
    paths = tf.constant([data_set.path(shard.file) for shard in shards])
    counts = tf.constant([shard.examples for shard in shards])
    needed = (train_steps - start_step) * global_batch_size
    plan = list(reading_plan(shards, seed, shuffle_examples, start=start_step * global_batch_size, examples=needed))
    vocabulary = Vocabulary.of(data_set.tokenizer)

    def read_group(epoch: tf.Tensor, numbers: tf.Tensor, skip: tf.Tensor) -> tf.data.Dataset:
        numbers = tf.boolean_mask(numbers, numbers >= 0)
        files = tf.data.Dataset.from_tensor_slices(tf.gather(paths, numbers))
        sequences = _sequences(files, data_set).rebatch(_largest_group(shards, shuffle_examples))
        group = sequences.apply(tf.data.experimental.assert_cardinality(1))
        whole = group.map(functools.partial(_checked, tf.reduce_sum(tf.gather(counts, numbers))))
        return whole.map(functools.partial(_shuffled, seed, epoch, skip))

    def masked(input_ids: tf.Tensor, example_id: tf.Tensor, epoch: tf.Tensor) -> dict[str, tf.Tensor]:
        return mask_tokens(input_ids, example_id, seed=seed, epoch=epoch, vocabulary=vocabulary, masking=masking)

    return (
        tf.data.Dataset.from_tensor_slices(_columns(plan))
        .flat_map(read_group)
        .prefetch(1)  # the next group is read and shuffled while this one is consumed
        .rebatch(global_batch_size, drop_remainder=True)
        .map(_fixed(global_batch_size, data_set.max_seq_length), num_parallel_calls=tf.data.AUTOTUNE)
        .map(masked, num_parallel_calls=tf.data.AUTOTUNE)
        .take(train_steps - start_step)
        .apply(tf.data.experimental.assert_cardinality(train_steps - start_step))
        .prefetch(tf.data.AUTOTUNE)
        .with_options(_options())
    )


def eval_batches(data_set: DataSet, *, global_batch_size: int, split: str = "validation") -> tf.data.Dataset:
    """Return a whole split, masked at 15 % with the fixed evaluation masks.

    The last batch is filled up with rows of zeros, which have nothing to predict: their `masked_lm_weights` are 0. So
    shapes are static and no sequence is left out.
    """
    paths = [data_set.path(shard.file) for shard in data_set.manifest.data.splits[split]]
    files = tf.data.Dataset.from_tensor_slices(tf.constant(paths, tf.string))
    vocabulary = Vocabulary.of(data_set.tokenizer)

    def masked(input_ids: tf.Tensor, example_id: tf.Tensor, epoch: tf.Tensor) -> dict[str, tf.Tensor]:
        return mask_tokens(input_ids, example_id, seed=EVAL_SEED, epoch=epoch, vocabulary=vocabulary)

    def filled(input_ids: tf.Tensor, example_id: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        missing = global_batch_size - tf.shape(input_ids)[0]
        return (
            tf.pad(input_ids, [[0, missing], [0, 0]]),
            tf.pad(example_id, [[0, missing]]),
            tf.fill([global_batch_size], EVAL_EPOCH),
        )

    return (
        _sequences(files, data_set)
        .rebatch(global_batch_size)
        .map(filled, num_parallel_calls=tf.data.AUTOTUNE)
        .map(_fixed(global_batch_size, data_set.max_seq_length), num_parallel_calls=tf.data.AUTOTUNE)
        .map(masked, num_parallel_calls=tf.data.AUTOTUNE)
        .apply(tf.data.experimental.assert_cardinality(-(-data_set.manifest.examples(split) // global_batch_size)))
        .prefetch(tf.data.AUTOTUNE)
        .with_options(_options())
    )


def reading_plan(
    shards: Sequence[Shard], seed: int, shuffle_examples: int, *, start: int, examples: int
) -> Iterator[Group]:
    """Yield the groups to read for `examples` sequences from the `start`-th of the stream of epochs on.

    >>> two = [Shard("a", 3, 3, 9, 99, ""), Shard("b", 3, 3, 9, 99, "")]
    >>> list(reading_plan(two, 0, 1, start=7, examples=4))
    [Group(epoch=1, shards=(1,), skip=1), Group(epoch=1, shards=(0,), skip=0)]
    """
    first_epoch, position = divmod(start, sum(shard.examples for shard in shards))
    for epoch in count(first_epoch):
        groups = list(_groups(shards, seed, shuffle_examples, epoch))
        sizes = [sum(shards[number].examples for number in group) for group in groups]
        for group, size, end in zip(groups, sizes, accumulate(sizes), strict=True):
            if examples <= 0:
                return
            if end > position:
                skip = max(0, position - (end - size))
                examples -= size - skip
                yield Group(epoch, group, skip)
        position = 0


def _groups(shards: Sequence[Shard], seed: int, shuffle_examples: int, epoch: int) -> Iterator[tuple[int, ...]]:
    """Yield the shards of an epoch in their order, as many together as hold `shuffle_examples` sequences on average."""

    def place(number: int) -> bytes:
        return hashlib.blake2b(f"order {seed} {epoch} {shards[number].file}".encode(), digest_size=16).digest()

    order = iter(sorted(range(len(shards)), key=place))
    while group := tuple(islice(order, _shards_together(shards, shuffle_examples))):
        yield group


def _shards_together(shards: Sequence[Shard], shuffle_examples: int) -> int:
    average = sum(shard.examples for shard in shards) / len(shards)
    return min(len(shards), math.ceil(shuffle_examples / average))


def _largest_group(shards: Sequence[Shard], shuffle_examples: int) -> int:
    """Return what no group's size exceeds."""
    sizes = sorted((shard.examples for shard in shards), reverse=True)
    return sum(sizes[: _shards_together(shards, shuffle_examples)])


def _columns(plan: Sequence[Group]) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Return a plan as three arrays: epochs `[N]`, shard numbers `[N, G]` filled up with -1, and skips `[N]`."""
    numbers = np.full((len(plan), max((len(group.shards) for group in plan), default=0)), -1, np.int32)
    for row, group in zip(numbers, plan, strict=True):
        row[: len(group.shards)] = group.shards
    epochs, skips = np.array([(group.epoch, group.skip) for group in plan], np.int32).reshape(-1, 2).T
    return epochs, numbers, skips


def _sequences(files: tf.data.Dataset, data_set: DataSet) -> tf.data.Dataset:
    """Return blocks of `(input_ids, example_id)` of several files at once, in an order that is always the same."""

    def records(file: tf.Tensor) -> tf.data.Dataset:
        return tf.data.TFRecordDataset(file, data_set.compression, _READ_BYTES).batch(_PARSE_BLOCK)

    blocks = files.interleave(records, cycle_length=_FILES_AT_ONCE, num_parallel_calls=tf.data.AUTOTUNE)
    return blocks.map(
        lambda block: parse(block, max_seq_length=data_set.max_seq_length), num_parallel_calls=tf.data.AUTOTUNE
    )


def _checked(expected: tf.Tensor, input_ids: tf.Tensor, example_id: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Let a group pass that is as large as the manifest says."""
    with tf.control_dependencies([tf.debugging.assert_equal(tf.size(example_id), expected, CHANGED)]):
        return tf.identity(input_ids), tf.identity(example_id)


def _shuffled(
    seed: int, epoch: tf.Tensor, skip: tf.Tensor, input_ids: tf.Tensor, example_id: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Permute a group by a hash of (seed, epoch, example id), and drop what is done already."""
    high, low = randomness.keys("order", seed, epoch=epoch, example_id=example_id)
    # 63 bits, so that the order is that of the hash alone and not, where hashes tie, the order of reading.
    place = tf.bitwise.left_shift(tf.cast(high, tf.int64), 31) | tf.cast(randomness.positive(low), tf.int64)
    order = tf.argsort(place)[skip:]
    return tf.gather(input_ids, order), tf.gather(example_id, order), tf.fill(tf.shape(order), epoch)


def _fixed(global_batch_size: int, max_seq_length: int) -> Callable[..., tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
    """Return a function that says what the pipeline cannot see for itself: the shapes are static."""

    def fixed(input_ids: tf.Tensor, example_id: tf.Tensor, epoch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return (
            tf.ensure_shape(input_ids, [global_batch_size, max_seq_length]),
            tf.ensure_shape(example_id, [global_batch_size]),
            tf.ensure_shape(epoch, [global_batch_size]),
        )

    return fixed


def _options() -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    # A strategy may cut batches for its replicas, but must not deal out files: the plan says which are read, and when.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options
