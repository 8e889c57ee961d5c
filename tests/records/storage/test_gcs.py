"""What is particular to objects in buckets: requests, faults and refusals. Of any file, test_storage asks."""

import io
import json
import os
import re
import tempfile
from collections.abc import Iterator
from datetime import timedelta

import google_crc32c
import pytest
from google.cloud.storage.retry import DEFAULT_RETRY

from records import paths, storage
from records.errors import Changed, RemaskError
from records.storage import gcs
from tests.cloud import gcs as service
from tests.cloud.cloud import ACCOUNT
from tests.cloud.http import of_json
from tests.processes import LIMIT
from tests.said import must_name

pytestmark = pytest.mark.cloud

MIB = 1 << 20
HOW_TO_GET = (
    "'gcloud auth application-default login'",
    "key file of a service account",
    "GOOGLE_APPLICATION_CREDENTIALS",
)
AGAIN = "run the same command again later"
NETWORK = ("look at the network", "HTTPS_PROXY")
GRANT = f"gcloud storage buckets add-iam-policy-binding gs://theirs --member=serviceAccount:{ACCOUNT} --role="


@pytest.fixture(autouse=True)
def client(cloud, monkeypatch) -> Iterator[None]:
    """Give each test a client of its own, which does not wait long before it tries again."""
    monkeypatch.setattr(gcs, "DEFAULT_RETRY", DEFAULT_RETRY.with_delay(initial=0.01, maximum=0.1))
    gcs.client.cache_clear()
    yield
    gcs.client.cache_clear()


@pytest.fixture
def impatient(monkeypatch) -> None:
    """Give up after a while, in which even a machine with much to do has time for a second try, a second later."""
    monkeypatch.setattr(gcs, "PATIENCE", 4.0)


def stalls(monkeypatch, kind: str | int, seconds: float) -> None:
    """Let what stalls be noticed after some seconds; nothing else is to look like it where the machine is slow."""
    if kind == "stall":
        monkeypatch.setattr(gcs, "_TIMEOUT", (60.0, seconds))


def refusal(call, *arguments, **options) -> str:
    with pytest.raises(RemaskError) as caught:
        call(*arguments, **options)
    return str(caught.value)


def read(path: str) -> bytes:
    with storage.open_read(path) as file:
        return file.read()


def write(path: str, content: bytes = b"content", *, in_parts: bool = False) -> None:
    with storage.open_write(path, in_parts=in_parts) as file:
        file.write(content)


def asked(cloud, method: str = "", path: str = "") -> list[str]:
    """Return how requests for objects were answered; the library asks of the bucket in the background, too."""
    return [
        f"{entry.status} {entry.method} {entry.range}".rstrip()
        for entry in cloud.log
        if method in entry.method and path in entry.path and ("/o" in entry.path or "/batch" in entry.path)
    ]


def is_read(request) -> bool:
    return request.path.startswith("/download/")


def is_write(request) -> bool:
    return request.path.startswith("/upload/")


# Requests


def test_a_file_that_is_read_whole_costs_one_request(cloud):
    cloud.storage.put("bucket", "one", b"content")
    assert storage.read_bytes("gs://bucket/one") == b"content"
    assert asked(cloud) == ["200 GET"]


def test_what_is_read_in_sequence_comes_in_ranges_that_grow(cloud):
    cloud.storage.put("bucket", "one", os.urandom(8 * MIB))
    assert read("gs://bucket/one") == cloud.storage.objects("bucket")["one"]
    assert asked(cloud, path="/download/") == [
        "206 GET bytes=0-1048575",
        "206 GET bytes=1048576-3145727",
        "206 GET bytes=3145728-7340031",
        "206 GET bytes=7340032-8388607",
    ]


def test_a_piece_of_a_file_costs_little_more_than_itself(cloud):
    cloud.storage.put("bucket", "one", os.urandom(16 * MIB))
    with storage.open_read("gs://bucket/one", until=6 * MIB) as file:
        file.seek(2 * MIB)
        assert len(file.read(4 * MIB)) == 4 * MIB
    assert sum(entry.sent for entry in cloud.log if is_read(entry)) == 4 * MIB


def test_many_files_are_looked_at_with_one_request(cloud):
    for number in range(500):
        cloud.storage.put("bucket", f"records/{number}", b"%d" % number)
    found = storage.files("gs://bucket/records")
    assert found["17"] == storage.File(2, f"{google_crc32c.value(b'17'):08x}")
    assert len(found) == 500
    assert asked(cloud) == ["200 GET"]


def test_many_files_are_removed_a_hundred_at_a_time(cloud):
    for number in range(250):
        cloud.storage.put("bucket", f"records/{number}", b"")
    cloud.storage.put("bucket", "records-2", b"")
    storage.remove("gs://bucket/records")
    assert list(cloud.storage.objects("bucket")) == ["records-2"]
    assert asked(cloud) == ["200 GET"] + 3 * ["200 POST"]


def test_many_objects_are_composed_in_steps(cloud):
    parts = [f"letters/{number:04}" for number in range(1100)]
    for part in parts:
        cloud.storage.put("bucket", part, part.encode())
    storage.concatenate([f"gs://bucket/{part}" for part in parts], "gs://bucket/all")
    assert cloud.storage.objects("bucket")["all"] == "".join(parts).encode()
    assert set(cloud.storage.objects("bucket")) == {*parts, "all"}  # no step is left over
    assert len(asked(cloud, "POST", "/compose")) == 35 + 2 + 1


def test_only_objects_that_may_match_are_listed(cloud):
    for name in ("reviews/1.csv", "reviews/deep/2.csv", "reviews/3.txt", "others/4.csv"):
        cloud.storage.put("bucket", name, b"")
    assert storage.matching("gs://bucket/reviews/**/*.csv") == [
        "gs://bucket/reviews/1.csv",
        "gs://bucket/reviews/deep/2.csv",
    ]
    listing = next(entry for entry in cloud.log if entry.path.endswith("/o"))
    assert (listing.query["prefix"], listing.query["matchGlob"]) == ("reviews/", "reviews/***.csv")


def test_lists_of_several_pages(cloud, monkeypatch):
    monkeypatch.setattr(cloud.storage, "page_size", 2)
    for name in "abcde":
        cloud.storage.put("bucket", f"folder/{name}", b"")
    assert set(storage.files("gs://bucket/folder")) == set("abcde")
    assert asked(cloud) == 3 * ["200 GET"]


# Content


def test_a_large_object_is_uploaded_in_chunks_and_from_the_disk(cloud, monkeypatch):
    monkeypatch.setattr(gcs, "_CHUNK", 4 * MIB)
    monkeypatch.setattr(gcs, "_IN_MEMORY", MIB)
    content = os.urandom(9 * MIB)
    write("gs://bucket/one", content)
    assert cloud.storage.objects("bucket") == {"one": content}
    assert asked(cloud, "PUT") == [
        "308 PUT bytes 0-4194303/9437184",
        "308 PUT bytes 4194304-8388607/9437184",
        "200 PUT bytes 8388608-9437183/9437184",
    ]


def test_what_is_larger_than_a_part_is_sent_in_several_at_a_time_and_composed(cloud, monkeypatch):
    monkeypatch.setattr(gcs, "_PART", MIB)
    content = os.urandom(4 * MIB + 1)
    write("gs://bucket/one", content, in_parts=True)
    assert cloud.storage.objects("bucket") == {"one": content}
    assert [entry.path.rpartition("/")[2] for entry in cloud.log if "compose" in entry.path] == ["compose"]
    assert len(asked(cloud, "POST", "/upload/")) == 5
    assert storage.crc32c("gs://bucket/one") == f"{google_crc32c.value(content):08x}"
    write("gs://bucket/two", content)
    assert len(asked(cloud, "POST", "/upload/")) == 6


@pytest.mark.parametrize("how", ["in parts", "composed in steps", "appended"])
def test_what_a_killed_writer_leaves_is_known_as_partial(cloud, monkeypatch, how):
    """Nothing more gets through from the moment at which all but the last request was answered."""
    monkeypatch.setattr(gcs, "_PART", MIB)
    parts = [f"gs://bucket/letters/{number}" for number in range(33)]
    for part in (*parts, "gs://bucket/lines"):
        storage.write_bytes(part, b"one\n")
    before = set(cloud.storage.objects("bucket"))
    steps = 2 if how == "composed in steps" else 0
    cloud.fail(lambda request: request.path.endswith("/compose"), 403, nth=steps + 1, times=1000)
    deletions = cloud.fail(lambda request: "/batch" in request.path, 403, times=1000)
    call = {
        "in parts": lambda: write("gs://bucket/one", bytes(2 * MIB + 1), in_parts=True),
        "composed in steps": lambda: storage.concatenate(parts, "gs://bucket/one"),
        "appended": lambda: storage.append("gs://bucket/lines", b"two\n"),
    }[how]
    assert "is denied" in refusal(call)
    left = set(cloud.storage.objects("bucket")) - before
    assert left
    assert all(map(paths.is_partial, left))
    deletions.times = 0
    storage.remove_partial("gs://bucket")
    assert set(cloud.storage.objects("bucket")) == before


def test_large_content_is_sent_in_parts_too_but_not_under_a_condition(cloud, monkeypatch):
    monkeypatch.setattr(gcs, "_PART", MIB)
    content = os.urandom(2 * MIB)
    storage.write_bytes("gs://bucket/one", content)
    assert len(asked(cloud, "POST", "/upload/")) == 2
    storage.write_bytes("gs://bucket/two", content, generation=0)
    assert len(asked(cloud, "POST", "/upload/")) == 3
    assert cloud.storage.objects("bucket") == {"one": content, "two": content}


def test_an_object_is_composed_of_32_parts_at_most(cloud, monkeypatch):
    monkeypatch.setattr(gcs, "_PART", 1000)
    content = os.urandom(MIB)
    write("gs://bucket/one", content, in_parts=True)
    assert cloud.storage.objects("bucket") == {"one": content}
    assert len(asked(cloud, "POST", "/upload/")) == 32


def test_a_part_that_cannot_be_sent_leaves_nothing(cloud, monkeypatch):
    monkeypatch.setattr(gcs, "_PART", MIB)
    cloud.storage.put("bucket", "one", b"before")
    cloud.fail(is_write, 403, nth=3, times=10)
    assert refusal(write, "gs://bucket/one", os.urandom(4 * MIB), in_parts=True).startswith("gs://bucket/one: ")
    assert cloud.storage.objects("bucket") == {"one": b"before"}


def test_parts_that_are_not_composed_as_they_were_sent_are_noticed(cloud, monkeypatch):
    monkeypatch.setattr(gcs, "_PART", MIB)
    compose = cloud.storage._compose

    def swapping(request, *rest):
        asked = request.json()
        asked["sourceObjects"].reverse()
        return compose(request._replace(body=json.dumps(asked).encode()), *rest)

    monkeypatch.setattr(cloud.storage, "_compose", swapping)
    must_name(
        refusal(write, "gs://bucket/one", os.urandom(2 * MIB), in_parts=True),
        "gs://bucket/one:",
        "2 parts",
        "not what was sent",
        "try again",
    )
    assert cloud.storage.objects("bucket") == {}


@pytest.mark.parametrize("size", [7, 9 * MIB])
def test_an_upload_that_is_damaged_on_the_way_is_refused(cloud, monkeypatch, size):
    stored = cloud.storage._store

    def damaging(bucket, name, content, *rest):
        return stored(bucket, name, b"X" + content[1:], *rest)

    monkeypatch.setattr(cloud.storage, "_store", damaging)
    said = refusal(write, "gs://bucket/one", bytes(size))
    assert said.startswith('gs://bucket/one: Google Cloud Storage refuses it (400: Provided crc32c "')
    assert cloud.storage.objects("bucket") == {}


@pytest.mark.parametrize("call", [read, storage.read_bytes])
def test_a_download_that_is_damaged_on_the_way_is_refused(cloud, call):
    class Damaged(service.Object):
        crc32c = "AAAAAA=="

    cloud.storage.buckets["bucket"].objects["one"] = Damaged("bucket", "one", b"content", generation=1)
    must_name(
        refusal(call, "gs://bucket/one"),
        "gs://bucket/one:",
        f"CRC-32C {google_crc32c.value(b'content'):08x}",
        "the bucket says 00000000",
        "try again",
    )


@pytest.mark.parametrize("again", [b"new", b""])
def test_an_object_that_is_replaced_while_it_is_read(cloud, again):
    cloud.storage.put("bucket", "one", os.urandom(4 * MIB))
    with storage.open_read("gs://bucket/one") as file:
        file.read(10)
        cloud.storage.put("bucket", "one", again)
        with pytest.raises(Changed) as caught:
            file.read()
    must_name(str(caught.value), "gs://bucket/one:", "replaced or removed", "run the same command again")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("size", [100, 10 * MIB])
def test_a_temporary_disk_that_is_full(cloud, monkeypatch, size):
    monkeypatch.setattr(gcs, "_IN_MEMORY", 10)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **options: io.FileIO("/dev/full", "r+"))
    monkeypatch.setattr(tempfile, "gettempdir", lambda: "/scratch")
    must_name(refusal(write, "gs://bucket/one", bytes(size)), "/scratch:", "no space left on device", "free some space")
    assert cloud.storage.objects("bucket") == {}


# Faults

FAULTS = [(429, 429), (500, 500), (503, 503), ("reset", 0), ("truncate", 0), ("stall", 0), ("expire", 401)]


@pytest.mark.parametrize(("kind", "status"), FAULTS)
def test_a_read_gets_over_a_fault(cloud, monkeypatch, kind, status):
    stalls(monkeypatch, kind, 4.0)
    content = os.urandom(2 * MIB)
    cloud.storage.put("bucket", "one", content)
    cloud.fail(is_read, kind, nth=2)
    assert read("gs://bucket/one") == content
    first, failed, again = asked(cloud, path="/download/")
    assert first == "206 GET bytes=0-1048575"
    assert failed == f"{status} GET bytes=1048576-2097151"
    # What had arrived is not asked for again.
    halfway = kind in ("truncate", "stall")
    assert again == f"206 GET bytes={1572864 if halfway else 1048576}-2097151"


@pytest.mark.parametrize(("kind", "status"), FAULTS)
@pytest.mark.parametrize("size", [7, 9 * MIB])
def test_a_write_gets_over_a_fault(cloud, monkeypatch, kind, status, size):
    stalls(monkeypatch, kind, 4.0)
    content = os.urandom(size)
    cloud.fail(is_write, kind, nth=2 if size > 7 else 1)
    write("gs://bucket/one", content)
    assert cloud.storage.objects("bucket") == {"one": content}
    statuses = [int(each.split()[0]) for each in asked(cloud, path="/upload/")]
    assert statuses == ([200] if size > 7 else []) + [status, 200]


@pytest.mark.parametrize("kind", [429, 503, "reset"])
def test_other_requests_get_over_a_fault(cloud, kind):
    for name in ("a", "b", "folder/c"):
        cloud.storage.put("bucket", name, name.encode())
    for path, call in {
        "/compose": lambda: storage.concatenate(["gs://bucket/a", "gs://bucket/b"], "gs://bucket/ab"),
        "/o": lambda: storage.files("gs://bucket/folder"),
        "/o/a": lambda: storage.size("gs://bucket/a"),
        "/batch/": lambda: storage.remove("gs://bucket/folder"),
    }.items():
        cloud.log.clear()
        cloud.fail(lambda request, path=path: path in request.path, kind)
        call()
        status = kind if isinstance(kind, int) else 0
        assert [each.split()[0] for each in asked(cloud, path=path)][:2] == [str(status), "200"], path
    assert cloud.storage.objects("bucket") == {"a": b"a", "b": b"b", "ab": b"ab"}


def test_of_a_batch_only_what_failed_is_asked_for_again(cloud):
    for number in range(5):
        cloud.storage.put("bucket", f"folder/{number}", b"")
    inner = cloud.storage._metadata
    seen = []

    def failing(request, account, rest):
        if request.method == "DELETE":
            seen.append("/".join(rest[2:]))
            if seen[-1] == "folder/3" and seen.count("folder/3") == 1:
                raise service.HttpError(503, "backendError", "once")
        return inner(request, account, rest)

    cloud.storage._metadata = failing
    try:
        storage.remove("gs://bucket/folder")
    finally:
        del cloud.storage._metadata
    assert cloud.storage.objects("bucket") == {}
    assert sorted(seen) == ["folder", *(f"folder/{number}" for number in (0, 1, 2, 3, 3, 4))]


@pytest.mark.parametrize("size", [7, 9 * MIB])
def test_who_wrote_first_but_was_not_told_so_has_still_written_first(cloud, size):
    """The answer is lost, so the request is repeated, and then finds its own object there."""
    cloud.fail(lambda request: is_write(request) and request.method == ("POST" if size == 7 else "PUT"), "reset")
    storage.write_bytes("gs://bucket/one", bytes(size), generation=0)
    assert len(asked(cloud, path="/upload/")) == (2 if size == 7 else 3)
    with pytest.raises(Changed):
        storage.write_bytes("gs://bucket/one", bytes(size + 1), generation=0)


def test_what_was_appended_is_not_appended_twice(cloud):
    cloud.storage.put("bucket", "lines", b"one\n")
    cloud.fail(lambda request: request.path.endswith("/compose"), "reset")
    storage.append("gs://bucket/lines", b"two\n")
    assert asked(cloud, path="/compose") == ["0 POST", "412 POST"]
    assert cloud.storage.objects("bucket") == {"lines": b"one\ntwo\n"}


def test_nobody_appends_to_what_another_writes(cloud):
    cloud.storage.put("bucket", "lines", b"one\n")

    def meanwhile(request) -> bool:
        if request.path.endswith("/compose"):
            cloud.storage.put("bucket", "lines", b"another\n")
        return False

    cloud.fail(meanwhile, 500)
    must_name(
        refusal(storage.append, "gs://bucket/lines", b"two\n"),
        "gs://bucket/lines:",
        "somebody else has written it",
        "run the same command again",
    )
    assert cloud.storage.objects("bucket")["lines"] == b"another\n"


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        (429, ("bucket bucket", "no more requests", "(made to fail)", AGAIN)),
        (500, ("Google Cloud Storage", "(500: made to fail)", AGAIN)),
        (503, ("Google Cloud Storage", "(503: made to fail)", AGAIN)),
        ("reset", ("the connection", "Google Cloud Storage breaks", "(BY ANY NAME)", *NETWORK)),
        ("truncate", ("the connection", "Google Cloud Storage breaks", "(IncompleteRead)", *NETWORK)),
        ("stall", ("nothing arrives", "Google Cloud Storage", "(TimeoutError)", *NETWORK)),
    ],
)
@pytest.mark.usefixtures("impatient")
def test_a_fault_that_stays_is_explained(cloud, monkeypatch, kind, fault):
    cloud.storage.put("bucket", "one", b"content")
    assert read("gs://bucket/one") == b"content"
    stalls(monkeypatch, kind, 0.5)
    cloud.fail(is_read, kind, times=1000)
    said = refusal(read, "gs://bucket/one")
    if kind == "reset":  # Python has two names for it: one before the answer began, one in the middle of reading it
        said = re.sub(r"\((RemoteDisconnected|ConnectionResetError)\)", "(BY ANY NAME)", said)
    must_name(said, "gs://bucket/one:", *fault, "tried for 4 s")
    assert len(asked(cloud, path="/download/")) > 2


def test_the_age_of_an_object_is_by_the_clock_of_the_service(cloud):
    storage.write_bytes("gs://bucket/one", b"")
    cloud.storage.ahead += timedelta(hours=1)
    assert 3598 < storage.age("gs://bucket/one") < 3598 + LIMIT
    cloud.services["storage.googleapis.com"] = cloud.storage._answer  # which shows no clock
    assert refusal(storage.age, "gs://bucket/one").startswith("gs://bucket/one: the answer does not say when ")


def test_removing_one_generation_survives_a_lost_answer_and_spares_another(cloud):
    generation = storage.write_bytes("gs://bucket/one", b"one")
    cloud.fail(lambda request: request.method == "DELETE", "reset")
    storage.remove("gs://bucket/one", generation=generation)
    assert [each.split()[0] for each in asked(cloud, method="DELETE")] == ["0", "412"]
    storage.write_bytes("gs://bucket/one", b"two")
    assert "somebody else has written it" in refusal(storage.remove, "gs://bucket/one", generation=generation)
    assert cloud.storage.objects("bucket") == {"one": b"two"}


# Refusals


def test_a_bucket_that_is_not_there(cloud):
    for call in (read, write, storage.read_bytes, storage.exists, storage.size, storage.files, storage.remove):
        must_name(
            refusal(call, "gs://none/records"),
            "gs://none/records:",
            "no bucket none",
            "'gcloud storage buckets create gs://none --location=REGION'",
        )


def test_an_object_that_is_not_there(cloud):
    for call in (read, storage.read_bytes, storage.size, storage.crc32c):
        assert refusal(call, "gs://bucket/none") == "gs://bucket/none: there is no such object"
    assert not storage.exists("gs://bucket/none")


@pytest.mark.parametrize(
    ("call", "permission", "role"),
    [
        (read, "storage.objects.get", "roles/storage.objectViewer"),
        (storage.read_bytes, "storage.objects.get", "roles/storage.objectViewer"),
        (storage.files, "storage.objects.list", "roles/storage.objectViewer"),
        (write, "storage.objects.create", "roles/storage.objectUser"),
    ],
)
def test_what_the_account_may_not_do(cloud, call, permission, role):
    cloud.storage.create_bucket("theirs", readers=set(), writers=set())
    must_name(
        refusal(call, "gs://theirs/one"), "gs://theirs/one:", ACCOUNT, permission, "bucket theirs", f"'{GRANT}{role}'"
    )


def test_what_may_be_read_but_not_removed(cloud):
    cloud.storage.create_bucket("theirs", writers=set())
    cloud.storage.put("theirs", "folder/one", b"")
    must_name(
        refusal(storage.remove, "gs://theirs/folder"),
        "gs://theirs/folder:",
        ACCOUNT,
        "storage.objects.delete",
        "bucket theirs",
        f"'{GRANT}roles/storage.objectUser'",
    )
    must_name(
        refusal(gcs.check_permissions, "theirs"),
        "gs://theirs:",
        ACCOUNT,
        "storage.objects.create, storage.objects.delete",
        f"'{GRANT}roles/storage.objectUser'",
    )
    assert gcs.check_permissions("theirs", gcs.READ) == gcs.check_permissions("bucket") == ACCOUNT


def test_a_refusal_of_another_kind(cloud):
    cloud.fail(is_read, 403, message="Request is prohibited by organization's policy.")
    cloud.storage.put("bucket", "one", b"")
    must_name(
        refusal(storage.read_bytes, "gs://bucket/one"),
        "gs://bucket/one:",
        ACCOUNT,
        "bucket bucket",
        "denied",
        "(Request is prohibited by organization's policy.)",
    )


def test_a_bucket_that_nobody_pays_for(cloud):
    cloud.storage.create_bucket("unpaid", billing=False)
    must_name(
        refusal(write, "gs://unpaid/one"),
        "gs://unpaid/one:",
        "bucket unpaid",
        "no billing account",
        "'gcloud billing projects link PROJECT --billing-account=ACCOUNT'",
    )


@pytest.mark.parametrize("path", ["gs://bucket", "gs://bucket/"])
def test_a_bucket_is_no_object(cloud, path):
    cloud.storage.put("bucket", "precious", b"")
    for call in (read, write, storage.size, storage.remove):
        must_name(
            refusal(call, path), f"{path}:", "a bucket and nothing in it", "expected a path like gs://bucket/records"
        )
    assert cloud.storage.objects("bucket") == {"precious": b""}
    assert storage.exists(path)
    assert set(storage.files(path)) == {"precious"}


def test_a_path_without_a_bucket():
    assert refusal(storage.exists, "gs://") == "gs://: names no bucket, expected one like gs://BUCKET/records"


# Who we are


def test_credentials_that_are_revoked(cloud):
    said = {"error": "invalid_grant", "error_description": "Token has been expired or revoked."}
    cloud.services["oauth2.googleapis.com"] = lambda request: of_json(said, 400)
    must_name(
        refusal(storage.read_bytes, "gs://bucket/one"),
        "gs://bucket/one:",
        f"credentials of {ACCOUNT}",
        "(invalid_grant: Token has been expired or revoked.)",
        *HOW_TO_GET,
    )


def test_tokens_that_are_never_good(cloud):
    cloud.fail(lambda request: request.host == "storage.googleapis.com", "expire", times=1000)
    must_name(
        refusal(storage.read_bytes, "gs://bucket/one"),
        "gs://bucket/one:",
        f"credentials of {ACCOUNT}",
        "(Invalid Credentials)",
        *HOW_TO_GET,
    )


def test_credentials_that_are_not_there(cloud, monkeypatch):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "no/such/key.json")
    must_name(
        refusal(storage.read_bytes, "gs://bucket/one"),
        "gs://bucket/one:",
        "GOOGLE_APPLICATION_CREDENTIALS=no/such/key.json",
        "(File no/such/key.json was not found.)",
        *HOW_TO_GET,
    )


def test_credentials_that_are_damaged(cloud, monkeypatch, tmp_path):
    (tmp_path / "key.json").write_text("{")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", f"{tmp_path}/key.json")
    said = refusal(storage.read_bytes, "gs://bucket/one")
    must_name(
        said, "gs://bucket/one:", f"GOOGLE_APPLICATION_CREDENTIALS={tmp_path}/key.json", "cannot be used", *HOW_TO_GET
    )


def test_a_network_that_is_not_there(cloud, monkeypatch):
    monkeypatch.setattr(gcs, "FIRST_PATIENCE", 0.2)
    gcs._answered.clear()
    with monkeypatch.context() as nowhere:  # there is one again before the library in the background has given up, too
        nowhere.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
        nowhere.setenv("https_proxy", "http://127.0.0.1:1")
        said = refusal(storage.read_bytes, "gs://bucket/one")
    must_name(
        said,
        "gs://bucket/one:",
        "Google Cloud Storage",
        "(ConnectionRefusedError)",
        "look at the network",
        "HTTPS_PROXY",
        "tried for 0 s",
    )


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="this system has no /proc/self/mem")
def test_a_disk_that_does_not_give_back_what_is_to_be_sent_is_not_taken_for_the_network():
    with open("/proc/self/mem", "rb", 0) as file:
        spool = gcs._Spool(1)
        spool._file = file
        for call in (lambda: spool.read(10), lambda: gcs._Part(file.fileno(), 0, 10).readinto(bytearray(10))):
            assert refusal(call) == f"{tempfile.gettempdir()}: input/output error"
