"""Files and folders, behind the few verbs that the rest of remask needs.

Every path that a user gives goes through here, so this is the one place that knows what a path may be. What lies on the
local disk is `records.storage.disk`'s, what lies in a bucket `records.storage.gcs`'s, whose libraries nobody loads who
has no use for them. Both give a file its name only when it is whole, and nothing where writing it fails.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from types import ModuleType
from typing import IO

import google_crc32c

from records.errors import Changed
from records.paths import TEMPORARY, File, is_partial, is_remote, join, local
from records.storage import disk
from records.storage.disk import explained, explaining

__all__ = [
    "TEMPORARY",
    "Changed",
    "Checksummed",
    "File",
    "age",
    "append",
    "at_hand",
    "concatenate",
    "crc32c",
    "exists",
    "explained",
    "explaining",
    "files",
    "folders",
    "generation",
    "is_remote",
    "join",
    "local",
    "matching",
    "open_read",
    "open_write",
    "read_bytes",
    "remove",
    "remove_files",
    "remove_partial",
    "size",
    "write_bytes",
]


def exists(path: str) -> bool:
    """Say whether there is a file or folder."""
    return bool(_home(path).exists(path))


def size(path: str) -> int:
    """Return the bytes of a file."""
    return int(_home(path).size(path))


def generation(path: str) -> int:
    """Return a number that changes when a file is written again; 0 where there is no such file."""
    return int(_home(path).generation(path))


def age(path: str) -> float:
    """Return the seconds since a file was written, by the clock of where it lies."""
    return float(_home(path).age(path))


def matching(pattern: str) -> list[str]:
    """Return the files a glob matches, sorted; the path itself where there is such a file."""
    return list(_home(pattern).matching(pattern))


def files(folder: str) -> dict[str, File]:
    """Return the files that lie right in a folder, by name: one look, however many; none where there is no folder."""
    return dict(_home(folder).files(folder))


def folders(folder: str) -> list[str]:
    """Return the names of the folders that lie right in a folder, sorted; none where there is no folder.

    Raises:
        RemaskError: the folder may not be read. (A pattern would match nothing there.)
    """
    return list(_home(folder).folders(folder))


def read_bytes(path: str) -> bytes:
    """Return the content of a file.

    Raises:
        RemaskError: there is no such file, or it cannot be read.
    """
    return bytes(_home(path).read_bytes(path))


def crc32c(path: str) -> str:
    """Return the CRC-32C of a file: 8 hexadecimal digits."""
    return str(_home(path).crc32c(path))


def open_read(path: str, *, until: int | None = None) -> AbstractContextManager[IO[bytes]]:
    """Open a file to read, and to move about in.

    Args:
        path: of the file.
        until: the byte before which the reader will stop, where it knows: what is far away is read ahead.

    Raises:
        RemaskError: there is no such file, or it cannot be read; also later, in the block.
    """
    opened: AbstractContextManager[IO[bytes]] = _home(path).open_read(path, until=until)
    return opened


def open_write(path: str, *, in_parts: bool = False) -> AbstractContextManager[IO[bytes]]:
    """Open a file that appears under its name, whole, when the block ends well, and not at all when it does not.

    Args:
        path: of the file.
        in_parts: whether a large object may be sent in parts at the same time, by who has nothing else to send.

    Raises:
        RemaskError: the disk is full, or the folder may not be written; also later, in the block or at its end.
    """
    opened: AbstractContextManager[IO[bytes]] = _home(path).open_write(path, in_parts=in_parts)
    return opened


def write_bytes(path: str, content: bytes, *, generation: int | None = None) -> int:
    """Write a file, atomically, and return its generation.

    Args:
        path: of the file.
        content: of the file.
        generation: write only if the file is still of this generation, 0: if it is not there yet.

    Raises:
        Changed: it is of another.
        RemaskError: it cannot be written.
    """
    return int(_home(path).write_bytes(path, content, generation=generation))


def append(path: str, content: bytes) -> None:
    """Write at the end of a file that nobody else writes, or begin it."""
    _home(path).append(path, content)


def concatenate(parts: Sequence[str], path: str) -> None:
    """Write the content of files, one after the other, to a file in the same bucket or on the same disk."""
    _home(path).concatenate(parts, path)


@contextlib.contextmanager
def at_hand(paths: Sequence[str]) -> Iterator[list[str]]:
    """Give files of one place as files on the local disk, for libraries that read no others, while the block runs."""
    if not paths or not is_remote(paths[0]):
        yield list(paths)
        return
    with tempfile.TemporaryDirectory() as folder:
        from records.storage import gcs

        yield gcs.fetch(paths, folder)


def remove_files(paths: Sequence[str]) -> None:
    """Remove files of one folder, however many; those that are not there are fine."""
    if paths:
        _home(paths[0]).remove_files(paths)


def remove_partial(folder: str) -> None:
    """Remove what those who were killed while they wrote files right in a folder have left of them.

    To be called by who holds its lock: what others are writing there now would be lost.
    """
    remove_files([join(folder, name) for name in files(folder) if is_partial(name)])


def remove(path: str, *, generation: int | None = None) -> None:
    """Remove a file, or a folder with all it holds; nothing where there is nothing.

    Args:
        path: of the file or folder.
        generation: remove only a file, and only if it is still of this generation.

    Raises:
        Changed: it is of another.
        RemaskError: it cannot be removed.
    """
    _home(path).remove(path, generation=generation)


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


def _home(path: str | os.PathLike[str]) -> ModuleType:
    """Return the module that knows where a path leads."""
    if not is_remote(path):
        return disk
    from records.storage import gcs

    return gcs
