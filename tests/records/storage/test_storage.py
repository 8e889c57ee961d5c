import errno
import io
import os
import stat
import zipfile
from datetime import timedelta
from pathlib import Path

import google_crc32c
import pytest

from records import paths, storage
from records.errors import Changed, RemaskError
from records.storage import disk
from tests.said import must_name

AS_ROOT = pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")


@pytest.fixture(params=["disk", pytest.param("bucket", marks=pytest.mark.cloud)])
def home(request) -> str:
    """Return a folder with nothing in it: what holds for both homes is asked of both."""
    if request.param == "disk":
        return str(request.getfixturevalue("tmp_path"))
    request.getfixturevalue("cloud")
    return "gs://bucket/home"


def names(folder: str) -> set[str]:
    """Return all files below a folder."""
    return {path.removeprefix(f"{folder}/") for path in storage.matching(f"{folder}/**")}


def refusal(call, *arguments) -> str:
    with pytest.raises(RemaskError) as caught:
        call(*arguments)
    return str(caught.value)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def interrupted(path: str, error: BaseException) -> None:
    with storage.open_write(path) as file:
        file.write(b"half of")
        file.flush()
        raise error


@pytest.mark.parametrize("url", ["hdfs://host/a", "s3://b", "https://example.com/a", "file:///tmp"])
@pytest.mark.parametrize(
    "verb",
    [storage.local, storage.exists, storage.size, storage.matching, storage.read_bytes, storage.crc32c, storage.remove],
)
def test_urls_are_refused(verb, url):
    scheme = url.split(":")[0]
    must_name(
        refusal(verb, url), f"{url}:", f"found a {scheme}:// URL", "expected a path on the local disk", "gs://BUCKET/a"
    )


def test_urls_are_not_written():
    must_name(
        refusal(storage.write_bytes, "s3://bucket/a", b""),
        "s3://bucket/a:",
        "found a s3:// URL",
        "expected a path on the local disk",
        "gs://BUCKET/a",
    )


def test_odd_local_paths_are_paths(tmp_path):
    for name in ("a:b", "50%", "wörter", "://", "a b", "[x]"):
        storage.write_bytes(f"{tmp_path}/{name}/file", b"x")
        assert storage.read_bytes(f"{tmp_path}/{name}/file") == b"x"


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("out", "out/a"),
        ("out/", "out/a"),
        ("/", "/a"),
        ("", "a"),
        (".", "./a"),
        ("/x/y", "/x/y/a"),
        ("gs://b", "gs://b/a"),
    ],
)
def test_join(folder, expected):
    assert storage.join(folder, "a") == expected
    assert storage.join(folder, "a", "b") == f"{expected}/b"


def test_write_makes_folders_and_replaces(tmp_path):
    path = f"{tmp_path}/new/folder/file"
    storage.write_bytes(path, b"one")
    storage.write_bytes(path, b"two")
    assert storage.read_bytes(path) == b"two"
    assert storage.size(path) == 3
    assert files(tmp_path / "new/folder") == {"file"}


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = f"{tmp_path}/file"
    with storage.open_write(path) as file:
        file.write(b"half of")
        file.flush()
        assert files(tmp_path) == {f"file.{disk.PROCESS}.partial"}
        file.write(b" it")
    assert files(tmp_path) == {"file"}
    assert storage.read_bytes(path) == b"half of it"


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), RemaskError("no")])
def test_a_failing_block_leaves_nothing(tmp_path, error):
    with pytest.raises(type(error)):
        interrupted(f"{tmp_path}/file", error)
    assert files(tmp_path) == set()


def test_a_failing_block_leaves_what_was_there(tmp_path):
    storage.write_bytes(f"{tmp_path}/file", b"old")
    with pytest.raises(KeyboardInterrupt):
        interrupted(f"{tmp_path}/file", KeyboardInterrupt())
    assert storage.read_bytes(f"{tmp_path}/file") == b"old"
    assert files(tmp_path) == {"file"}


@FULL
def test_a_full_disk(tmp_path):
    (tmp_path / f"file.{disk.PROCESS}.partial").symlink_to("/dev/full")
    must_name(
        refusal(storage.write_bytes, f"{tmp_path}/file", b"x"),
        f"{tmp_path}/file:",
        "no space left on device",
        "free some space",
    )
    assert files(tmp_path) == set()


@FULL
def test_a_disk_that_is_full_while_much_is_written(tmp_path):
    storage.write_bytes(f"{tmp_path}/file", b"old")
    (tmp_path / f"file.{disk.PROCESS}.partial").symlink_to("/dev/full")
    assert "no space left on device" in refusal(storage.write_bytes, f"{tmp_path}/file", b"x" * 10_000_000)
    assert storage.read_bytes(f"{tmp_path}/file") == b"old"


@AS_ROOT
def test_a_folder_that_may_not_be_written(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    must_name(
        refusal(storage.write_bytes, f"{tmp_path}/locked/file", b"x"),
        f"{tmp_path}/locked/file:",
        "permission denied",
        "give this user the right to it",
        "another path",
    )


@AS_ROOT
def test_a_file_that_may_not_be_read(tmp_path):
    (tmp_path / "file").touch(mode=0o000)
    must_name(
        refusal(storage.read_bytes, f"{tmp_path}/file"),
        f"{tmp_path}/file:",
        "permission denied",
        "give this user the right to it",
        "another path",
    )


def test_errors_of_the_system_are_explained():
    def said(number: int) -> str:
        return str(storage.explained("out", OSError(number, os.strerror(number))))

    must_name(said(errno.EACCES), "out:", "permission denied", "give this user the right to it", "another path")
    must_name(said(errno.EROFS), "out:", "read-only file system", "a folder that can be written to")
    must_name(said(errno.EDQUOT), "out:", "disk quota exceeded", "free some space", "another disk")
    assert said(errno.EIO) == "out: input/output error"
    assert str(storage.explained("out", OSError("odd"))) == "out: odd"


@FULL
def test_a_disk_that_is_full_within_the_block(tmp_path):
    (tmp_path / f"file.{disk.PROCESS}.partial").symlink_to("/dev/full")

    def write() -> None:
        with storage.open_write(f"{tmp_path}/file") as file:
            file.write(b"x" * 10_000_000)
            raise AssertionError("it was to fail before")

    assert refusal(write).startswith(f"{tmp_path}/file: no space left on device; ")


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="there is no file here that opens and cannot be read")
@pytest.mark.parametrize("read", [lambda file: file.read(), lambda file: file.read(1), lambda file: next(file)])
def test_a_file_that_opens_and_cannot_be_read(read):
    def call() -> None:
        with storage.open_read("/proc/self/mem") as file:
            read(file)

    assert refusal(call) == "/proc/self/mem: input/output error"
    assert refusal(storage.crc32c, "/proc/self/mem") == "/proc/self/mem: input/output error"


@pytest.fixture
def synced(monkeypatch) -> list[tuple[str, set[str]]]:
    """Return what is brought to the disk for good: each file or folder, and the names in its folder at that time."""
    found, fsync = [], os.fsync

    def spying(file: int) -> None:
        fsync(file)
        path = Path(os.readlink(f"/proc/self/fd/{file}"))
        found.append((path.name, files(path if path.is_dir() else path.parent)))

    monkeypatch.setattr(os, "fsync", spying)
    return found


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="the test reads in /proc what a descriptor stands for")
@pytest.mark.parametrize("generation", [None, 0, "of now"])
def test_a_file_outlasts_a_crash_before_it_has_its_name_and_then_its_name_does(tmp_path, synced, generation):
    path = tmp_path / "folder/file"
    if generation == "of now":
        generation = storage.write_bytes(str(path), b"one", generation=0)
        synced.clear()
    before = files(path.parent) if path.parent.exists() else set()
    storage.write_bytes(str(path), b"content", generation=generation)
    partial = f"file.{disk.PROCESS}.partial"
    made = [] if before else [(tmp_path.name, {"folder"})]
    assert synced == [*made, (partial, before | {partial}), ("folder", {"file"})]


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="the test reads in /proc what a descriptor stands for")
def test_what_is_removed_stays_so_after_a_crash(tmp_path, synced):
    (tmp_path / "file").touch()
    storage.remove(f"{tmp_path}/file")
    assert synced == [(tmp_path.name, set())]
    storage.remove(f"{tmp_path}/none")
    assert len(synced) == 1


def test_a_disk_that_cannot_sync_folders(tmp_path, monkeypatch):
    fsync = os.fsync

    def refusing(file: int) -> None:
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(file)

    monkeypatch.setattr(os, "fsync", refusing)
    storage.write_bytes(f"{tmp_path}/new/file", b"content")
    assert storage.read_bytes(f"{tmp_path}/new/file") == b"content"


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    assert refusal(storage.write_bytes, f"{tmp_path}/file/in/it", b"") == f"{tmp_path}/file/in/it: not a directory"
    assert refusal(storage.write_bytes, f"{tmp_path}/file/it", b"") == f"{tmp_path}/file/it: file exists"


def test_a_file_that_is_a_folder(tmp_path):
    assert refusal(storage.read_bytes, str(tmp_path)) == f"{tmp_path}: is a directory"
    assert refusal(storage.write_bytes, str(tmp_path), b"") == f"{tmp_path}: is a directory"


@pytest.mark.parametrize("verb", [storage.read_bytes, storage.size, storage.crc32c])
def test_a_file_that_is_not_there(tmp_path, verb):
    assert refusal(verb, f"{tmp_path}/none") == f"{tmp_path}/none: no such file or directory"
    assert not storage.exists(f"{tmp_path}/none")


def test_a_name_that_cannot_be(tmp_path):
    assert refusal(storage.exists, f"{tmp_path}/{'x' * 300}") == f"{tmp_path}/{'x' * 300}: file name too long"


def test_a_file_that_goes_while_its_folder_is_listed_is_not_there(tmp_path, monkeypatch):
    for name in ("goes", "stays"):
        (tmp_path / name).write_bytes(b"12")
    is_file = Path.is_file

    def looked_at(path, **options):
        there = is_file(path, **options)
        (tmp_path / "goes").unlink(missing_ok=True)
        return there

    monkeypatch.setattr(Path, "is_file", looked_at)
    assert {name: file.size for name, file in storage.files(str(tmp_path)).items()} == {"stays": 2}


def test_matching_is_sorted_and_holds_files_alone(tmp_path):
    for name in ("b.csv", "a.csv", "deep/c.csv", "a.txt", "odd[1].csv"):
        storage.write_bytes(f"{tmp_path}/{name}", b"")
    (tmp_path / "folder.csv").mkdir()
    assert storage.matching(f"{tmp_path}/*.csv") == [f"{tmp_path}/{name}" for name in ("a.csv", "b.csv", "odd[1].csv")]
    assert storage.matching(f"{tmp_path}/**/c.csv") == [f"{tmp_path}/deep/c.csv"]
    assert storage.matching(f"{tmp_path}/odd[1].csv") == [f"{tmp_path}/odd[1].csv"]
    assert storage.matching(f"{tmp_path}/folder.csv") == storage.matching(f"{tmp_path}/none") == []


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1])
def test_checksum_of_a_file(tmp_path, size):
    content = bytes(range(256)) * (size // 256 + 1)
    storage.write_bytes(f"{tmp_path}/file", content[:size])
    assert storage.crc32c(f"{tmp_path}/file") == f"{google_crc32c.value(content[:size]):08x}"


def test_checksum_while_writing(tmp_path):
    with storage.open_write(f"{tmp_path}/file") as file:
        checked = storage.Checksummed(file)
        checked.write(b"one")
        checked.writelines([b"two", b"", b"three"])
        checked.flush()
    assert (checked.size, checked.hexdigest()) == (11, storage.crc32c(f"{tmp_path}/file"))
    assert storage.read_bytes(f"{tmp_path}/file") == b"onetwothree"


def test_checksum_has_eight_digits(tmp_path):
    with storage.open_write(f"{tmp_path}/file") as file:
        assert storage.Checksummed(file).hexdigest() == "00000000"


def test_remove(tmp_path):
    storage.write_bytes(f"{tmp_path}/folder/file", b"")
    storage.write_bytes(f"{tmp_path}/file", b"")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    for name in ("link", "file", "none"):
        storage.remove(f"{tmp_path}/{name}")
    assert (tmp_path / "folder/file").exists()  # a link goes, and not what it points to
    storage.remove(f"{tmp_path}/folder")
    assert files(tmp_path) == set()


def test_no_folder_is_removed_that_holds_the_one_we_are_in(tmp_path, monkeypatch):
    (tmp_path / "folder/in/it").mkdir(parents=True)
    removed = []
    monkeypatch.setattr(disk.shutil, "rmtree", removed.append)  # lest a fault cost the machine
    monkeypatch.chdir(tmp_path / "folder/in")
    for path in ("/", ".", "", "..", f"{tmp_path}/folder", f"{tmp_path}/folder/in"):
        assert refusal(storage.remove, path).startswith(f"{path}: holds the folder that this command runs in")
    assert removed == []
    storage.remove("it")
    assert removed == [Path("it")]


@pytest.mark.parametrize("size", [0, 1, 100_000, (8 << 20) + 1])
def test_a_file_has_what_was_written(home, size):
    path, content = f"{home}/new/folder/file", os.urandom(size)
    with storage.open_write(path) as file:
        for start in range(0, size, 1 << 20):
            file.write(content[start : start + (1 << 20)])
    checksum = f"{google_crc32c.value(content):08x}"
    assert storage.read_bytes(path) == content
    assert (storage.size(path), storage.crc32c(path)) == (size, checksum)
    assert storage.exists(path)
    assert storage.exists(f"{home}/new")
    assert not storage.exists(f"{home}/ne")
    (found,) = storage.files(f"{home}/new/folder").items()
    assert found[0] == "file"
    assert found[1].size == size
    assert found[1].crc32c in ("", checksum)  # of a local file it would have to be computed


def test_a_file_can_be_read_from_any_place(home):
    content = os.urandom(3 << 20)
    storage.write_bytes(f"{home}/file", content)
    with storage.open_read(f"{home}/file") as file:
        for place, size in ((0, 10), (5, 1 << 21), (-7, 100), (1 << 20, 3)):
            file.seek(place, os.SEEK_END if place < 0 else os.SEEK_SET)
            assert file.read(size) == content[place:][:size]
    with storage.open_read(f"{home}/file", until=100) as file:
        assert file.read(100) == content[:100]


def test_a_zip_archive_is_the_same_bytes_everywhere(home):
    def write(file) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for name in ("one", "two"):
                with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as member:
                    member.write(name.encode())

    with storage.open_write(f"{home}/archive") as file, io.BytesIO() as expected:
        write(file)
        write(expected)
        content = expected.getvalue()
    assert storage.read_bytes(f"{home}/archive") == content
    with storage.open_read(f"{home}/archive") as file, zipfile.ZipFile(file) as archive:
        assert archive.read("two") == b"two"


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), RemaskError("no")])
def test_a_block_that_fails_changes_nothing(home, error):
    storage.write_bytes(f"{home}/old", b"old")
    for name in ("old", "new"):
        with pytest.raises(type(error)):
            interrupted(f"{home}/{name}", error)
    assert names(home) == {"old"}
    assert storage.read_bytes(f"{home}/old") == b"old"


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "No such file", "/theirs"), PermissionError(13, "no"), OSError()]
)
def test_what_goes_wrong_in_a_block_is_not_the_files(home, error):
    """What is read while a file is written, and written while one is read, has a name of its own."""
    with pytest.raises(type(error)) as caught:
        interrupted(f"{home}/file", error)
    assert caught.value is error
    storage.write_bytes(f"{home}/file", b"content")

    def read() -> None:
        with storage.open_read(f"{home}/file") as file:
            file.read(1)
            raise error

    with pytest.raises(type(error)) as caught:
        read()
    assert caught.value is error
    assert refusal(storage.concatenate, [f"{home}/none"], f"{home}/all").startswith(f"{home}/")


def test_nothing_is_there_before_all_is(home):
    with storage.open_write(f"{home}/file") as file:
        file.write(b"half of")
        file.flush()
        assert not storage.exists(f"{home}/file")
        file.write(b" it")
    assert storage.read_bytes(f"{home}/file") == b"half of it"


def test_of_two_who_write_a_file_of_one_generation_one_does(home):
    path = f"{home}/lock"
    assert storage.generation(path) == 0
    storage.write_bytes(path, b"first", generation=0)
    begun = storage.generation(path)
    assert begun != 0
    for generation in (0, begun + 1):
        with pytest.raises(Changed) as caught:
            storage.write_bytes(path, b"second", generation=generation)
        must_name(str(caught.value), f"{path}:", "somebody else has written it", "run the same command again")
    storage.write_bytes(path, b"third", generation=begun)
    assert storage.generation(path) not in (0, begun)
    assert storage.read_bytes(path) == b"third"
    assert names(home) == {"lock"}


def test_lines_are_appended(home):
    for line in (b"one\n", b"two\n", b"", b"three\n"):
        storage.append(f"{home}/new/lines", line)
    assert storage.read_bytes(f"{home}/new/lines") == b"one\ntwo\nthree\n"
    assert names(home) == {"new/lines"}


@pytest.mark.parametrize("count", [0, 1, 3])
def test_many_files_become_one(home, count):
    parts = [f"{home}/part-{number}" for number in range(count)]
    for number, part in enumerate(parts):
        storage.write_bytes(part, b"%d " % number)
    storage.concatenate(parts, f"{home}/all")
    assert storage.read_bytes(f"{home}/all") == b"".join(b"%d " % number for number in range(count))
    assert len(names(home)) == count + 1


def test_files_that_match(home):
    for name in ("b.csv", "a.csv", "deep/er/c.csv", "a.txt", "odd[1].csv", ".hidden.csv"):
        storage.write_bytes(f"{home}/{name}", b"")
    assert storage.matching(f"{home}/*.csv") == [f"{home}/{name}" for name in ("a.csv", "b.csv", "odd[1].csv")]
    assert storage.matching(f"{home}/**/*.csv") == sorted(
        [f"{home}/{name}" for name in ("a.csv", "b.csv", "deep/er/c.csv", "odd[1].csv")]
    )
    assert storage.matching(f"{home}/odd[1].csv") == [f"{home}/odd[1].csv"]  # such a file comes first
    assert storage.matching(f"{home}/[ab].???") == [f"{home}/{name}" for name in ("a.csv", "a.txt", "b.csv")]
    assert storage.matching(f"{home}/deep") == storage.matching(f"{home}/none*") == []


def test_files_in_a_folder(home):
    for name in ("one", "two", "deep/three"):
        storage.write_bytes(f"{home}/{name}", b"x")
    assert set(storage.files(home)) == set(storage.files(f"{home}/")) == {"one", "two"}
    assert storage.files(f"{home}/none") == storage.files(f"{home}/one") == {}


def test_folders_in_a_folder(home):
    for name in ("file", "b/one", "a/two", "a/deep/three"):
        storage.write_bytes(f"{home}/{name}", b"x")
    assert storage.folders(home) == storage.folders(f"{home}/") == ["a", "b"]
    assert storage.folders(f"{home}/none") == storage.folders(f"{home}/file") == []


def test_what_is_removed_is_gone_and_nothing_else(home):
    for name in ("folder/a", "folder/deep/b", "folder-2/c", "file"):
        storage.write_bytes(f"{home}/{name}", b"")
    storage.remove(f"{home}/none")
    storage.remove(f"{home}/folder")
    assert names(home) == {"folder-2/c", "file"}
    storage.remove(f"{home}/file")
    storage.remove(f"{home}/folder-2/")
    assert names(home) == set()


def test_of_files_that_are_removed_some_may_not_be_there(home):
    for name in ("a", "b", "b-2"):
        storage.write_bytes(f"{home}/{name}", b"")
    storage.remove_files([f"{home}/{name}" for name in ("a", "none", "b")])
    storage.remove_files([])
    assert names(home) == {"b-2"}


def test_what_killed_writers_have_left_is_removed_and_nothing_else(home):
    left = [paths.partial(f"{home}/file", "0123abcd"), paths.partial(f"{home}/file", "0123abcd", 31)]
    kept = ["file", "my.partial", "file.0123abcd.partial.txt", "file.0123ABCD.partial", "deep/file.0123abcd.partial"]
    for path in (*left, *(f"{home}/{name}" for name in kept)):
        storage.write_bytes(path, b"")
    storage.remove_partial(home)
    assert names(home) == set(kept)
    storage.remove_partial(f"{home}/none")


def test_what_is_left_of_a_file_is_known_as_such(home):
    """The names are those under which files are really written."""
    with storage.open_write(f"{home}/file") as file:
        file.write(b"half of it")
        found = set(storage.files(home))
        assert all(map(paths.is_partial, found))
        assert len(found) == (not storage.is_remote(home))


def test_a_file_of_one_generation_is_removed(home):
    path = f"{home}/lock"
    generation = storage.write_bytes(path, b"one", generation=0)
    assert generation == storage.generation(path)
    with pytest.raises(Changed):
        storage.remove(path, generation=generation + 1)
    assert storage.exists(path)
    storage.remove(path, generation=generation)
    assert not storage.exists(path)


def test_the_age_of_a_file(home, request):
    storage.write_bytes(f"{home}/file", b"")
    young = storage.age(f"{home}/file")
    assert young > -1.5
    if storage.is_remote(home):
        cloud = request.getfixturevalue("cloud")
        cloud.storage.ahead += timedelta(hours=1)
    else:
        written = os.stat(f"{home}/file").st_mtime - 3600
        os.utime(f"{home}/file", (written, written))
    assert storage.age(f"{home}/file") > young + 3590
    assert refusal(storage.age, f"{home}/none").startswith(f"{home}/none: ")
    assert names(home) == {"file"}


def test_files_at_hand_are_local_ones(home):
    for name in ("one", "two"):
        storage.write_bytes(f"{home}/{name}", name.encode())
    with storage.at_hand([f"{home}/one", f"{home}/two"]) as paths:
        assert [Path(path).read_bytes() for path in paths] == [b"one", b"two"]
    assert all(Path(path).exists() for path in paths) == (not storage.is_remote(home))


def test_a_disk_without_hard_links(tmp_path, monkeypatch):
    def refuse(*paths):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path = f"{tmp_path}/one"
    storage.write_bytes(path, b"first", generation=0)
    with pytest.raises(Changed):
        storage.write_bytes(path, b"second", generation=0)
    assert storage.read_bytes(path) == b"first"
    assert files(tmp_path) == {"one"}
