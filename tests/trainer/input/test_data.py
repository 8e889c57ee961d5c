"""That the stream of batches is what `trainer.input.data` says, at every step, and that a resume joins it anywhere."""

import functools
import hashlib
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from records.format import example, reader, tfrecord
from records.format.frame import Frame
from records.format.manifest import Shard
from records.format.reader import DataSet
from tests.records import made
from tests.said import must_name
from tests.trainer import chance
from trainer.input import randomness
from trainer.input.data import (
    EVAL_EPOCH,
    EVAL_SEED,
    HeldOut,
    Share,
    dealt,
    eval_batches,
    most_memory,
    reading_plan,
    train_batches,
)
from trainer.input.masking import Masking, Vocabulary, mask_tokens

Batch = dict[str, NDArray]
SIZES = (3, 1, 5, 2)  # 11 sequences an epoch
BARE = Masking(rate=0.0)  # what comes out is what is in the shards
USUAL = {"global_batch_size": 4, "seed": 0, "masking": Masking(), "shuffle_examples": 5}  # groups of two shards


@pytest.fixture(scope="module")
def data_set(tmp_path_factory) -> DataSet:
    return reader.open_data_set(made.data_set(tmp_path_factory.mktemp("data_set"), train=SIZES, validation=(9, 4)))


def arrays(batches: Iterable[dict[str, tf.Tensor]]) -> list[Batch]:
    return [{name: values.numpy() for name, values in batch.items()} for batch in batches]


def stream(data_set: DataSet, *, train_steps: int, start_step: int = 0, **options: object) -> list[Batch]:
    return arrays(train_batches(data_set, start_step=start_step, train_steps=train_steps, **{**USUAL, **options}))


def rows(batches: list[Batch]) -> list[tuple[int, ...]]:
    """Return the sequences of batches, one after the other."""
    return [tuple(row) for batch in batches for row in batch["input_ids"].tolist()]


def content(data_set: DataSet, split: str = "train") -> list[tuple[int, ...]]:
    """Return the sequences of a split, read without TensorFlow's pipelines, in the order of the shards."""
    found = []
    for shard in data_set.manifest.data.splits[split]:
        with open(data_set.path(shard.file), "rb") as file:
            payloads = list(tfrecord.read(file, name=shard.file, compress=bool(data_set.compression)))
        input_ids, _ = example.decode(payloads, data_set.frame)
        found += [tuple(row) for row in input_ids.tolist()]
    return found


def check_equal(found: list[Batch], expected: list[Batch]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], strict=True)


@pytest.mark.parametrize("shuffle_examples", [1, 5, 10**6])
def test_each_epoch_holds_each_sequence_once(data_set, shuffle_examples):
    read = rows(stream(data_set, train_steps=9, masking=BARE, shuffle_examples=shuffle_examples))
    assert len(read) == 36
    for epoch in range(3):
        assert Counter(read[11 * epoch : 11 * (epoch + 1)]) == Counter(content(data_set))
    assert len(set(read[33:])) == 3


def test_a_resume_joins_the_stream_at_every_step(data_set):
    """Three epochs and a bit, in batches that do not divide them."""
    whole = stream(data_set, train_steps=9)
    for step in range(1, 10):
        check_equal(stream(data_set, start_step=step, train_steps=9), whole[step:])


@pytest.mark.parametrize(
    ("sizes", "options"),
    [
        ((6,), {"global_batch_size": 13}),  # one shard, and a batch of more than two epochs
        ((3, 1, 2), {"shuffle_examples": 1}),  # groups of one shard
        ((3, 1, 2), {"shuffle_examples": 10**6}),  # an epoch is one group
        ((3, 1, 2), {"global_batch_size": 3, "seed": 5, "masking": Masking(0.4, whole_word=True)}),  # batches divide it
    ],
)
def test_a_resume_joins_the_stream_whatever_the_shards(tmp_path, sizes, options):
    opened = reader.open_data_set(made.data_set(tmp_path, train=sizes, compression="gzip"))
    whole = stream(opened, train_steps=3, **options)
    for step in range(1, 3):
        check_equal(stream(opened, start_step=step, train_steps=3, **options), whole[step:])


def test_the_length_of_the_run_does_not_matter(data_set):
    expected = stream(data_set, train_steps=2)
    check_equal(expected, stream(data_set, train_steps=9)[:2])
    endless = train_batches(data_set, start_step=0, train_steps=10**12, **USUAL)
    assert len(endless) == 10**12
    check_equal(expected, arrays(endless.take(2)))


def test_the_batch_size_cuts_the_stream_and_changes_nothing_else(data_set):
    [whole] = stream(data_set, global_batch_size=30, train_steps=1)
    for size in (1, 6, 15):
        cut = stream(data_set, global_batch_size=size, train_steps=30 // size)
        for name, values in whole.items():
            np.testing.assert_array_equal(np.concatenate([batch[name] for batch in cut]), values)


def test_order_and_masks_are_functions_of_seed_epoch_and_manifest(data_set, tmp_path):
    expected = stream(data_set, train_steps=6)
    elsewhere = shutil.copytree(data_set.folder, tmp_path / "elsewhere")
    tf.random.set_seed(5)
    check_equal(stream(reader.open_data_set(str(elsewhere)), train_steps=6), expected)


def test_another_epoch_and_another_seed_have_another_order(data_set):
    first, second = (rows([batch]) for batch in stream(data_set, train_steps=2, masking=BARE, global_batch_size=11))
    [other] = stream(data_set, train_steps=1, masking=BARE, global_batch_size=11, seed=1)
    assert sorted(first) == sorted(second) == sorted(rows([other]))
    assert first != second
    assert rows([other]) not in (first, second)


def test_the_number_of_threads_does_not_matter(data_set):
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.threading.max_intra_op_parallelism = 1
    options.autotune.enabled = False
    batches = train_batches(data_set, start_step=0, train_steps=6, **USUAL).with_options(options)
    check_equal(arrays(batches), stream(data_set, train_steps=6))


def test_each_epoch_has_masks_of_its_own(data_set):
    """The masks of a sequence are those of (seed, its epoch, its id), also in a batch that spans two epochs."""
    batches, bare = stream(data_set, train_steps=8), rows(stream(data_set, train_steps=8, masking=BARE))
    ids = dict(zip(content(data_set), all_ids(data_set), strict=True))
    for step, batch in enumerate(batches):
        held = bare[4 * step : 4 * (step + 1)]
        expected = mask_tokens(
            tf.constant(held, tf.int32),
            tf.constant([ids[row] for row in held]),
            seed=0,
            epoch=tf.constant([(4 * step + row) // 11 for row in range(4)]),
            vocabulary=Vocabulary.of(data_set.tokenizer),
        )
        check_equal([batch], arrays([expected]))


def all_ids(data_set: DataSet) -> list[int]:
    found: list[int] = []
    for shard in data_set.manifest.data.splits["train"]:
        records = tf.data.TFRecordDataset(data_set.path(shard.file), data_set.compression)
        _, example_id = example.decode(list(records.as_numpy_iterator()), data_set.frame)
        found += example_id.tolist()
    return found


def test_compressed_shards_read_the_same(data_set, tmp_path):
    zipped = reader.open_data_set(made.data_set(tmp_path, train=SIZES, validation=(9, 4), compression="gzip"))
    check_equal(stream(zipped, train_steps=6), stream(data_set, train_steps=6))
    check_equal(*(arrays(eval_batches(each, global_batch_size=4)) for each in (zipped, data_set)))


def test_shapes_are_static(data_set):
    batches = train_batches(data_set, start_step=2, train_steps=9, **USUAL)
    assert {name: (spec.dtype, spec.shape.as_list()) for name, spec in batches.element_spec.items()} == {
        "input_ids": (tf.int32, [4, 16]),
        "masked_lm_positions": (tf.int32, [4, 3]),
        "masked_lm_ids": (tf.int32, [4, 3]),
        "masked_lm_weights": (tf.float32, [4, 3]),
    }
    assert len(batches) == 7
    held_out = eval_batches(data_set, global_batch_size=4)
    assert held_out.element_spec == batches.element_spec
    assert len(held_out) == 4


def operations(build) -> set[str]:
    """Return the kinds of operations in the graph of a dataset, those of all its functions among them."""
    graph = tf.function(lambda: build().cardinality()).get_concrete_function().graph.as_graph_def()
    bodies = [graph.node, *(function.node_def for function in graph.library.function)]
    return {node.op for body in bodies for node in body}


PYTHON = {"PyFunc", "EagerPyFunc", "PyFuncStateless", "GeneratorDataset", "NumpyFunction"}


def test_there_is_no_python_in_the_pipeline(data_set):
    """So it runs as well on the hosts of a remote TPU."""
    train = operations(lambda: train_batches(data_set, start_step=0, train_steps=9, **USUAL))
    held_out = operations(lambda: eval_batches(data_set, global_batch_size=5))
    for found in (train, held_out):
        assert not found & PYTHON
        assert found >= {"ReadFile", "DecodeRaw", "ParallelMapDatasetV2", "PrefetchDataset", "UnsortedSegmentSum"}


@pytest.mark.parametrize(
    "build",
    [
        lambda: tf.data.Dataset.range(3).map(lambda n: tf.py_function(abs, [n], tf.int64)),
        lambda: tf.data.Dataset.range(3).map(lambda n: tf.numpy_function(abs, [n], tf.int64)),
        lambda: tf.data.Dataset.range(3).flat_map(
            lambda n: tf.data.Dataset.from_tensors(n).map(lambda n: tf.py_function(abs, [n], tf.int64))
        ),
        lambda: tf.data.Dataset.from_generator(lambda: iter([1]), output_signature=tf.TensorSpec([], tf.int64)),
    ],
)
def test_python_in_a_pipeline_would_be_found(build):
    assert operations(build) & PYTHON


def test_it_is_deterministic(data_set):
    for batches in (
        train_batches(data_set, start_step=0, train_steps=9, **USUAL),
        eval_batches(data_set, global_batch_size=5),
    ):
        assert batches.options().deterministic is True


def test_a_strategy_cuts_each_batch_for_its_replicas(data_set):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    options = {**USUAL, "global_batch_size": 6, "start_step": 1, "train_steps": 4}
    for batches in (
        functools.partial(train_batches, data_set, **options),
        functools.partial(eval_batches, data_set, global_batch_size=6),
    ):
        dealt_out = [
            {name: np.concatenate(strategy.experimental_local_results(values)) for name, values in batch.items()}
            for batch in dealt(strategy, lambda share, batches=batches: batches(share=share))
        ]
        check_equal(dealt_out, arrays(batches()))


def joined(parts: list[list[Batch]], replicas: int) -> list[Batch]:
    """Return the global batches of which hosts have parts, each several for its replicas."""
    steps = [[part[step : step + replicas] for part in parts] for step in range(0, len(parts[0]), replicas)]
    return [
        {name: np.concatenate([batch[name] for part in step for batch in part]) for name in step[0][0]}
        for step in steps
    ]


@pytest.mark.parametrize(("hosts", "replicas"), [(1, 2), (2, 1), (3, 2)])
def test_hosts_together_read_what_one_reads(data_set, hosts, replicas):
    """Also where a batch spans groups and epochs, and where the run is continued in the midst of a group."""
    options, shards = {"global_batch_size": 6, "train_steps": 8}, data_set.manifest.data.splits["train"]
    for start_step in (1, 2):
        assert next(planned(shards, 5, start=6 * start_step, end=48)).skip % 6  # else its place would be the same
    shares = [Share(host, hosts, replicas) for host in range(hosts)]
    whole = stream(data_set, **options)
    for start_step in (1, 2):
        parts = [stream(data_set, share=share, start_step=start_step, **options) for share in shares]
        check_equal(joined(parts, replicas), whole[start_step:])
    held_out = [arrays(eval_batches(data_set, global_batch_size=6, share=share)) for share in shares]
    assert len(held_out[0]) == 3 * replicas
    check_equal(joined(held_out, replicas), arrays(eval_batches(data_set, global_batch_size=6)))


def test_a_share_has_static_shapes_and_no_python_either(data_set):
    share = Share(host=1, hosts=2, replicas=2)
    for build in (
        lambda: train_batches(data_set, start_step=0, train_steps=9, share=share, **{**USUAL, "global_batch_size": 8}),
        lambda: eval_batches(data_set, global_batch_size=8, share=share),
    ):
        assert build().element_spec["input_ids"].shape.as_list() == [2, 16]
        assert not operations(build) & PYTHON


def test_nothing_is_left_to_read_after_the_last_step(data_set):
    assert stream(data_set, start_step=9, train_steps=9) == []


def test_evaluation_reads_the_whole_split_once(data_set):
    for size in (4, 13, 50):
        batches = arrays(eval_batches(data_set, global_batch_size=size))
        assert [len(batch["input_ids"]) for batch in batches] == [size] * -(-13 // size)
        read, weights = restored(batches), np.concatenate([batch["masked_lm_weights"] for batch in batches])
        assert Counter(read[:13]) == Counter(content(data_set, "validation"))
        assert (weights[:13].sum(1) >= 1).all()
        filled = {name: np.concatenate([batch[name] for batch in batches])[13:] for name in batches[0]}
        assert not any(values.any() for values in filled.values())


def restored(batches: list[Batch]) -> list[tuple[int, ...]]:
    """Return the sequences of batches as they were before they were masked."""
    found = []
    for batch in batches:
        input_ids = batch["input_ids"].copy()
        for row, positions, originals, weights in zip(
            input_ids, batch["masked_lm_positions"], batch["masked_lm_ids"], batch["masked_lm_weights"], strict=True
        ):
            row[positions[weights > 0]] = originals[weights > 0]
        found += [tuple(row) for row in input_ids.tolist()]
    return found


def test_evaluation_masks_are_always_those_of_one_epoch_at_15_percent(data_set):
    batches = arrays(eval_batches(data_set, global_batch_size=5, split="train"))
    ids = dict(zip(content(data_set), all_ids(data_set), strict=True))
    held = restored(batches)[:11]
    expected = mask_tokens(
        tf.constant(held, tf.int32),
        tf.constant([ids[row] for row in held]),
        seed=EVAL_SEED,
        epoch=EVAL_EPOCH,
        vocabulary=Vocabulary.of(data_set.tokenizer),
        masking=Masking(rate=0.15),
    )
    for name, values in expected.items():
        np.testing.assert_array_equal(np.concatenate([batch[name] for batch in batches])[:11], values)
    assert EVAL_EPOCH == 2**31 - 1  # no run gets that far, so no run trains on these masks


def test_evaluation_order_does_not_depend_on_the_number_of_shards_read_at_once(tmp_path):
    """More shards than are read at once, of very different sizes."""
    sizes = (1, 30, 2, 1, 1, 1, 9, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 40, 1, 1)
    opened = reader.open_data_set(made.data_set(tmp_path, validation=sizes))
    read = restored(arrays(eval_batches(opened, global_batch_size=7)))[: sum(sizes)]
    assert read == content(opened, "validation")  # each is one block here, and blocks come in the order of the shards
    assert read == restored(arrays(eval_batches(opened, global_batch_size=100)))[: sum(sizes)]


def test_a_split_without_shards_is_evaluated_in_no_batches(tmp_path):
    opened = reader.open_data_set(made.data_set(tmp_path, validation=()))
    assert arrays(eval_batches(opened, global_batch_size=4)) == []


def test_the_held_out_split_is_given_anew_each_time(data_set, tmp_path):
    held_out = HeldOut.of(data_set, tf.distribute.get_strategy(), global_batch_size=4)
    expected = arrays(eval_batches(data_set, global_batch_size=4))
    assert held_out.count == 4  # of 13 sequences
    for _ in range(2):
        check_equal(arrays(held_out), expected)
    opened = reader.open_data_set(made.data_set(tmp_path, validation=()))
    nothing = HeldOut.of(opened, tf.distribute.get_strategy(), global_batch_size=4)
    assert (nothing.count, arrays(nothing)) == (0, [])


@pytest.mark.parametrize(("shuffle_examples", "largest"), [(1, 5), (5, 8), (10**6, 11)])
def test_most_memory_is_four_times_the_largest_group_twice_what_is_held_out_and_the_blocks(
    data_set, shuffle_examples, largest, monkeypatch
):
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    blocks = 3 * 2048 * 32 * 16  # of each CPU, so many bytes a token
    expected = (4 * largest + 2 * (9 + 4)) * data_set.frame.size + blocks + (64 << 20)
    assert most_memory(data_set, shuffle_examples) == expected


MANY = 4_096


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> DataSet:
    """Return the worst case: shards that hold the corpus in its order. Sequence n begins with the digits of n."""
    numbers = np.arange(MANY)
    input_ids = np.zeros((MANY, 8), np.int64)
    input_ids[:, 0], input_ids[:, 3] = made.CLS, made.SEP
    input_ids[:, 1:3] = np.stack(np.divmod(numbers, 64), 1) + made.FIRST_WORD
    shards = [made.Records(input_ids[part], numbers[part]) for part in np.split(numbers, 8)]
    held_out = [made.Records(shards[0].input_ids, shards[0].example_id + MANY)]
    folder = str(tmp_path_factory.mktemp("corpus"))
    return reader.open_data_set(
        made.write(folder, {"train": shards, "validation": held_out}, tokenizer=made.toy_tokenizer(words=64))
    )


def order(corpus: DataSet, *, epochs: int = 1, shuffle_examples: int = MANY) -> NDArray[np.int64]:
    """Return the numbers in the corpus of the sequences of the stream, `[epochs, MANY]`."""
    batches = stream(
        corpus, global_batch_size=64, train_steps=64 * epochs, masking=BARE, shuffle_examples=shuffle_examples
    )
    digits = np.concatenate([batch["input_ids"][:, 1:3] for batch in batches]) - made.FIRST_WORD
    return (digits @ [64, 1]).reshape(epochs, MANY)


def of_correlation(one: NDArray, other: NDArray) -> float:
    """Return z of a rank correlation of n pairs: under independence its variance is 1 / (n - 1)."""
    return float(np.corrcoef(one, other)[0, 1] * (len(one) - 1) ** 0.5)


def test_neighbours_in_the_corpus_are_no_neighbours_in_the_stream(corpus):
    epochs = order(corpus, epochs=2)
    for numbers in epochs:
        assert sorted(numbers) == list(range(MANY))
        assert abs(of_correlation(numbers[1:], numbers[:-1])) < chance.BOUND
        assert abs(of_correlation(numbers, np.arange(MANY))) < chance.BOUND
        # Of n - 1 pairs each is one of neighbours with chance 2 / n: as good as Poisson with mean 2, of which 13 and
        # more come once in five million times.
        assert (np.abs(np.diff(numbers)) == 1).sum() < 13
    places = np.argsort(epochs, axis=1)
    assert abs(of_correlation(*places)) < chance.BOUND  # nor does one epoch tell of the next
    assert of_correlation(np.arange(MANY)[1:], np.arange(MANY)[:-1]) > chance.BOUND  # as it would be unshuffled


def test_small_groups_still_mix_what_they_hold(corpus):
    numbers = order(corpus, shuffle_examples=1_000)[0]
    assert sorted(numbers) == list(range(MANY))
    for group in np.split(numbers, 4):  # two shards each, whichever they are
        assert len(set(group // 512)) == 2
        ranks = np.argsort(np.argsort(group))
        assert abs(of_correlation(ranks[1:], ranks[:-1])) < chance.BOUND
        assert abs(of_correlation(ranks, np.arange(1_024))) < chance.BOUND
    assert (np.abs(np.diff(numbers)) == 1).sum() < 30  # four times n = 1024 with mean 2; Poisson with mean 8


class Planned(NamedTuple):
    """A group of a plan in Python's numbers."""

    epoch: int
    begins: int
    shards: tuple[int, ...]
    skip: int


def planned(
    shards: Sequence[Shard], shuffle_examples: int, *, start: int, end: int, seed: int = 0
) -> Iterator[Planned]:
    """Yield the groups of a plan."""
    for group in reading_plan(shards, seed=seed, shuffle_examples=shuffle_examples, start=start, end=end):
        epoch, begins, numbers, skip = (values.numpy().tolist() for values in group)
        yield Planned(epoch, begins, tuple(number for number in numbers if number >= 0), skip)


def test_shards_of_an_epoch_come_in_any_order(corpus):
    """Over 300 epochs each shard is first about as often as any other, and follows each other as often."""
    plan = planned(corpus.manifest.data.splits["train"], 1, start=0, end=300 * MANY)
    orders = np.array([group.shards for group in plan]).reshape(300, 8)
    assert (np.sort(orders) == np.arange(8)).all()
    assert abs(chance.of_uniform(np.bincount(orders[:, 0]))) < chance.BOUND
    follows = chance.table(orders[:, :-1].ravel(), orders[:, 1:].ravel(), shape=(8, 8))
    apart = follows[~np.eye(8, dtype=bool)]
    assert abs(chance.of_uniform(apart)) < chance.BOUND


def shards_of(sizes: Iterable[int]) -> list[Shard]:
    return [Shard(f"train-{number}", size, size, size, size, "", "") for number, size in enumerate(sizes)]


PLANS = {
    "sizes": st.lists(st.integers(1, 30), min_size=1, max_size=8),
    "seed": st.integers(0, 2**63 - 1),
    "shuffle_examples": st.integers(1, 100),
    "start": st.integers(0, 500),
    "examples": st.integers(0, 300),
}
few = settings(max_examples=25)  # each plan is a graph that is traced anew


@few
@given(**PLANS)
def test_a_plan_reads_what_is_asked_for_and_at_most_one_group_again(sizes, seed, shuffle_examples, start, examples):
    shards, total = shards_of(sizes), sum(sizes)
    plan = list(planned(shards, shuffle_examples, start=start, end=start + examples, seed=seed))
    sizes_of = [sum(sizes[number] for number in group.shards) for group in plan]
    assert [group.skip for group in plan[1:]] == [0] * len(plan[1:])
    if plan:
        assert 0 <= plan[0].skip < sizes_of[0]  # something of it is new
        read = sum(sizes_of) - plan[0].skip
        assert examples <= read < examples + sizes_of[-1]  # the last group is needed, too
        assert plan[0].epoch == start // total
        assert plan[-1].epoch == (start + examples - 1) // total
    else:
        assert examples == 0


@few
@given(**PLANS)
def test_a_plan_is_the_tail_of_the_plan_of_the_whole_run(sizes, seed, shuffle_examples, start, examples):
    shards = shards_of(sizes)
    whole = list(planned(shards, shuffle_examples, start=0, end=start + examples, seed=seed))
    tail = list(planned(shards, shuffle_examples, start=start, end=start + examples, seed=seed))
    assert [group._replace(skip=0) for group in tail] == whole[len(whole) - len(tail) :]
    before = sum(sizes[number] for group in whole[: len(whole) - len(tail)] for number in group.shards)
    if tail:
        assert before + tail[0].skip == start
        assert tail[0].begins == before


@few
@given(sizes=PLANS["sizes"], seed=PLANS["seed"], shuffle_examples=PLANS["shuffle_examples"])
def test_an_epoch_is_every_shard_once_in_groups_of_about_the_size(sizes, seed, shuffle_examples):
    shards, total = shards_of(sizes), sum(sizes)
    groups = [group.shards for group in planned(shards, shuffle_examples, start=0, end=total, seed=seed)]
    assert sorted(number for group in groups for number in group) == list(range(len(sizes)))
    together = min(len(sizes), -(-shuffle_examples * len(sizes) // total))
    assert [len(group) for group in groups[:-1]] == [together] * len(groups[:-1])
    assert 1 <= len(groups[-1]) <= together


def test_groups_hold_what_is_shuffled_together_on_average():
    """Where a shard more or less is not what decides: 10 of 4 shards hold 10 sequences, 11 take another."""
    shards = shards_of([10, 10, 10, 10])
    for shuffle_examples, together in ((1, 1), (10, 1), (11, 2), (20, 2), (21, 3), (10**20, 4)):
        first = next(planned(shards, shuffle_examples, start=0, end=1))
        assert len(first.shards) == together


def test_a_plan_is_made_as_it_is_read():
    """Of a run of 10**15 sequences, or far into it, the first group is there at once."""
    shards = shards_of([1_000] * 64)
    for start in (0, 10**15 + 17):
        first = next(planned(shards, 16_000, start=start, end=start + 10**15))
        assert first.epoch == start // 64_000
        assert first.begins + first.skip == start


def test_a_shard_without_sequences_is_not_waited_for():
    """It stands in a group, or is a group of which nothing is to be read."""
    shards = shards_of([0, 4, 0, 3])
    for start in range(8):
        groups = list(planned(shards, 1, start=start, end=8))
        assert {number for group in groups for number in group.shards} <= {1, 3}
        assert groups[0].begins + groups[0].skip == start


def test_the_order_of_shards_stays_what_it_is():
    """A run that is continued by a later version must read what the earlier one would have read."""
    shards = shards_of([3, 4, 5, 6])
    plan = planned(shards, 8, start=20, end=50, seed=7)
    assert [(group.epoch, group.shards, group.skip) for group in plan] == [
        (1, (2, 3), 2),
        (1, (0, 1), 0),
        (2, (0, 1), 0),
        (2, (3, 2), 0),
    ]


def test_the_order_of_shards_is_that_of_a_hash_of_their_names():
    """In plain Python; nor does it depend on the order in which the manifest lists them."""
    shards, seed, epoch = shards_of([3, 4, 5, 6]), 7, 3

    def place(shard: Shard) -> int:
        name = int.from_bytes(hashlib.blake2b(shard.file.encode(), digest_size=8).digest(), "little") >> 1
        return int(randomness.keys("shards", seed, epoch=epoch, example_id=tf.constant([name], tf.int64))[0])

    for listed in (shards, shards[::-1]):
        plan = planned(listed, 1, start=18 * epoch, end=18 * (epoch + 1), seed=seed)
        found = [listed[number].file for group in plan for number in group.shards]
        assert found == [shard.file for shard in sorted(shards, key=place)]


def test_the_order_of_sequences_stays_what_it_is(corpus):
    assert order(corpus)[0, :8].tolist() == [1976, 2919, 561, 3542, 1771, 2399, 668, 2949]


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    return content[:30] + bytes([content[30] ^ 1]) + content[31:]


@pytest.mark.parametrize("compression", ["", "gzip"])
@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize(
    "change",
    [flipped, half, lambda content: content[:-30], lambda content: b"", None],
    ids=["flipped", "half", "cut", "emptied", "removed"],
)
def test_damage_during_a_run_is_explained(tmp_path, change, split, compression):
    """The data set was whole when it was opened; half of this shard ends just between two records."""
    opened = reader.open_data_set(made.data_set(tmp_path, train=(8, 8), validation=(8, 8), compression=compression))
    path = Path(opened.path(opened.manifest.data.splits[split][1].file))
    if change:
        path.write_bytes(change(path.read_bytes()))
    else:
        path.unlink()
    read = {
        "train": functools.partial(stream, opened, train_steps=9),
        "validation": lambda: arrays(eval_batches(opened, global_batch_size=4)),
    }
    with pytest.raises(tf.errors.OpError) as caught:
        read[split]()
    must_name(
        str(reader.damaged("out/records", caught.value)), "out/records:", "damaged", "'make verify DATA=out/records'"
    )


def test_a_shard_that_has_grown_during_a_run_is_explained(tmp_path):
    opened = reader.open_data_set(made.data_set(tmp_path, train=(8, 8)))
    path = Path(opened.path(opened.manifest.data.splits["train"][1].file))
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(tf.errors.OpError) as caught:
        stream(opened, train_steps=9)
    assert reader.damaged("out/records", caught.value) is not None


def test_records_of_another_length_are_an_error(tmp_path):
    """It cannot be, with the checksums of the manifest; if it is, nothing is read past it."""
    opened = reader.open_data_set(made.data_set(tmp_path, train=(8,)))
    path = Path(opened.path(opened.manifest.data.splits["train"][0].file))
    path.write_bytes(example.encode(np.zeros((8, 9), int), np.arange(8), Frame(9, 52)).tobytes())
    with pytest.raises(tf.errors.InvalidArgumentError, match=reader.CHANGED):
        stream(opened, train_steps=2)


READ_THREE_EPOCHS = """
import sys
from records.format.reader import open_data_set
from trainer.input.data import train_batches
from trainer.input.masking import Masking

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))

for folder in sys.argv[1:]:  # the first is small, so that what does not grow is there before the second
    before = peak()
    data_set = open_data_set(folder)
    examples = data_set.manifest.examples("train")
    for _ in train_batches(data_set, global_batch_size=1024, start_step=0, train_steps=3 * examples // 1024, seed=0,
                           masking=Masking(0.01), shuffle_examples=examples):
        pass
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux, which tells the peak of memory")
def test_memory_grows_by_four_times_a_group_at_most(tmp_path):
    """Of two sizes, each in a process of its own: so what does not grow is not counted."""

    def written(shards: int, examples: int) -> str:
        input_ids = np.full((examples // shards, 128), made.FIRST_WORD)
        input_ids[:, 0], input_ids[:, -1] = made.CLS, made.SEP
        held = [made.Records(input_ids, part) for part in np.split(np.arange(examples), shards)]
        return made.write(f"{tmp_path}/{examples}", {"train": held, "validation": []})

    fewer, more, small = 128_000, 384_000, written(1, 5_000)
    found = [
        subprocess.run(
            [sys.executable, "-c", READ_THREE_EPOCHS, small, written(16, examples)],
            check=True,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        ).stdout
        for examples in (fewer, more)
    ]
    grown = int(found[1]) - int(found[0])
    assert grown <= 4 * (more - fewer) * Frame(128, 52).size
