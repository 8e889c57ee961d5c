"""The local disk, behind the verbs of `records.storage`."""

import contextlib
import errno
import glob
import io
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import google_crc32c

from records.console.streams import undecoded
from records.errors import Changed, Full, RemaskError
from records.paths import File, local, partial

PROCESS = uuid.uuid4().hex[:8]
"""Part of the names of files that are being written: engines that run a task twice run it at the same time."""

_FULL = ("ENOSPC", "EDQUOT", "EFBIG")
_CHUNK = 1 << 20
_BUFFER = 1 << 16  # bytes read or written at once, at least


def exists(path: str) -> bool:
    """Say whether there is a file or folder."""
    with explaining(path):
        return local(path).exists()


def size(path: str) -> int:
    """Return the bytes of a file."""
    with explaining(path):
        return local(path).stat().st_size


def generation(path: str) -> int:
    """Return when a file was last written, in nanoseconds; 0 where there is none."""
    with explaining(path):
        return _generation(local(path))


def age(path: str) -> float:
    """Return the seconds since a file was written, by the clock that gives this disk's files their time."""
    with explaining(path), tempfile.TemporaryFile(dir=local(path).parent) as now:
        return (os.fstat(now.fileno()).st_mtime_ns - local(path).stat().st_mtime_ns) / 1e9


def matching(pattern: str) -> list[str]:
    """Return the files a glob matches."""
    with explaining(pattern):
        if local(pattern).is_file():
            return [pattern]
        found = sorted(path for path in glob.glob(pattern, recursive=True) if Path(path).is_file())
    check_names(found)
    return found


def check_names(paths: Sequence[str]) -> None:
    """Refuse names that a manifest, which is UTF-8, could not hold.

    Raises:
        RemaskError: names the first of them.
    """
    for path in paths:
        if byte := undecoded(path):
            raise RemaskError(f"{path}: byte {byte} in its name is no UTF-8, in which a manifest is; rename the file")


def files(folder: str) -> dict[str, File]:
    """Return the files right in a folder."""
    with explaining(folder):
        try:
            found = sorted(local(folder).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return {}
        there = {}
        for path in (path for path in found if path.is_file()):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # removed since we have looked
                there[path.name] = File(path.stat().st_size, "")
        return there


def folders(folder: str) -> list[str]:
    """Return the names of the folders right in a folder."""
    with explaining(folder):
        try:
            return sorted(path.name for path in local(folder).iterdir() if path.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []


def crc32c(path: str) -> str:
    """Return the CRC-32C of a file."""
    checksum = 0
    with open_read(path) as file:
        while content := file.read(_CHUNK):
            checksum = google_crc32c.extend(checksum, content)
    return f"{checksum:08x}"


def read_bytes(path: str) -> bytes:
    """Return the content of a file."""
    with explaining(path):
        return local(path).read_bytes()


@contextlib.contextmanager
def open_read(path: str, *, until: int | None = None) -> Iterator[IO[bytes]]:
    """Open a file to read; the system itself knows how far to read ahead."""
    with io.BufferedReader(_Raw(local(path), "rb", path), _BUFFER) as file:
        yield file  # type: ignore[misc]  # of which it has all methods


@contextlib.contextmanager
def open_write(path: str, *, in_parts: bool = False) -> Iterator[IO[bytes]]:
    """Open a file that appears under its name, whole, when the block ends well, and not at all when it does not."""
    target, new = local(path), local(partial(path, PROCESS))
    with explaining(path):
        _make_folder(target.parent)
    try:
        with io.BufferedWriter(_Raw(new, "wb", path), _BUFFER) as file:
            yield file  # type: ignore[misc]
            with explaining(path):
                file.flush()
                os.fsync(file.fileno())
        with explaining(path):
            new.replace(target)
            _sync(target.parent)
    except BaseException:
        with contextlib.suppress(OSError):  # what went wrong may be that there is no such place
            new.unlink()
        raise


def write_bytes(path: str, content: bytes, *, generation: int | None = None) -> int:
    """Write a file, atomically; with a generation, only if the file still has that one. Return the one it has now."""
    if generation is None:
        with open_write(path) as file:
            file.write(content)
        return _generation(local(path))
    target, new = local(path), local(partial(path, PROCESS))
    with explaining(path):
        try:
            _make_folder(target.parent)
            with new.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if _generation(target) != generation:
                raise FileExistsError
            made = _generation(new)
            if generation:  # between the look and the replacement is no time to speak of, but some
                new.replace(target)
            else:
                _put(new, target)
            _sync(target.parent)
            return made
        except FileExistsError:
            raise _changed(path) from None
        finally:
            with contextlib.suppress(OSError):  # what went wrong may be that there is no such place
                new.unlink()


def append(path: str, content: bytes) -> None:
    """Write at the end of a file."""
    with explaining(path):
        local(path).parent.mkdir(parents=True, exist_ok=True)
        with local(path).open("ab") as file:
            file.write(content)


def concatenate(parts: Sequence[str], path: str) -> None:
    """Write the content of files one after the other."""
    with open_write(path) as file:
        for part in parts:
            with open_read(part) as source:
                shutil.copyfileobj(source, file, _CHUNK)


def move(names: Sequence[str], folder: str, to: str) -> None:
    """Move files from one folder to another on the same disk, in place of those that are there.

    They go one after the other: a crash leaves none in its new place without those before it.
    """
    for name in names:
        target = local(to) / name
        with explaining(str(target)):
            (local(folder) / name).replace(target)
            _sync(target.parent)


def remove(path: str, *, generation: int | None = None) -> None:
    """Remove a file, or a folder with all it holds; with a generation, only a file that still has that one."""
    target = local(path)
    with explaining(path):
        if generation is not None and _generation(target) != generation:
            raise _changed(path)
        if target.is_dir() and not target.is_symlink():
            _check_expendable(path, target)
            shutil.rmtree(target)
        elif target.is_symlink() or target.exists():
            target.unlink(missing_ok=True)
            _sync(target.parent)  # what is removed after it may be gone after a crash, but not it still there


def remove_files(paths: Sequence[str]) -> None:
    """Remove files; those that are not there are fine."""
    for path in paths:
        with explaining(path):
            local(path).unlink(missing_ok=True)


def explained(path: str, error: OSError) -> RemaskError:
    """Return what an error of the operating system means to the user.

    >>> print(explained("out/sample", PermissionError(errno.EACCES, "Permission denied")))
    out/sample: permission denied; give this user the right to it, or choose another path
    """
    hint = {
        "ENOSPC": "free some space, or write to another disk",
        "EFBIG": "a limit of this process or of the disk is reached: raise it, or write to another disk",
        "EDQUOT": "the quota of this user is used up: free some space, or write to another disk",
        "EMFILE": "raise the limit of open files, with 'ulimit -n'",
        "EACCES": "give this user the right to it, or choose another path",
        "EROFS": "choose a folder that can be written to",
    }
    name = errno.errorcode.get(error.errno or 0, "")
    reason = f"{error.strerror or error}"
    said = f"{path}: {reason[:1].lower()}{reason[1:]}"
    if name in _FULL:
        return Full(said, hint[name])
    return RemaskError(said + (f"; {hint[name]}" if name in hint else ""))


@contextlib.contextmanager
def explaining(path: str) -> Iterator[None]:
    """Turn errors of the operating system into words for the user."""
    try:
        yield
    except OSError as error:
        raise explained(path, error) from error


class _Raw(io.FileIO):
    """A file of which whatever goes wrong is explained. What goes wrong in the block that works with it is not its own.

    Args:
        path: where it lies.
        mode: of opening it.
        name: what it is called in errors.
    """

    def __init__(self, path: Path, mode: str, name: str) -> None:
        self._called = name
        with explaining(name):
            super().__init__(path, mode)

    def readinto(self, buffer: Any, /) -> int:
        """Read as much as there is room for."""
        try:
            return super().readinto(buffer)
        except OSError as error:
            raise explained(self._called, error) from error

    def readall(self) -> bytes:
        """Read all there is."""
        with explaining(self._called):
            return super().readall() or b""

    def write(self, content: Any, /) -> int:
        """Write as much as the system takes."""
        try:
            return super().write(content)
        except OSError as error:
            raise explained(self._called, error) from error


def _make_folder(folder: Path) -> None:
    """Make a folder, and those above it, so that a crash does not undo it."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        _sync(each.parent)


def _sync(folder: Path) -> None:
    """Let the names in a folder outlast a crash of the machine, where the system can see to that."""
    with contextlib.suppress(PermissionError):  # it may be written and not be read
        file = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(file)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.ENOSYS):
                raise
        finally:
            os.close(file)


def _check_expendable(path: str, folder: Path) -> None:
    """Refuse to remove what nobody can want to: the folder that this process works in, and those that hold it."""
    if Path.cwd().is_relative_to(folder.resolve()):
        raise RemaskError(
            f"{path}: holds the folder that this command runs in, and is not removed; choose another path"
        )


def _changed(path: str) -> Changed:
    return Changed(f"{path}: somebody else has written it meanwhile; run the same command again")


def _put(new: Path, target: Path) -> None:
    """Give a file its name, unless there is one of that name; also on a disk without hard links, as exFAT is."""
    try:
        os.link(new, target)
        new.unlink()
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        target.open("xb").close()
        new.replace(target)


def _generation(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
