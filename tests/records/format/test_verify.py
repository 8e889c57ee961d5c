import dataclasses
from pathlib import Path

import numpy as np
import pytest

from records import storage
from records.config import VerifyOptions
from records.errors import RemaskError
from records.format import manifest, reader, verify
from records.storage import gcs
from tests.records import made
from tests.records.made import CLS, FIRST_WORD, MASK, PAD, SEP, Records
from tests.said import must_name

TRAIN = "train-00000-of-00002.tfrecord"
FRAME = 12  # bytes before a payload
VOCABULARY = 52  # tokens of the toy tokenizer
A, B, C = FIRST_WORD, FIRST_WORD + 1, FIRST_WORD + 2


@pytest.fixture
def folder(tmp_path):
    return Path(made.data_set(tmp_path, train=(7, 7), validation=(4,)))


def verdicts(folder: Path, capsys) -> tuple[list[str], str]:
    """Verify; return the lines that are printed, and the error, without the folder's name."""
    said = ""
    try:
        assert verify.main(VerifyOptions(str(folder))) == 0
    except RemaskError as error:
        said = str(error)
    return capsys.readouterr().out.replace(f"{folder}", "DIR").splitlines(), said.replace(f"{folder}", "DIR")


def damage(folder: Path, capsys) -> str:
    """Return the verdict on the first shard, the only one that is damaged."""
    lines, said = verdicts(folder, capsys)
    must_name(
        said, "DIR:", "1 of 3 shards damaged", "copy those again", "'make records CSV=... OUT=DIR ARGS=--overwrite'"
    )
    assert [line.split()[0] for line in lines] == ["DAMAGED", "ok", "ok"]
    return lines[0].removeprefix(f"DAMAGED  DIR/{TRAIN}")


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def refill(folder: Path, rows: list[list[int]], *, example_id: list[int] | None = None) -> None:
    """Replace the first shard by these records, and let the manifest agree."""
    held = Records(np.array(rows), np.array(example_id or range(len(rows))))
    shard = made.write_shard(str(folder), TRAIN, held, vocab_size=VOCABULARY)
    described(folder, **dataclasses.asdict(shard))


def described(folder: Path, **changes: object) -> None:
    """Change what the manifest says of the first shard."""
    found = manifest.load(str(folder))
    first, *others = found.data.splits["train"]
    splits = {**found.data.splits, "train": (dataclasses.replace(first, **changes), *others)}
    made.save(str(folder), dataclasses.replace(found, data=dataclasses.replace(found.data, splits=splits)))


@pytest.mark.parametrize("compression", ["", "gzip"])
def test_a_whole_data_set(tmp_path, capsys, compression):
    made.data_set(tmp_path, train=(7, 7), validation=(4,), compression=compression)
    lines, said = verdicts(tmp_path, capsys)
    assert said == ""
    splits = manifest.load(str(tmp_path)).data.splits
    assert lines == [
        f"ok       {TRAIN}: 7 sequences, {splits['train'][0].tokens} tokens",
        f"ok       train-00001-of-00002.tfrecord: 7 sequences, {splits['train'][1].tokens} tokens",
        f"ok       validation-00000-of-00001.tfrecord: 4 sequences, {splits['validation'][0].tokens} tokens",
        "DIR: all 3 shards are as the manifest says. Next: make train DATA=DIR",
    ]


def test_the_next_command_works_as_printed(tmp_path, capsys):
    """No model has a vocabulary that was made from the text, and a folder may have a space in its name."""
    folder = Path(made.data_set(tmp_path / "my set", tokenizer=made.toy_tokenizer(name="train:52")))
    lines, _ = verdicts(folder, capsys)
    assert lines[-1].endswith(' Next: make train DATA="DIR" ARGS="--preset sample"')


def test_a_data_set_of_which_nothing_is_held_out(tmp_path, capsys):
    made.data_set(tmp_path, train=(7, 7), validation=())
    lines, said = verdicts(tmp_path, capsys)
    assert said == ""
    assert [line.split()[0] for line in lines] == ["ok", "ok", "DIR:"]
    assert reader.open_data_set(str(tmp_path)).manifest.examples("validation") == 0


def test_counts(folder):
    opened = reader.open_data_set(str(folder))
    for shard in opened.manifest.data.splits["train"]:
        found = verify.check_shard(opened, shard)
        assert found == (shard.examples, shard.segments, shard.tokens, shard.sum64)


def test_a_flipped_bit_in_a_payload(folder, capsys):
    record = storage.size(f"{folder}/{TRAIN}") // 7
    flip(folder / TRAIN, 3 * record + FRAME + 20)
    assert damage(folder, capsys) == ", record 3: the CRC of its content is wrong"


def test_a_flipped_bit_in_a_length(folder, capsys):
    flip(folder / TRAIN, 2 * (storage.size(f"{folder}/{TRAIN}") // 7))
    assert damage(folder, capsys) == ", record 2: the CRC of its length is wrong"


def test_a_shard_cut_within_a_record(folder, capsys):
    content = (folder / TRAIN).read_bytes()
    (folder / TRAIN).write_bytes(content[:-9])
    assert damage(folder, capsys) == ", record 6: the file ends inside the record"


def test_a_shard_cut_between_records(folder, capsys):
    content = (folder / TRAIN).read_bytes()
    (folder / TRAIN).write_bytes(content[: len(content) // 7 * 5])
    assert damage(folder, capsys) == ": 5 examples, the manifest says 7"


def test_a_shard_that_is_missing(folder, capsys):
    (folder / TRAIN).unlink()
    assert damage(folder, capsys) == ": no such file or directory"


def test_a_shard_that_cannot_be_read_is_not_said_to_be_damaged(folder, capsys):
    (folder / TRAIN).unlink()
    (folder / TRAIN).mkdir()
    lines, said = verdicts(folder, capsys)
    assert said == f"DIR/{TRAIN}: is a directory"
    assert not [line for line in lines if line.startswith("DAMAGED")]


@pytest.mark.cloud
def test_a_bucket_that_is_not_well_damages_nothing(tmp_path, cloud, capsys, monkeypatch):
    monkeypatch.setattr(gcs, "PATIENCE", 0.2)
    for name, content in ((path.name, path.read_bytes()) for path in Path(made.data_set(tmp_path)).iterdir()):
        cloud.storage.put("bucket", f"set/{name}", content)
    cloud.fail(lambda request: ".tfrecord" in request.path, 503, times=1 << 20)
    with pytest.raises(RemaskError, match=r"\.tfrecord: Google Cloud Storage is not well \(503"):
        verify.main(VerifyOptions("gs://bucket/set"))
    assert "DAMAGED" not in capsys.readouterr().out


def test_swapped_shards_of_the_same_size(folder, capsys):
    rows = [[CLS, A, SEP, PAD]], [[CLS, B, SEP, PAD]]
    shards = [Records(np.array(row), np.array([1])) for row in rows]
    made.write(str(folder), {"train": shards, "validation": [Records(np.array([[CLS, C, SEP, PAD]]), np.array([1]))]})
    one, two = folder / TRAIN, folder / "train-00001-of-00002.tfrecord"
    (first, second), said = (one.read_bytes(), two.read_bytes()), ""
    one.write_bytes(second)
    two.write_bytes(first)
    lines, said = verdicts(folder, capsys)
    checks = [shard.crc32c for shard in manifest.load(str(folder)).data.splits["train"]]
    assert lines[:2] == [
        f"DAMAGED  DIR/{TRAIN}: crc32c is {checks[1]}, the manifest says {checks[0]}",
        f"DAMAGED  DIR/train-00001-of-00002.tfrecord: crc32c is {checks[0]}, the manifest says {checks[1]}",
    ]
    assert said.startswith("DIR: 2 of 3 shards damaged;")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([CLS, 52, SEP, *[PAD] * 13], "an id outside the vocabulary of 52"),
        ([CLS, 127, SEP, *[PAD] * 13], "an id outside the vocabulary of 52"),
        ([A, B, SEP, *[PAD] * 13], "it does not start with [CLS], id 2"),
        ([PAD] * 16, "it does not start with [CLS], id 2"),
        ([CLS, A, PAD, B, SEP, *[PAD] * 11], "a token after the padding"),
        ([CLS, A, SEP, PAD, CLS, B, SEP, *[PAD] * 9], "a token after the padding"),
        ([CLS, A, MASK, SEP, *[PAD] * 12], "it holds [MASK], id 4, before anything was masked"),
        ([CLS, A, B, C, *[PAD] * 12], "a segment that does not run from one [CLS] to one [SEP]"),
        ([CLS, *[A] * 15], "a segment that does not run from one [CLS] to one [SEP]"),
        ([CLS, A, CLS, B, SEP, SEP, *[PAD] * 10], "a segment that does not run from one [CLS] to one [SEP]"),
        ([CLS, A, SEP, B, CLS, B, SEP, *[PAD] * 9], "a segment that does not run from one [CLS] to one [SEP]"),
        ([CLS, A, SEP, SEP, *[PAD] * 12], "a segment that does not run from one [CLS] to one [SEP]"),
        ([CLS, A, SEP, B, *[PAD] * 12], "a segment that does not run from one [CLS] to one [SEP]"),
    ],
)
def test_records_that_are_no_sequences(folder, capsys, row, reason):
    good = [[CLS, A, SEP, CLS, B, C, SEP, *[PAD] * 9], [CLS, *[A] * 14, SEP]]
    refill(folder, [*good, row, good[0]])
    assert damage(folder, capsys) == f", record 2: {reason}"


@pytest.mark.parametrize(("ids", "record"), [([5, 6, 6], 2), ([5, 4, 6], 1), ([2**63 - 1, 5, 6], 1)])
def test_example_ids_that_do_not_ascend(folder, capsys, ids, record):
    refill(folder, [[CLS, A, SEP, *[PAD] * 13]] * 3, example_id=ids)
    assert damage(folder, capsys) == f", record {record}: its example_id is not above the one before"


def test_faults_are_found_beyond_the_first_batch(folder, capsys, monkeypatch):
    monkeypatch.setattr(verify, "_BATCH", 2)
    rows = [[CLS, A, SEP, *[PAD] * 13]] * 5
    refill(folder, [*rows[:4], [CLS, A, *[PAD] * 14]])
    assert damage(folder, capsys) == ", record 4: a segment that does not run from one [CLS] to one [SEP]"
    refill(folder, rows, example_id=[1, 2, 3, 4, 4])
    assert damage(folder, capsys) == ", record 4: its example_id is not above the one before"
    refill(folder, rows, example_id=[1, 2, 2, 4, 5])  # across the border of two batches
    assert damage(folder, capsys) == ", record 2: its example_id is not above the one before"


def test_records_of_another_length(folder, capsys):
    good, long = Records(np.array([[CLS, A, SEP, *[PAD] * 13]]), np.array([1])), [[CLS, A, SEP, *[PAD] * 14]]
    parts = []
    for held in (good, good, Records(np.array(long), np.array([2])), good):
        made.write_shard(str(folder), "part", held, vocab_size=VOCABULARY)
        parts.append((folder / "part").read_bytes())
    (folder / TRAIN).write_bytes(b"".join(parts))
    assert damage(folder, capsys) == (
        ", record 2: not an Example with 16 input_ids and one example_id, laid out as ours are"
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"examples": 8, "segments": 20}, "7 examples, the manifest says 8"),
        ({"segments": 20}, "{segments} segments, the manifest says 20"),
        ({"tokens": 50}, "{tokens} tokens, the manifest says 50"),
        ({"bytes": 1}, "{bytes} bytes, the manifest says 1"),
        ({"crc32c": "00000000"}, "crc32c is {crc32c}, the manifest says 00000000"),
        ({"sum64": "0" * 16}, "sum64 is {sum64}, the manifest says 0000000000000000"),
    ],
)
def test_a_manifest_that_says_something_else(folder, capsys, changes, reason):
    shard = manifest.load(str(folder)).data.splits["train"][0]
    described(folder, **changes)
    assert damage(folder, capsys) == ": " + reason.format_map(dataclasses.asdict(shard))


def test_shards_that_another_job_has_left(folder, capsys):
    for name in ("train-00007-of-00008.tfrecord", "validation-00000-of-00001.tfrecord.0123abcd.partial", "notes.txt"):
        (folder / name).write_bytes(b"")
    lines, said = verdicts(folder, capsys)
    assert [line.split()[0] for line in lines] == ["ok", "ok", "ok", "UNKNOWN"]
    assert lines[-1].startswith("UNKNOWN  DIR/train-00007-of-00008.tfrecord: ")
    assert said == (
        "DIR: 1 of the shards there are none of manifest.json's: another job has left them; remove what is named "
        "UNKNOWN above"
    )


def test_a_folder_that_is_no_data_set(tmp_path):
    with pytest.raises(RemaskError, match=r"no manifest\.json, so this is not a finished data set"):
        verify.main(VerifyOptions(str(tmp_path)))
