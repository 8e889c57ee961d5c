"""Files and folders, behind the few verbs that the rest of remask needs.

Every path that a user gives goes through here, so this is the one place that knows what a path may be.
"""

import contextlib
import errno
import glob
import os
import posixpath
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import google_crc32c

from records.errors import RemaskError

TEMPORARY = ".partial"
"""Suffix of a file that is still being written. Readers never look at it; an interrupted run leaves only such files."""

_CHUNK = 1 << 20


def local(path: str | os.PathLike[str]) -> Path:
    """Return the path on the local disk.

    >>> local("out/sample").name
    'sample'

    Raises:
        RemaskError: a URL, which this version does not read or write.
    """
    text = os.fspath(path)
    scheme, colon, _ = text.partition("://")
    if colon and scheme.isalnum():
        raise RemaskError(f"{text}: found a {scheme}:// URL, expected a path on the local disk")
    return Path(text)


def join(folder: str, *names: str) -> str:
    """Return the path of a file in a folder.

    >>> join("out/records/", "manifest.json")
    'out/records/manifest.json'
    """
    return posixpath.join(folder, *names)


def exists(path: str) -> bool:
    """Say whether there is a file or folder."""
    with _explaining(path):
        return local(path).exists()


def size(path: str) -> int:
    """Return the bytes of a file."""
    with _explaining(path):
        return local(path).stat().st_size


def matching(pattern: str) -> list[str]:
    """Return the files a glob matches, sorted; the path itself where there is such a file."""
    with _explaining(pattern):
        if local(pattern).is_file():
            return [pattern]
        return sorted(path for path in glob.glob(pattern, recursive=True) if Path(path).is_file())


def read_bytes(path: str) -> bytes:
    """Return the content of a file.

    Raises:
        RemaskError: there is no such file, or it cannot be read.
    """
    with open_read(path) as file:
        return file.read()


def crc32c(path: str) -> str:
    """Return the CRC-32C of a file: 8 hexadecimal digits."""
    checksum = 0
    with open_read(path) as file:
        while content := file.read(_CHUNK):
            checksum = google_crc32c.extend(checksum, content)
    return f"{checksum:08x}"


@contextlib.contextmanager
def open_read(path: str) -> Iterator[IO[bytes]]:
    """Open a file to read.

    Raises:
        RemaskError: there is no such file, or it cannot be read.
    """
    with _explaining(path), local(path).open("rb") as file:
        yield file


@contextlib.contextmanager
def open_write(path: str) -> Iterator[IO[bytes]]:
    """Open a file that appears under its name, whole, when the block ends well, and not at all when it does not.

    Raises:
        RemaskError: the disk is full, or the folder may not be written.
    """
    target = local(path)
    partial = target.with_name(target.name + TEMPORARY)
    try:
        with _explaining(path):
            target.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):  # what went wrong may be that there is no such place
            partial.unlink()
        raise


def write_bytes(path: str, content: bytes) -> None:
    """Write a file, atomically."""
    with open_write(path) as file:
        file.write(content)


class Checksummed:
    """An open file that knows the size and the CRC-32C of what was written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._crc, self.size = file, 0, 0

    def write(self, content: bytes) -> int:
        """Write, and count."""
        self._crc = google_crc32c.extend(self._crc, content)
        self.size += len(content)
        return self._file.write(content)

    def writelines(self, contents: Iterable[bytes]) -> None:
        """Write each."""
        for content in contents:
            self.write(content)

    def flush(self) -> None:
        """Flush the file."""
        self._file.flush()

    def hexdigest(self) -> str:
        """Return the CRC-32C as the manifest holds it: 8 hexadecimal digits."""
        return f"{self._crc:08x}"


def remove(path: str) -> None:
    """Remove a file, or a folder with all it holds; nothing where there is nothing."""
    target = local(path)
    with _explaining(path):
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)


def explained(path: str, error: OSError) -> RemaskError:
    """Return what an error of the operating system means to the user.

    >>> print(explained("out/sample", PermissionError(errno.EACCES, "Permission denied")))
    out/sample: permission denied; give this user the right to it, or choose another path
    """
    hint = {
        "ENOSPC": "free some space, or write to another disk",
        "EDQUOT": "the quota of this user is used up: free some space, or write to another disk",
        "EACCES": "give this user the right to it, or choose another path",
        "EROFS": "choose a folder that can be written to",
    }
    name = errno.errorcode.get(error.errno or 0, "")
    reason = f"{error.strerror or error}"
    return RemaskError(f"{path}: {reason[:1].lower()}{reason[1:]}" + (f"; {hint[name]}" if name in hint else ""))


@contextlib.contextmanager
def _explaining(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise explained(path, error) from error
