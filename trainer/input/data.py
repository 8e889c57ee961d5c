"""From a data set to masked batches: the tf.data chain, which reads from top to bottom in `train_batches`.

The order of an epoch is a function of (seed, epoch, manifest). Its shards are permuted and taken in groups; the shards
of a group are read together and its sequences permuted whole. A shard holds a random sample of the corpus, sorted by a
hash, so neighbours in the corpus are not neighbours here. The stream of epochs is cut into batches without regard to
their borders, and so the state of the input is one number, the step: to resume, whole groups are passed over by the
manifest's counts, and at most one is read again.

Where several hosts feed the replicas, each follows the same plan and, before anything is masked, takes its own rows of
each global batch: so the order is the same whatever the hosts. That a host reads its own shards alone cannot be had as
well. Its rows of a batch would have to come from these, so another number of hosts would make other batches;
and were shards dealt out to a fixed number of lanes instead, each lane would end an epoch at a step of its own, or with
batches of another shape. The price is to read, to sum and to sort what others take: 0.4 us of a CPU for a sequence of
128, of which one's own take 3.1. Where 100 chips take 1,500 sequences a second each, that is 6 % of one core of a host,
and 68 MB a second of reading.

What a host holds in memory is bounded (`most_memory`). Where G is the largest group, in bytes of its records, training
takes at most 4 G: a group that is consumed; one that is read, twice while its shards are put together or unpacked; and
what the allocator keeps of it. To this come, twice, the shards that evaluation reads at once, and the blocks being
masked.

There is no Python in the pipeline: it runs as well on the hosts of a remote TPU.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import tensorflow as tf

from records.format.frame import Frame
from records.format.manifest import Shard
from records.format.reader import DataSet, example_ids, parse, read_shard
from trainer.input import randomness
from trainer.input.masking import Masking, Vocabulary, mask_tokens

EVAL_SEED, EVAL_EPOCH = 0, 2**31 - 1
"""Evaluation masks are always these, at 15 %: losses compare across steps, runs and machines."""

Batch = dict[str, tf.Tensor]

HELD_OUT = "validation"

FILES_AT_ONCE = 16
_BLOCK = 2048  # sequences masked at once, whatever the batch: of fewer, the cost of each operation as such shows
_MASKED_BYTES = 32  # that masking holds for each token of a block
_GRAPH_BYTES = 64 << 20  # of the pipelines themselves


class Share(NamedTuple):
    """What a host takes of each global batch: the `host`-th of `hosts` equal parts, cut again for its replicas."""

    host: int = 0
    hosts: int = 1
    replicas: int = 1  # of this host

    @classmethod
    def of(cls, context: tf.distribute.InputContext) -> "Share":
        """Return the share of the host for which a strategy makes a dataset."""
        hosts = context.num_input_pipelines
        return cls(context.input_pipeline_id, hosts, context.num_replicas_in_sync // hosts)

    def rows(self, global_batch_size: int) -> int:
        """Return how many rows of a global batch are this host's."""
        return global_batch_size // self.hosts


class Group(NamedTuple):
    """Shards that are read and shuffled together, in one epoch. All of them are int64 tensors."""

    epoch: tf.Tensor
    begins: tf.Tensor  # where its first sequence stands in the stream of epochs
    shards: tf.Tensor  # [G], numbers of the shards in the manifest, filled up with -1
    skip: tf.Tensor  # sequences at its head that an earlier run has consumed


def dealt(strategy: tf.distribute.Strategy, batches: Callable[[Share], tf.data.Dataset]) -> Iterable[Batch]:
    """Deal out global batches to the replicas of a strategy, by way of the hosts that these belong to.

    Args:
        strategy: whose replicas are to get them.
        batches: makes the dataset of a host; it is called once for each host that this process directs, with the
            operations that are made meanwhile on that host.
    """
    return strategy.distribute_datasets_from_function(lambda context: batches(Share.of(context)))


@dataclass(frozen=True)
class HeldOut:
    """The held-out split in global batches, dealt out to the replicas of a strategy; read anew at each iteration.

    There are none where nothing is held out.
    """

    batches: Iterable[Batch]
    count: int

    @classmethod
    def of(cls, data_set: DataSet, strategy: tf.distribute.Strategy, *, global_batch_size: int) -> "HeldOut":
        """Return the split of a data set."""
        made = functools.partial(eval_batches, data_set, global_batch_size=global_batch_size)
        count = -(-data_set.manifest.examples(HELD_OUT) // global_batch_size)
        return cls(dealt(strategy, lambda share: made(share=share)) if count else (), count)

    def __iter__(self) -> Iterator[Batch]:
        """Give each batch, and do not ask for one more: on another machine the end is an error that comes too late."""
        return islice(iter(self.batches), self.count)


def train_batches(
    data_set: DataSet,
    *,
    global_batch_size: int,
    start_step: int,
    train_steps: int,
    seed: int,
    masking: Masking,
    shuffle_examples: int,
    share: Share = Share(),
) -> tf.data.Dataset:
    """Return the batches of steps `start_step` to `train_steps`, masked.

    Args:
        data_set: what to read; its train split must not be empty.
        global_batch_size: B, over all replicas.
        start_step: steps that are done already.
        train_steps: steps of the whole run.
        seed: of the order and the masks.
        masking: how much is masked, and how.
        shuffle_examples: sequences that are shuffled together, as many whole shards as hold them on average. Of the
            bytes of such a group up to four times as many are in memory (`most_memory`).
        share: what of them is wanted; all by default.

    Returns:
        A dataset of dictionaries as `trainer.input.masking.mask_tokens` returns them, of static shapes: one for each
        step, or each replica's of the first step, then those of the next.
    """
    shards = data_set.manifest.data.splits["train"]
    plan = reading_plan(
        shards,
        seed=seed,
        shuffle_examples=shuffle_examples,
        start=start_step * global_batch_size,
        end=train_steps * global_batch_size,
    )
    read, largest = shard_reader(data_set, "train"), _largest_group(shards, shuffle_examples)
    masked = _masked(data_set, seed=seed, masking=masking)
    parts = (train_steps - start_step) * share.replicas

    def read_group(group: Group) -> tf.data.Dataset:
        numbers = tf.boolean_mask(group.shards, group.shards >= 0)
        rows = tf.data.Dataset.from_tensor_slices(numbers).map(read, num_parallel_calls=FILES_AT_ONCE)
        place = (group.begins + group.skip) % global_batch_size

        def ordered(rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            order = _order(rows, data_set.frame, seed=seed, epoch=group.epoch)[group.skip :]
            return rows, _own(order, place, share, global_batch_size), group.epoch

        return rows.rebatch(largest).map(ordered)

    def shuffled(rows: tf.Tensor, order: tf.Tensor, epoch: tf.Tensor) -> tf.data.Dataset:
        def block(start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            # They are moved about as the bytes they are in their file, which is less to move than their ids would be,
            # and a block at a time, for which no second copy of a group is needed.
            part = order[start : start + _BLOCK]
            return tf.gather(rows, part), tf.fill(tf.shape(part), epoch)

        return tf.data.Dataset.range(0, tf.size(order, tf.int64), _BLOCK).map(block)

    return (
        plan.flat_map(read_group)
        .prefetch(1)  # the next group is read while this one is consumed
        .flat_map(shuffled)
        .rebatch(_BLOCK)
        .map(masked, num_parallel_calls=tf.data.AUTOTUNE)
        .rebatch(share.rows(global_batch_size) // share.replicas, drop_remainder=True)
        .take(parts)
        .apply(tf.data.experimental.assert_cardinality(parts))
        .prefetch(2 * share.replicas)
        .with_options(_options())
    )


def most_memory(data_set: DataSet, shuffle_examples: int) -> int:
    """Return the bytes of memory that the batches of a run take at most on a host, beside TensorFlow itself.

    >>> from records.format.frame import Frame
    >>> Frame(128, 30_522).size * 65_536 * 4 >> 20  # the part of training, with shards that divide 65,536
    113
    """
    shards, frame = data_set.manifest.data.splits, data_set.frame
    at_once = sorted((shard.examples for shard in shards[HELD_OUT]), reverse=True)[:FILES_AT_ONCE]
    group = _largest_group(shards["train"], shuffle_examples) if shards["train"] else 0
    blocks = (os.cpu_count() or 1) * _BLOCK * _MASKED_BYTES * data_set.max_seq_length
    return (4 * group + 2 * sum(at_once)) * frame.size + blocks + _GRAPH_BYTES


def eval_batches(
    data_set: DataSet, *, global_batch_size: int, split: str = HELD_OUT, share: Share = Share()
) -> tf.data.Dataset:
    """Return a whole split, or a host's share of it, masked at 15 % with the fixed evaluation masks.

    The last batch is filled up with rows of zeros, which have nothing to predict: their `masked_lm_weights` are 0. So
    shapes are static and no sequence is left out.
    """
    shards = data_set.manifest.data.splits[split]
    masked = _masked(data_set, seed=EVAL_SEED, masking=Masking())
    own = share.rows(global_batch_size)
    batches = -(-data_set.manifest.examples(split) // global_batch_size)

    def filled(rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        missing = global_batch_size - tf.shape(rows)[0]
        nothing = tf.repeat(data_set.frame.template[None], missing, axis=0)
        full = tf.ensure_shape(tf.concat([rows, nothing], 0), [global_batch_size, data_set.frame.size])
        return full[share.host * own :][:own], tf.fill([own], EVAL_EPOCH)

    return (
        tf.data.Dataset.range(len(shards))
        .map(shard_reader(data_set, split), num_parallel_calls=FILES_AT_ONCE)
        .rebatch(global_batch_size)
        .map(filled, num_parallel_calls=tf.data.AUTOTUNE)
        .map(masked, num_parallel_calls=tf.data.AUTOTUNE)
        .rebatch(own // share.replicas, drop_remainder=True)
        .apply(tf.data.experimental.assert_cardinality(batches * share.replicas))
        .prefetch(tf.data.AUTOTUNE)
        .with_options(_options())
    )


def reading_plan(shards: Sequence[Shard], *, seed: int, shuffle_examples: int, start: int, end: int) -> tf.data.Dataset:
    """Return the groups to read for the sequences from the `start`-th to before the `end`-th of the stream of epochs.

    An epoch is planned when its first group is asked for, so a plan of any length takes the memory of one epoch's.

    Returns:
        A dataset of `Group`s.

    >>> two = [Shard("a", 3, 3, 9, 99, "", ""), Shard("b", 3, 3, 9, 99, "", "")]
    >>> for group in reading_plan(two, seed=0, shuffle_examples=1, start=7, end=11):
    ...     print({name: values.numpy().tolist() for name, values in group._asdict().items()})
    {'epoch': 1, 'begins': 6, 'shards': [1], 'skip': 1}
    {'epoch': 1, 'begins': 9, 'shards': [0], 'skip': 0}
    """
    sizes = tf.constant([0, *(shard.examples for shard in shards)], tf.int64)  # the first is that of number -1
    total, together = sum(shard.examples for shard in shards), _shards_together(shards, shuffle_examples)
    names = tf.constant([_number_of(shard.file) for shard in shards], tf.int64)

    def groups(epoch: tf.Tensor) -> tf.data.Dataset:
        order = _sorted(randomness.keys("shards", seed, epoch=epoch, example_id=names))
        numbers = tf.pad(tf.cast(order, tf.int64), [[0, -len(shards) % together]], constant_values=-1)
        numbers = tf.reshape(numbers, [-1, together])
        held = tf.reduce_sum(tf.gather(sizes, numbers + 1), 1)
        ends = epoch * total + tf.cumsum(held)
        begins = ends - held
        skips = tf.maximum(start - begins, 0)
        wanted = (skips < held) & (begins + skips < end)
        epochs = tf.fill(tf.shape(held), epoch)
        columns = (tf.boolean_mask(column, wanted) for column in (epochs, begins, numbers, skips))
        return tf.data.Dataset.from_tensor_slices(Group(*columns))

    return tf.data.Dataset.range(start // total, -(-end // total)).flat_map(groups)


def _number_of(file: str) -> int:
    """Return 63 bits that stand for the name of a file."""
    return int.from_bytes(hashlib.blake2b(file.encode(), digest_size=8).digest(), "little") >> 1


def _shards_together(shards: Sequence[Shard], shuffle_examples: int) -> int:
    """Return how many shards hold `shuffle_examples` sequences on average."""
    total = sum(shard.examples for shard in shards)
    return min(len(shards), -(-shuffle_examples * len(shards) // total))


def _largest_group(shards: Sequence[Shard], shuffle_examples: int) -> int:
    """Return what no group's size exceeds."""
    sizes = sorted((shard.examples for shard in shards), reverse=True)
    return sum(sizes[: _shards_together(shards, shuffle_examples)])


def shard_reader(data_set: DataSet, split: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return a function that reads a shard, given its number in the manifest: uint8 `[examples, frame.size]`."""
    shards = data_set.manifest.data.splits[split]
    paths = tf.constant([data_set.path(shard.file) for shard in shards], tf.string)
    examples = tf.constant([shard.examples for shard in shards], tf.int32)
    checksums = tf.constant([int(shard.sum64, 16) for shard in shards], tf.uint64)

    def read(number: tf.Tensor) -> tf.Tensor:
        return read_shard(
            paths[number],
            examples=examples[number],
            checksum=checksums[number],
            frame=data_set.frame,
            compression=data_set.compression,
        )

    return read


def _order(rows: tf.Tensor, frame: Frame, *, seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """Return the order of a group's rows, int32 `[N]`: that of a hash of (seed, epoch, example id)."""
    return _sorted(randomness.keys("order", seed, epoch=epoch, example_id=example_ids(rows, frame)))


def _sorted(keys: tf.Tensor) -> tf.Tensor:
    """Return the order of random keys, uint64 `[N]`, as int32 `[N]`.

    It is that of their upper 63 bits, so many that no two are alike.
    """
    return tf.argsort(tf.cast(tf.bitwise.right_shift(keys, tf.constant(1, tf.uint64)), tf.int64), stable=True)


def _own(order: tf.Tensor, place: tf.Tensor, share: Share, global_batch_size: int) -> tf.Tensor:
    """Return what is a host's own of an order whose first element has that place in its global batch.

    >>> _own(tf.range(10, 20), tf.constant(3), Share(host=1, hosts=2), 4).numpy().tolist()
    [10, 13, 14, 17, 18]
    """
    if share.hosts == 1:
        return order
    places = (place + tf.range(tf.size(order, place.dtype))) % global_batch_size
    return tf.boolean_mask(order, places // share.rows(global_batch_size) == share.host)


def _masked(data_set: DataSet, *, seed: int, masking: Masking) -> Callable[[tf.Tensor, tf.Tensor], Batch]:
    """Return a function that masks records, uint8 `[B, frame.size]`, in the epochs given, int32 `[B]`."""
    vocabulary, frame = Vocabulary.of(data_set.tokenizer), data_set.frame

    def masked(rows: tf.Tensor, epoch: tf.Tensor) -> Batch:
        rows = tf.ensure_shape(rows, [None, frame.size])  # which the pipeline cannot see for itself
        input_ids, example_id = parse(rows, frame)
        return mask_tokens(input_ids, example_id, seed=seed, epoch=epoch, vocabulary=vocabulary, masking=masking)

    return masked


def _options() -> tf.data.Options:
    options = tf.data.Options()
    options.deterministic = True
    return options
