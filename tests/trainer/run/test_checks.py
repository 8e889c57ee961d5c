from dataclasses import replace

import pytest
import tensorflow as tf

from records.errors import RemaskError
from records.format.reader import open_data_set
from tests.said import must_name
from trainer.config import ModelConfig, TrainOptions
from trainer.input.data import most_memory
from trainer.run.checks import batch_size, check_data, check_memory, check_split, errors_explained

CONFIG = ModelConfig(31, 16, 1, 2, 32, 24)
DAMAGED = ("FOLDER:", "a shard is damaged", "'make verify DATA=FOLDER'")


@pytest.fixture(scope="module")
def data_set(tiny_data_set):
    return open_data_set(tiny_data_set)


def test_what_fits_is_let_through(data_set):
    check_data(data_set, CONFIG, name="toy")


def test_sequences_beyond_the_positions(data_set):
    with pytest.raises(RemaskError) as refused:
        check_data(data_set, replace(CONFIG, max_position_embeddings=16), name="toy")
    must_name(
        str(refused.value),
        f"{data_set.folder}:",
        "max_seq_length is 24",
        "model toy has 16 positions",
        "MAX_SEQ_LENGTH=16 or less",
    )


def test_ids_beyond_the_vocabulary(data_set):
    with pytest.raises(RemaskError) as refused:
        check_data(data_set, replace(CONFIG, vocab_size=30), name="toy")
    must_name(
        str(refused.value),
        f"{data_set.folder}:",
        "ids go up to 30",
        "model toy has a vocab_size of 30",
        "make the records again with that model's tokenizer",
    )


@pytest.mark.parametrize(
    ("split", "fraction", "other", "names"),
    [
        ("validation", 0.15, "0.3", ("nothing is held out", "240 documents", "0.15", "by chance", "larger")),
        ("validation", 0.0, "0.05", ("nothing is held out", "validation_fraction 0 asks", "larger")),
        ("validation", 0.6, "0.8", ("0.6", "by chance", "larger")),
        ("train", 0.99, "0.495", ("nothing is left to train on", "0.99", "all of 240", "smaller")),
    ],
)
def test_empty_split(data_set, split, fraction, other, names):
    data = data_set.manifest.data
    data = replace(data, splits={**data.splits, split: ()}, validation_fraction=fraction)
    empty = replace(data_set, manifest=replace(data_set.manifest, data=data))
    check_data(empty, CONFIG, name="toy")
    check_split(empty, "train" if split == "validation" else "validation")
    with pytest.raises(RemaskError) as refused:
        check_split(empty, split)
    said = str(refused.value)
    assert said.startswith(f"{data_set.folder}: ")
    assert f"'make records CSV=... OUT={data_set.folder} ARGS=\"--overwrite --validation_fraction {other}\"'" in said
    assert [name for name in names if name not in said] == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (tf.errors.DataLossError(None, None, "corrupted record at 99"), DAMAGED),
        (tf.errors.NotFoundError(None, None, "{folder}/train-00000-of-00004.tfrecord; No such file"), DAMAGED),
        (
            tf.errors.PermissionDeniedError(None, None, "{folder}/train-00000-of-00004.tfrecord; Permission denied"),
            (
                "FOLDER/train-00000-of-00004.tfrecord:",
                "permission denied",
                "give this user the right to it",
                "another path",
            ),
        ),
        (
            tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"),
            ("the device", "no memory left", "a smaller global_batch_size"),
        ),
        (
            tf.errors.ResourceExhaustedError(
                None,
                None,
                "{{node Flush}} {{node B}} out/{a}; b/{{c}}/my events; No space left on device\n\tFailed to",
            ),
            ("out/{a}; b/{{c}}/my events: no space left on device;", "free some space"),
        ),
        (
            tf.errors.ResourceExhaustedError(None, None, "out/events; Disk quota exceeded [Op:WriteSummary]"),
            ("out/events: disk quota exceeded;", "the quota of this user", "free some space"),
        ),
        (
            tf.errors.OutOfRangeError(None, None, "{{node Flush}} out/events; File too large"),
            ("out/events: file too large;", "a limit of this process or of the disk", "raise it"),
        ),
        (
            tf.errors.ResourceExhaustedError(None, None, "out/a.tfrecord; Too many open files"),
            ("out/a.tfrecord: too many open files;", "'ulimit -n'"),
        ),
    ],
    ids=["damaged", "gone", "denied", "memory", "disk", "quota", "size", "files"],
)
def test_what_tensorflow_raises_is_explained(data_set, error, said):
    error._message = error.message.replace("{folder}", data_set.folder)
    with pytest.raises(RemaskError) as explained, errors_explained(data_set):
        raise error
    must_name(str(explained.value), *(part.replace("FOLDER", data_set.folder) for part in said))


def test_a_run_with_a_checkpoint_is_not_told_to_change_its_batch(data_set):
    """The same options are all that it can be continued with."""
    error = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
    with pytest.raises(RemaskError) as explained, errors_explained(data_set, saved=lambda: True):
        raise error
    assert "continue this run on more devices, or begin another RUN" in str(explained.value)


def test_another_file_that_is_gone_is_no_damaged_shard(data_set):
    with pytest.raises(tf.errors.NotFoundError), errors_explained(data_set):
        raise tf.errors.NotFoundError(None, None, "out/run/tensorboard/events.out; No such file or directory")


def test_global_batch_is_dealt_out_evenly():
    assert batch_size(TrainOptions(global_batch_size=12), replicas=4) == 12
    assert batch_size(TrainOptions(), replicas=4) == 64
    with pytest.raises(RemaskError, match=r"^global_batch_size: found 10, expected a multiple of the 4 replicas$"):
        batch_size(TrainOptions(global_batch_size=10), replicas=4)


def with_train_shards(data_set, *sizes):
    data = data_set.manifest.data
    shards = tuple(
        replace(data.splits["train"][0], file=f"train-{number}", examples=size) for number, size in enumerate(sizes)
    )
    data = replace(data, splits={**data.splits, "train": shards})
    return replace(data_set, manifest=replace(data_set.manifest, data=data))


def test_memory_is_that_of_the_largest_groups_that_there_may_be(data_set):
    """The two largest of four shards may come together; four times their bytes, and not more of any other."""
    size = data_set.frame.size
    small = most_memory(with_train_shards(data_set, 1, 1, 1, 1), 2)
    large = with_train_shards(data_set, 1_000_001, 1, 3_000_001, 5)
    assert most_memory(large, 2_000_000) - small == 4 * size * (4_000_002 - 2)
    assert most_memory(large, 1) - small == 4 * size * (3_000_001 - 2)
    nothing_held_out = replace(data_set.manifest.data, splits={**data_set.manifest.data.splits, "validation": ()})
    bare = replace(data_set, manifest=replace(data_set.manifest, data=nothing_held_out))
    assert most_memory(data_set, 1) - most_memory(bare, 1) == 2 * size * 37


def test_more_memory_than_there_is_is_refused_with_what_fits(data_set):
    large = with_train_shards(data_set, *[10**6] * 8)
    needed = most_memory(large, 4 * 10**6)
    check_memory(large, shuffle_examples=4 * 10**6, free=needed)
    check_memory(large, shuffle_examples=4 * 10**6, free=None)
    with pytest.raises(RemaskError) as refused:
        check_memory(large, shuffle_examples=4 * 10**6, free=needed - 1)
    said = str(refused.value)
    for text in (data_set.folder, "4,000,000 sequences", f"{needed / 2**30:.2f} GiB", "--shuffle_examples 2000000"):
        assert text in said
    check_memory(large, shuffle_examples=2 * 10**6, free=needed - 1)  # what it says to do


def test_a_shard_beyond_the_memory_is_refused_with_how_many_to_make(data_set):
    large = with_train_shards(data_set, 10**8, 10**8)
    free = most_memory(large, 1) // 2
    with pytest.raises(RemaskError) as refused:
        check_memory(large, shuffle_examples=65_536, free=free)
    said = str(refused.value)
    assert f"'make records CSV=... OUT={data_set.folder} ARGS=\"--overwrite --num_shards 8\"'" in said
    check_memory(with_train_shards(data_set, *[2 * 10**8 // 8] * 8), shuffle_examples=65_536, free=free)
    with pytest.raises(RemaskError):
        check_memory(large, shuffle_examples=65_536, free=0)
