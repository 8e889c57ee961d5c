import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from records import storage
from records.errors import RemaskError
from records.format import example, reader
from records.format.frame import Frame
from records.format.manifest import Manifest
from tests.records import made
from tests.said import must_name


def again(folder: object) -> str:
    return f"'make records CSV=... OUT={folder} ARGS=--overwrite'"


def refusal(folder: object) -> str:
    with pytest.raises(RemaskError) as caught:
        reader.open_data_set(str(folder))
    return str(caught.value)


def test_open(tmp_path):
    made.data_set(tmp_path, train=(7, 13), validation=(9,), length=16)
    opened = reader.open_data_set(str(tmp_path))
    assert opened.folder == str(tmp_path)
    assert opened.manifest == Manifest.from_json((tmp_path / "manifest.json").read_text())
    assert (opened.max_seq_length, opened.compression) == (16, "")
    assert opened.tokenizer.vocabulary == made.toy_tokenizer().vocabulary
    assert opened.path("train-00001-of-00002.tfrecord") == f"{tmp_path}/train-00001-of-00002.tfrecord"


def test_compression_is_spelled_as_tensorflow_spells_it(tmp_path):
    assert reader.open_data_set(made.data_set(tmp_path, compression="gzip")).compression == "GZIP"


def test_no_folder(tmp_path):
    must_name(
        refusal(tmp_path / "none"), f"{tmp_path}/none:", "no such folder", f"'make records CSV=... OUT={tmp_path}/none'"
    )


def test_no_manifest(tmp_path):
    made.data_set(tmp_path)
    (tmp_path / "manifest.json").unlink()
    must_name(
        refusal(tmp_path),
        f"{tmp_path}:",
        "no manifest.json",
        "not a finished data set",
        f"'make records CSV=... OUT={tmp_path}'",
    )


def test_no_tokenizer(tmp_path):
    made.data_set(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    must_name(refusal(tmp_path), f"{tmp_path}/tokenizer.json:", "missing", "copy it again", again(tmp_path))


def test_another_tokenizer(tmp_path):
    made.data_set(tmp_path)
    other = made.toy_tokenizer(words=41)
    other.save(str(tmp_path))
    must_name(
        refusal(tmp_path),
        f"{tmp_path}/tokenizer.json:",
        f"sha256 is {other.sha256}",
        "manifest",
        f"{made.toy_tokenizer().sha256}",
        again(tmp_path),
    )


def test_another_config_of_the_tokenizer(tmp_path):
    made.data_set(tmp_path)
    expected = made.toy_tokenizer().config_sha256
    content = (tmp_path / "tokenizer_config.json").read_bytes().replace(b"}", b" }")
    (tmp_path / "tokenizer_config.json").write_bytes(content)
    must_name(
        refusal(tmp_path),
        f"{tmp_path}/tokenizer_config.json:",
        f"found config_sha256 {hashlib.sha256(content).hexdigest()}",
        "manifest",
        expected,
        "copy it again",
        again(tmp_path),
    )


def older(folder: Path) -> None:
    """Make of a data set what an older remask would have made of it."""
    content = json.loads((folder / "manifest.json").read_bytes())
    del content["data"]["tokenizer"]["config_sha256"]
    (folder / "manifest.json").write_text(json.dumps(content))


def test_a_config_whose_checksum_nobody_wrote_down(tmp_path):
    made.data_set(tmp_path)
    older(tmp_path)
    content = (tmp_path / "tokenizer_config.json").read_bytes().replace(b"}", b" }")
    (tmp_path / "tokenizer_config.json").write_bytes(content)
    assert reader.open_data_set(str(tmp_path)).tokenizer.tokenizer_config_json == content


def test_a_config_of_other_special_tokens_whose_checksum_nobody_wrote_down(tmp_path):
    made.data_set(tmp_path)
    older(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"mask_token": "[UNK]"}))
    assert refusal(tmp_path).startswith(
        f"{tmp_path}/tokenizer_config.json: not the one that the records were made with: found mask_id 1 where the "
        f"manifest has 4; "
    )


@pytest.mark.parametrize("file", ["train-00002-of-00004.tfrecord", "validation-00001-of-00002.tfrecord"])
def test_a_missing_shard(tmp_path, file):
    made.data_set(tmp_path)
    (tmp_path / file).unlink()
    must_name(refusal(tmp_path), f"{tmp_path}/{file}:", "missing", "copy it again", again(tmp_path))


@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: content * 2], ids=["short", "long"])
def test_a_short_or_a_long_shard(tmp_path, change):
    made.data_set(tmp_path)
    path = tmp_path / "train-00001-of-00004.tfrecord"
    content = path.read_bytes()
    path.write_bytes(change(content))
    must_name(
        refusal(tmp_path),
        f"{path}:",
        f"{len(change(content)):,} bytes",
        "manifest",
        f"{len(content):,}",
        "copy it again",
        again(tmp_path),
    )


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["train-00000-of-00008.tfrecord"], "/train-00000-of-00008.tfrecord: manifest.json does not list this shard: "),
        (
            ["train-00004-of-00005.tfrecord", "train-00000-of-00008.tfrecord"],
            "/train-00000-of-00008.tfrecord: manifest.json does not list this shard, nor 1 more: ",
        ),
    ],
)
def test_shards_that_another_job_has_left(tmp_path, names, said):
    made.data_set(tmp_path)
    for name in names:
        (tmp_path / name).write_bytes(b"")
    assert refusal(tmp_path).startswith(f"{tmp_path}{said}")


def test_a_manifest_whose_bytes_are_not_those_of_its_sequences(tmp_path):
    made.data_set(tmp_path)
    path = tmp_path / "manifest.json"
    content = json.loads(path.read_bytes())
    shard, record = content["data"]["splits"]["train"][0], reader.open_data_set(str(tmp_path)).frame.size
    shard["bytes"] += record
    path.write_text(json.dumps(content))
    os.truncate(tmp_path / shard["file"], shard["bytes"])
    said = refusal(tmp_path)
    assert said.startswith(
        f"{path}: train-00000-of-00004.tfrecord has {8 * record:,} bytes, expected {7 * record} of its 7 "
    )


@pytest.mark.cloud
def test_another_shard_of_the_same_size_in_a_bucket(cloud):
    """A listing there has the checksums, so that it is found without being read."""
    folder = made.data_set("gs://bucket/out", train=(7, 7), validation=(4,))
    reader.open_data_set(folder)
    names = [f"{folder}/train-{number:05}-of-00002.tfrecord" for number in range(2)]
    storage.write_bytes(names[1], storage.read_bytes(names[0]))
    first, second = reader.open_without_shards(folder).manifest.data.splits["train"]
    must_name(
        refusal(folder),
        f"{names[1]}:",
        f"crc32c is {first.crc32c}",
        "manifest",
        second.crc32c,
        "copy it again",
        again(folder),
    )


def test_a_data_set_may_be_opened_whatever_its_shards_are_like(tmp_path):
    made.data_set(tmp_path)
    for shard in tmp_path.glob("*.tfrecord"):
        shard.unlink()
    assert reader.open_without_shards(str(tmp_path)).max_seq_length == 16


FRAME = Frame(4, 52)
ROWS = example.encode(np.array([[2, 30, 3, 0], [2, 31, 32, 3]]), np.array([9, 2**63 - 1]), FRAME)


def test_parse():
    input_ids, example_id = reader.parse(tf.constant(ROWS), FRAME)
    assert (input_ids.dtype, example_id.dtype) == (tf.int32, tf.int64)
    assert input_ids.numpy().tolist() == [[2, 30, 3, 0], [2, 31, 32, 3]]
    assert example_id.numpy().tolist() == [9, 2**63 - 1]


def test_parse_knows_its_shapes_in_a_graph():
    traced = tf.function(lambda rows: reader.parse(rows, FRAME))
    input_ids, example_id = traced.get_concrete_function(tf.TensorSpec([None, FRAME.size], tf.uint8)).structured_outputs
    assert (input_ids.shape.as_list(), example_id.shape.as_list()) == ([None, 4], [None])


@pytest.mark.parametrize("compression", ["", "gzip"])
@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[:-20],
        lambda content: content[:40] + bytes([content[40] ^ 1]) + content[41:],
        lambda content: content[:-30] + bytes([content[-30] ^ 1]) + content[-29:],
    ],
    ids=["cut", "flipped near the start", "flipped near the end"],
)
def test_damage_shows_while_reading(tmp_path, compression, change):
    opened = reader.open_data_set(made.data_set(tmp_path, compression=compression))
    path = tmp_path / opened.manifest.data.splits["train"][0].file
    path.write_bytes(change(path.read_bytes()))
    shard = opened.manifest.data.splits["train"][0]
    with pytest.raises(tf.errors.OpError) as caught:
        reader.read_shard(
            tf.constant(str(path)),
            examples=tf.constant(shard.examples),
            checksum=tf.constant(int(shard.sum64, 16), tf.uint64),
            frame=opened.frame,
            compression=opened.compression,
        )
    assert str(path) not in caught.value.message  # which is why the text of `reader.damaged` says what to do
    must_name(
        str(reader.damaged("out/records", caught.value)), "out/records:", "damaged", "'make verify DATA=out/records'"
    )


def test_errors_about_something_else_are_not_explained_as_damage():
    for error in (tf.errors.InvalidArgumentError, tf.errors.ResourceExhaustedError, tf.errors.OutOfRangeError):
        assert reader.damaged("out/records", error(None, None, "shapes do not match")) is None


def test_a_compressed_shard_that_tensorflow_would_cut_is_refused(tmp_path):
    opened = reader.open_data_set(made.data_set(tmp_path, train=(7,), validation=(), compression="gzip"))
    data = opened.manifest.data
    (shard,) = data.splits["train"]
    most = reader.MOST_UNPACKED // opened.frame.size
    for examples in (most, most + 1):
        shard = replace(shard, examples=examples, segments=examples, tokens=3 * examples)
        grown = {**data.splits, "train": (shard,)}
        made.save(opened.folder, replace(opened.manifest, data=replace(data, splits=grown)))
        if examples == most:
            reader.open_data_set(opened.folder)
            continue
        with pytest.raises(RemaskError) as refused:
            reader.open_data_set(opened.folder)
        said = str(refused.value)
        for text in (
            shard.file,
            f"{examples * opened.frame.size:,}",
            "2,147,483,647",
            'ARGS="--overwrite --num_shards 4"',
            "--compression",
        ):
            assert text in said
        grown = {**data.splits, "train": (replace(shard, bytes=examples * opened.frame.size),)}
        os.truncate(opened.path(shard.file), examples * opened.frame.size)
        plain = replace(opened.manifest, data=replace(data, splits=grown, compression=""))
        made.save(opened.folder, plain)
        reader.open_data_set(opened.folder)
