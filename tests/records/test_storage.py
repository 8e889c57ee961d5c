import errno
import os
from pathlib import Path

import google_crc32c
import pytest

from records import disk, storage
from records.errors import RemaskError

AS_ROOT = pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")


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
    assert refusal(verb, url) == (
        f"{url}: found a {scheme}:// URL, expected a path on the local disk, or one like gs://BUCKET/a"
    )


def test_urls_are_not_written():
    assert refusal(storage.write_bytes, "s3://bucket/a", b"") == (
        "s3://bucket/a: found a s3:// URL, expected a path on the local disk, or one like gs://BUCKET/a"
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
    assert refusal(storage.write_bytes, f"{tmp_path}/file", b"x") == (
        f"{tmp_path}/file: no space left on device; free some space, or write to another disk"
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
    assert refusal(storage.write_bytes, f"{tmp_path}/locked/file", b"x") == (
        f"{tmp_path}/locked/file: permission denied; give this user the right to it, or choose another path"
    )


@AS_ROOT
def test_a_file_that_may_not_be_read(tmp_path):
    (tmp_path / "file").touch(mode=0o000)
    assert refusal(storage.read_bytes, f"{tmp_path}/file") == (
        f"{tmp_path}/file: permission denied; give this user the right to it, or choose another path"
    )


def test_errors_of_the_system_are_explained():
    def said(number: int) -> str:
        return str(storage.explained("out", OSError(number, os.strerror(number))))

    assert said(errno.EACCES) == "out: permission denied; give this user the right to it, or choose another path"
    assert said(errno.EROFS) == "out: read-only file system; choose a folder that can be written to"
    assert said(errno.EDQUOT) == (
        "out: disk quota exceeded; the quota of this user is used up: free some space, or write to another disk"
    )
    assert said(errno.EIO) == "out: input/output error"
    assert str(storage.explained("out", OSError("odd"))) == "out: odd"


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
