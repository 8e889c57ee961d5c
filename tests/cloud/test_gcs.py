"""What the local storage promises, asked by the clients that rely on it."""

import base64
import os
import sys
from pathlib import Path

import google_crc32c
import pytest
import requests
from google.api_core import exceptions
from google.cloud import storage
from google.cloud.storage.exceptions import InvalidResponse

from tests import processes

pytestmark = pytest.mark.cloud


@pytest.fixture
def client(cloud):
    with storage.Client() as client:
        yield client


@pytest.fixture
def bucket(client):
    return client.bucket("bucket")


def seen(cloud, method, path=""):
    return [entry for entry in cloud.log if entry.method == method and path in entry.path]


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 21) + 3])
def test_an_object_of_any_size_comes_back_whole_and_with_its_checksums(bucket, size):
    content = os.urandom(size)
    with bucket.blob("folder/resumable").open("wb", chunk_size=1 << 20) as file:
        file.write(content)
    bucket.blob("folder/multipart").upload_from_string(content, checksum="crc32c")
    for name in ("folder/resumable", "folder/multipart"):
        blob = bucket.get_blob(name)
        assert blob.download_as_bytes(checksum="crc32c") == blob.download_as_bytes(checksum="md5") == content
        assert base64.b64decode(blob.crc32c) == google_crc32c.value(content).to_bytes(4, "big")


def test_ranges(bucket):
    blob = bucket.blob("letters")
    blob.upload_from_string(b"abcdef")
    assert blob.download_as_bytes(start=2, end=3) == b"cd"
    assert blob.download_as_bytes(start=4) == b"ef"
    assert blob.download_as_bytes(start=-2) == b"ef"
    assert blob.download_as_bytes(start=4, end=99) == b"ef"
    with pytest.raises(exceptions.RequestRangeNotSatisfiable):
        blob.download_as_bytes(start=6)


def test_generations_are_preconditions(bucket):
    blob = bucket.blob("one")
    blob.upload_from_string(b"1", if_generation_match=0)
    first = blob.generation
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("one").upload_from_string(b"2", if_generation_match=0)
    resumable = bucket.blob("one").open("wb", chunk_size=1 << 18, if_generation_match=0)
    with pytest.raises(InvalidResponse, match="412"):
        resumable.write(b"2" * (1 << 18))
    resumable.terminate()
    bucket.blob("one").upload_from_string(b"2", if_generation_match=first)
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("one").delete(if_generation_match=first)
    assert bucket.blob("one").download_as_bytes() == b"2"
    with pytest.raises(exceptions.NotFound):
        bucket.blob("one", generation=first).download_as_bytes()


def test_lists_come_in_pages(cloud, client, bucket, monkeypatch):
    monkeypatch.setattr(cloud.storage, "page_size", 2)
    names = ["a/1", "a/2", "a/b/3", "a/b/4", "c"]
    for name in names:
        cloud.storage.put("bucket", name, b"")
    assert [blob.name for blob in client.list_blobs("bucket")] == names
    assert len(seen(cloud, "GET", "/o")) == 3
    found = client.list_blobs("bucket", prefix="a/", delimiter="/")
    assert ([blob.name for blob in found], found.prefixes) == (["a/1", "a/2"], {"a/b/"})
    assert [blob.name for blob in client.list_blobs("bucket", start_offset="a/2", end_offset="a/b/4")] == names[1:3]


@pytest.mark.parametrize(
    ("glob", "names"),
    [("a/*", ["a/1", "a/2"]), ("a/**", ["a/1", "a/2", "a/b/3"]), ("**/3", ["a/b/3"]), ("{c,a/[2-9]}", ["a/2", "c"])],
)
def test_globs(cloud, client, glob, names):
    for name in ("a/1", "a/2", "a/b/3", "c"):
        cloud.storage.put("bucket", name, b"")
    assert [blob.name for blob in client.list_blobs("bucket", match_glob=glob)] == names


def test_composed_rewritten_and_copied_objects(cloud, bucket, monkeypatch):
    monkeypatch.setattr(cloud.storage, "rewritten_at_once", 4)
    for name in "ab":
        bucket.blob(name).upload_from_string(name * 3)
    made = bucket.blob("both")
    made.compose([bucket.blob("a"), bucket.blob("b")])
    assert (made.download_as_bytes(), made.component_count, made.md5_hash) == (b"aaabbb", 2, None)
    token, done, size = bucket.blob("again").rewrite(made)
    assert (done, size) == (4, 6)
    assert bucket.blob("again").rewrite(made, token=token) == (None, 6, 6)
    assert bucket.copy_blob(made, bucket, "copy").download_as_bytes() == b"aaabbb"
    with pytest.raises(exceptions.BadRequest):
        made.compose([bucket.blob("a")] * 33)


def test_a_batch_answers_each_part(cloud, client, bucket):
    cloud.storage.put("bucket", "there", b"")
    batch = client.batch(raise_exception=False)
    with batch:
        bucket.blob("there").delete()
        bucket.blob("not there").delete()
    assert [answer.status_code for answer in batch._responses] == [204, 404]
    assert not cloud.storage.objects("bucket")
    assert len(seen(cloud, "POST", "/batch")) == 1


def test_damage_on_the_way_is_refused(bucket):
    blob = bucket.blob("one")
    blob.crc32c = "AAAAAA=="
    with pytest.raises(exceptions.BadRequest, match="doesn't match"):
        blob.upload_from_string(b"content", checksum=None)


def test_buckets_that_are_not_there_or_not_ours(cloud, client):
    cloud.storage.create_bucket("theirs", readers=set(), writers=set())
    cloud.storage.create_bucket("read-only", writers=set())
    cloud.storage.create_bucket("unpaid", billing=False)
    with pytest.raises(exceptions.NotFound, match="bucket does not exist"):
        client.bucket("none").blob("name").download_as_bytes()
    with pytest.raises(exceptions.Forbidden, match=r"trainer@.* does not have storage\.objects\.get access"):
        client.bucket("theirs").blob("name").download_as_bytes()
    with pytest.raises(exceptions.Forbidden, match=r"storage\.objects\.create"):
        client.bucket("read-only").blob("name").upload_from_string(b"")
    with pytest.raises(exceptions.Forbidden, match="billing account"):
        client.bucket("unpaid").blob("name").upload_from_string(b"")
    permissions = ["storage.objects.get", "storage.objects.create"]
    assert client.bucket("read-only").test_iam_permissions(permissions) == permissions[:1]


@pytest.mark.parametrize("kind", [429, 500, 503, "reset", "truncate", "expire"])
def test_faults_strike_the_nth_request_and_clients_get_over_them(cloud, bucket, kind):
    cloud.storage.put("bucket", "one", b"content" * 1000)
    cloud.fail(lambda request: request.method == "GET" and request.path.endswith("/one"), kind, nth=2)
    assert [bucket.blob("one").download_as_bytes() for _ in range(3)] == [b"content" * 1000] * 3
    asked = seen(cloud, "GET", "/one")
    assert [entry.status for entry in asked] == [
        200,
        {"expire": 401}.get(kind, kind if isinstance(kind, int) else 0),
        200,
        200,
    ]


def test_a_read_that_stalls_runs_into_the_clients_patience(cloud, bucket):
    cloud.storage.put("bucket", "one", b"content")
    cloud.fail(lambda request: request.path.endswith("/one"), "stall", times=9)
    with pytest.raises((requests.exceptions.ConnectionError, exceptions.RetryError)):
        bucket.blob("one").download_as_bytes(timeout=0.1, retry=None)


def test_nobody_is_refused(cloud, monkeypatch):
    with requests.get("https://storage.googleapis.com/storage/v1/b/bucket/o", timeout=9) as answer:
        assert answer.status_code == 401


def test_other_hosts_are_refused_and_noted(cloud):
    with pytest.raises(requests.exceptions.ProxyError):
        requests.get("https://example.com", timeout=9)
    assert cloud.refused == ["example.com:443"]
    cloud.refused.clear()


BEAM = """
from apache_beam.io.gcp.gcsfilesystem import GCSFileSystem
from apache_beam.options.pipeline_options import PipelineOptions
files = GCSFileSystem(PipelineOptions([]))
with files.create("gs://bucket/beam/one") as file: file.write(b"content" * 100_000)
with files.create("gs://bucket/beam/none") as file: pass
files.rename(["gs://bucket/beam/one"], ["gs://bucket/beam/two"])
assert files.open("gs://bucket/beam/two").read() == b"content" * 100_000
(found,) = files.match(["gs://bucket/beam/*"])
assert [(file.path, file.size_in_bytes) for file in found.metadata_list] == [
    ("gs://bucket/beam/none", 0), ("gs://bucket/beam/two", 700_000)], found
files.delete(["gs://bucket/beam/none"])
"""

TENSORFLOW = """
import tensorflow as tf
with tf.io.gfile.GFile("gs://bucket/tf/one", "wb") as file: file.write(b"content" * 100_000)
with tf.io.gfile.GFile("gs://bucket/tf/none", "wb") as file: file.write(b"")
tf.io.gfile.rename("gs://bucket/tf/one", "gs://bucket/tf/two", overwrite=True)
assert tf.io.read_file("gs://bucket/tf/two").numpy() == b"content" * 100_000
assert tf.io.gfile.glob("gs://bucket/tf/*") == ["gs://bucket/tf/none", "gs://bucket/tf/two"]
assert tf.io.gfile.stat("gs://bucket/tf/two").length == 700_000
with tf.io.TFRecordWriter("gs://bucket/tf/records") as writer: writer.write(b"record")
assert [record.numpy() for record in tf.data.TFRecordDataset("gs://bucket/tf/records")] == [b"record"]
kept = tf.train.Checkpoint(step=tf.Variable(7)).save("gs://bucket/tf/checkpoint")
step = tf.Variable(0)
tf.train.Checkpoint(step=step).restore(kept).assert_consumed()
assert step.numpy() == 7
with tf.summary.create_file_writer("gs://bucket/tf/board").as_default(): tf.summary.scalar("loss", 1.0, 1)
tf.io.gfile.remove("gs://bucket/tf/none")
"""


@pytest.mark.parametrize("program", [BEAM, TENSORFLOW], ids=["beam", "tensorflow"])
def test_other_clients(cloud, program):
    done = processes.run(
        [sys.executable, "-c", program],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "1", "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert any(name.endswith("/two") for name in cloud.storage.objects("bucket"))
    assert not any(name.endswith(("/one", "/none")) for name in cloud.storage.objects("bucket"))


def test_the_log_of_a_test_run_shows_the_requests_of_each_test(tmp_path):
    log = tmp_path / "new" / "cloud.log"
    test = "tests/records/storage/test_gcs.py::test_a_file_that_is_read_whole_costs_one_request"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test, "--cloud-log", str(log)]
    done = processes.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    head, *asked = log.read_text().splitlines()
    assert head == test
    assert any(
        line.startswith("  200 GET storage.googleapis.com/download/storage/v1/b/bucket/o/one?") for line in asked
    )
    assert f"{log}: {len(asked)} requests to the local cloud, in 1 tests" in done.stdout
