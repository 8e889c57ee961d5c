"""The end of a job: a data set only where all is as this job made it, and no other job was there."""

import google_crc32c
import pytest

from pipelines import publish as publishing
from pipelines.documents import Rows, Shape
from pipelines.publish import publish
from pipelines.shards.shards import Kept, Layout
from pipelines.sources import source
from records import storage
from records.errors import RemaskError
from records.format.manifest import SPLITS, Data, Manifest, Shard, Tokenizer
from records.storage import folder_lock
from tests.records.made import toy_tokenizer
from tests.said import must_name

DESCRIBED = Data(8, "pack", 0.05, "", Tokenizer.of(toy_tokenizer()), dict.fromkeys(SPLITS, ()), ())
CONTENT = b"not looked into"
SHARD = Shard(
    "train-00000-of-00001.tfrecord", 3, 3, 24, len(CONTENT), f"{google_crc32c.value(CONTENT):08x}", "0123456789abcdef"
)


@pytest.fixture(params=["disk", pytest.param("bucket", marks=pytest.mark.cloud)])
def shape(request, tmp_path):
    """Return the shape of a job that has written its one shard and two files of malformed rows."""
    folder = f"{tmp_path}/out"
    if request.param == "bucket":
        request.getfixturevalue("cloud")
        folder = "gs://bucket/out"
    lock = folder_lock.take(folder, what="job", instead="")
    job = lock.id
    shape = Shape(folder, "", 1 << 20, "text", "utf-8", 0.05, 1, Layout(8, "pack", 2, 3, 40, False), job)
    source.write_list(shape.sources, ["/in/a.csv", "/in/b/c.csv"])
    storage.write_bytes(f"{folder}/{SHARD.file}", CONTENT)
    storage.write_bytes(f"{shape.letters}/000001-0.jsonl", b"second\n")
    storage.write_bytes(f"{shape.letters}/000000-0.jsonl", b"first\n")
    for path in (f"{shape.letters}/000000-0.jsonl", f"{folder}/{SHARD.file}"):
        storage.write_bytes(f"{path}.0123abcd.partial", b"left by a worker that was killed\n")
    yield shape
    lock.release()


def take_over(shape):
    return folder_lock.take(shape.folder, what="job", instead="", take_over=True)


def run(shape, **replaced):
    rows, kept = {0: Rows(3, 0, 1), 1: Rows(2, 1)}, {0: Kept(2), 1: Kept(1)}
    arguments = {"shards": [("train", SHARD)], "rows": rows, "kept": kept, "shape": shape, "about": {"created": "now"}}
    publish(DESCRIBED, **{**arguments, **replaced})


def message(shape, **replaced):
    with pytest.raises(RemaskError) as refused:
        run(shape, **replaced)
    assert not storage.exists(f"{shape.folder}/manifest.json")
    return str(refused.value)


def test_the_manifest_comes_last_and_work_is_gone(shape):
    run(shape)
    made = Manifest.from_json(storage.read_bytes(f"{shape.folder}/manifest.json"))
    assert made.data.splits == {"train": (SHARD,), "validation": ()}
    assert [(each.file, each.rows, each.documents) for each in made.data.sources] == [
        ("a.csv", 3, 2),
        ("b/c.csv", 2, 1),
    ]
    assert made.job == {"id": shape.job, "created": "now"}
    assert storage.read_bytes(f"{shape.folder}/dead_letters.jsonl") == b"first\nsecond\n"
    assert not storage.exists(f"{shape.folder}/.work")
    assert set(storage.files(shape.folder)) == {SHARD.file, "dead_letters.jsonl", "manifest.json", ".lock"}


def test_an_engine_that_runs_it_twice_does_not_touch_what_is_another_jobs_by_then(shape):
    run(shape)
    other = take_over(shape)
    storage.write_bytes(f"{shape.folder}/.work/{shape.job}/sources.json", b"ours")
    theirs = (f".work/{other.id}/sources.json", ".work/blocks/0.block", f"{SHARD.file}.0123abcd.partial")
    for name in theirs:
        storage.write_bytes(f"{shape.folder}/{name}", b"theirs")
    run(shape)
    assert all(storage.exists(f"{shape.folder}/{name}") for name in theirs)
    assert not storage.exists(f"{shape.folder}/.work/{shape.job}/sources.json")
    other.check()
    other.release()


def test_an_engine_may_run_it_twice(shape):
    run(shape)
    before = storage.read_bytes(f"{shape.folder}/manifest.json")
    storage.write_bytes(f"{shape.folder}/.work/blocks/0.block", b"{}")  # it was interrupted before it had removed this
    run(shape, about={"created": "later"})
    assert storage.read_bytes(f"{shape.folder}/manifest.json") == before
    assert not storage.exists(f"{shape.folder}/.work")


def test_a_shard_that_another_job_has_written_makes_no_data_set(shape):
    storage.write_bytes(f"{shape.folder}/{SHARD.file}", CONTENT + b"!")
    must_name(
        message(shape),
        f"{shape.folder}:",
        f"another job has written {SHARD.file}",
        "no data set",
        "run it again with another OUT=",
    )


def test_a_shard_of_the_same_size_is_told_by_its_checksum_in_a_bucket(shape):
    storage.write_bytes(f"{shape.folder}/{SHARD.file}", CONTENT[::-1])
    if storage.is_remote(shape.folder):
        assert f"another job has written {SHARD.file}" in message(shape)
    else:
        run(shape)  # a listing of the local disk says no more than the size: `make verify` finds it


def test_a_shard_that_is_gone_makes_no_data_set(shape):
    storage.remove(f"{shape.folder}/{SHARD.file}")
    assert f"another job has written {SHARD.file}" in message(shape)


def test_a_folder_that_was_taken_over_is_left_alone(shape):
    other = take_over(shape)
    must_name(
        message(shape),
        f"{shape.folder}:",
        "another job has taken it over",
        "no data set",
        "run it again with another OUT=",
    )
    assert not storage.exists(f"{shape.folder}/dead_letters.jsonl")
    other.release()


def test_a_folder_that_is_taken_over_while_the_shards_are_looked_at_is_left_alone(shape, monkeypatch):
    look, others = publishing._check_shards, []

    def slowly(folder, data):
        look(folder, data)
        others.append(take_over(shape))

    monkeypatch.setattr(publishing, "_check_shards", slowly)
    assert "another job has taken it over" in message(shape)
    assert storage.exists(shape.letters)
    others[0].release()


@pytest.mark.parametrize("outlives", [False, True])
def test_the_lock_of_a_job_that_outlives_its_command_is_given_back_at_its_end(shape, outlives):
    other = take_over(shape)
    if outlives:
        other.outlive()
    storage.write_bytes(f"{shape.folder}/.work/{other.id}/sources.json", storage.read_bytes(shape.sources))
    run(shape._replace(job=other.id))
    assert storage.exists(f"{shape.folder}/.lock") != outlives
    other.release()
    assert not storage.exists(f"{shape.folder}/.lock")


def test_of_two_manifests_the_first_one_stays(shape, monkeypatch):
    """The other job writes its own between our last look and our writing."""
    path, write = f"{shape.folder}/manifest.json", storage.write_bytes

    def write_late(target, content, *, generation=None):
        write(target, b"theirs")
        write(target, content, generation=generation)

    monkeypatch.setattr(storage, "write_bytes", write_late)
    with pytest.raises(RemaskError) as refused:
        run(shape)
    must_name(
        str(refused.value),
        f"{shape.folder}:",
        "another job has written its manifest.json",
        "no data set",
        "run it again with another OUT=",
    )
    assert storage.read_bytes(path) == b"theirs"


def test_nothing_left_is_no_data_set(shape):
    must_name(
        message(shape, shards=[], rows={0: Rows(1, 1)}, kept={}),
        "a.csv, b/c.csv:",
        "none of the 1 rows",
        "1 malformed",
        f"{shape.folder}/dead_letters.jsonl",
    )
