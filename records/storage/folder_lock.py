"""One command at a time in a folder: who writes there holds its lock, and the next one is told by whom it is held.

On the local disk the kernel knows whether the holder lives: it ends the lock of a file with the process that has it,
however that ends. In a bucket, and on a disk for which the kernel locks nothing, the lock is a lease. A disk that is
shared by machines and lets each of them lock for itself guards each of them for itself.

A job that runs elsewhere outlives the command that began it: its lock lasts, and only what is written there counts.
"""

import contextlib
import dataclasses
import errno
import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from records import storage
from records.console import interrupts
from records.errors import RemaskError
from records.paths import partial
from records.storage import disk, lease
from records.storage.holder import Holder
from records.storage.lease import Held, Lease

LOCK = ".lock"
"""The file, right in the folder."""

_UNSUPPORTED = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS)
_PATIENCE, _PAUSE = 1.0, 0.01  # seconds: a lock that was just taken does not say yet by whom
_MOST = 1 << 16  # bytes of a lock that are read


class _Kind(Protocol):
    """How a lock is held."""

    left: Holder | None

    def is_ours(self) -> bool: ...
    def write(self, holder: Holder) -> None: ...
    def leave(self) -> None: ...
    def release(self) -> None: ...


class Lock:
    """The lock of a folder, held by this process.

    Attributes:
        id: tells this holder from all others.
        left: who had it before and ended without giving it back, if anybody did.
    """

    def __init__(
        self, folder: str, kind: _Kind, holder: Holder, *, made: Sequence[str], say: Callable[[str], None] = print
    ) -> None:
        self._folder, self._kind, self._holder, self._made, self._say = folder, kind, holder, made, say
        self.id, self.left = holder.id, kind.left

    def check(self) -> None:
        """Refuse to go on where the lock is no longer ours. To be asked before anything is written; it costs nothing.

        Raises:
            RemaskError: somebody took it over; or it was not renewed for so long that somebody may have, and cannot
                be renewed now.
        """
        if not self._kind.is_ours():
            raise RemaskError(
                f"{self._folder}: {_who(lease.read(storage.join(self._folder, LOCK)), 'has taken it over')}, so this "
                f"{self._holder.what} writes nothing more there; let only one of them work there"
            )

    def outlive(self) -> None:
        """Let the lock last until it is given back, whatever becomes of this process.

        Raises:
            RemaskError: it is no longer ours.
        """
        self._holder = dataclasses.replace(self._holder, outlives=True)
        self.check()
        self._kind.write(self._holder)
        self.check()

    def leave(self) -> None:
        """Have no more to do with it."""
        self._kind.leave()

    def release(self) -> None:
        """Give it back, if it is still ours, and the folders that were made for it and hold nothing.

        Where that goes wrong nothing is raised: what was wrong before is to be told, and the lock dies with us anyway,
        unless it outlives us; then that is said.
        """
        try:
            self._kind.release()
        except (RemaskError, KeyboardInterrupt) as error:
            if self._holder.outlives:
                why = error if isinstance(error, RemaskError) else "a signal came in between"
                self._say(f"the lock could not be given back, and stays: {why}; {_stale(self._holder)}")
            if isinstance(error, KeyboardInterrupt):
                raise
        finally:
            _remove_empty(self._made)


def take(folder: str, *, what: str, instead: str, say: Callable[[str], None] = print, take_over: bool = False) -> Lock:
    """Lock a folder, which is made where there is none, until the lock is given back or this process ends.

    Args:
        folder: on the local disk or in a bucket.
        what: is to write there, in a word: "run".
        instead: what else to do where another holds it: "choose another folder with RUN=".
        say: is told, once, where the lock of a bucket cannot be renewed, or one that lasts not be given back.
        take_over: whether to disregard another holder.

    Raises:
        RemaskError: somebody else holds it, or the folder cannot be written to.
    """
    path, holder = storage.join(folder, LOCK), Holder.here(what)
    made = [] if storage.is_remote(folder) else _missing(folder)
    try:
        return Lock(folder, _kind(path, holder, take_over=take_over, say=say), holder, made=made, say=say)
    except BaseException as error:
        _remove_empty(made)
        if isinstance(error, Held):
            raise _refusal(folder, error, instead=instead) from None
        raise


@contextlib.contextmanager
def held(folder: str, *, what: str, instead: str, say: Callable[[str], None] = print) -> Iterator[Lock]:
    """Hold the lock of a folder while the block runs, as `take` says. No signal comes in the way of giving it back.

    But for the second of two: a bucket may not answer, and its lock then ends by itself.
    """
    with interrupts.held(waiting(folder)) as signals:
        lock = take(folder, what=what, instead=instead, say=say)
        try:
            with signals.let_through():
                yield lock
        finally:
            lock.release()


def waiting(folder: str) -> str:
    """Return what a signal waits for while a lock is taken, and while it is given back."""
    return f"the lock of {folder}"


def is_held(folder: str, id: str) -> bool:
    """Say whether a folder's lock is that of a holder, which may be on another machine.

    Raises:
        RemaskError: it cannot be read.
    """
    holder = lease.read(storage.join(folder, LOCK))
    return holder is not None and holder.id == id


def end(folder: str, id: str) -> None:
    """Give back the lock of a job that has ended, if it outlives its command: otherwise that does it."""
    path = storage.join(folder, LOCK)
    generation, holder = storage.generation(path), lease.read(path)
    if holder and holder.id == id and holder.outlives:
        storage.remove(path, generation=generation)


def _kind(path: str, holder: Holder, *, take_over: bool, say: Callable[[str], None]) -> _Kind:
    if not storage.is_remote(path) and _has_locks(os.path.dirname(path) or "."):
        return _Kernel(path, holder, take_over=take_over)
    return Lease(path, holder, take_over=take_over, say=say)


def _refusal(folder: str, held: Held, *, instead: str) -> RemaskError:
    holder, waits = held.holder, "wait for it"
    if holder and holder.is_here():
        waits += f", end it with 'kill {holder.pid}'"
    if held.seconds is not None:
        waits += f" (its lock ends by itself in {held.seconds:.0f} s if it is dead)"
    said = f"{folder}: {_who(holder, 'writes there')}; {waits}, or {instead}"
    return RemaskError(f"{said}; {_stale(holder)}" if holder and holder.outlives else said)


def _stale(holder: Holder) -> str:
    """Return what to do where a lock lasts that nobody will give back."""
    return f"if that {holder.what} has ended without a data set, take over with ARGS=--overwrite"


def _who(holder: Holder | None, does: str) -> str:
    if holder is None:
        return f"another command {does}, and does not say who it is"
    return f"another {holder.what} {does}, begun by {holder.user} on {holder.host} at {holder.since}"


def _missing(folder: str) -> list[str]:
    """Return a folder and those that hold it, from the inside out, as far as they are not there."""
    path = Path(folder)
    with disk.explaining(folder):
        return [str(each) for each in (path, *path.parents) if not each.exists()]


def _remove_empty(folders: Sequence[str]) -> None:
    """Remove folders, from the inside out, up to the first that holds something."""
    with contextlib.suppress(OSError):
        for each in folders:
            os.rmdir(each)


def _has_locks(folder: str) -> bool:
    """Say whether the kernel locks files in a folder, which is made."""
    with disk.explaining(folder):
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
                return False
    return True


class _Kernel:
    """A lock that the kernel holds for this process.

    Whoever has locked the file that the path leads to holds the lock. So nobody removes or replaces that file without
    having it locked; to take over from a holder that lives is the exception, and waits for one that ends.

    Args:
        path: of the lock.
        holder: this process.
        take_over: whether to disregard another holder.

    Raises:
        Held: somebody else holds it.
        RemaskError: the folder cannot be made or written to.
    """

    def __init__(self, path: str, holder: Holder, *, take_over: bool) -> None:
        self._path, self._folder = path, os.path.dirname(path) or "."
        with disk.explaining(self._folder):
            self._file, self.left = self._locked(take_over)
            try:
                self.write(holder)
            except BaseException:
                self.release()
                raise

    def is_ours(self) -> bool:
        """Say whether it is still held."""
        with disk.explaining(self._folder):
            return self._file >= 0 and _leads_to(self._path, self._file)

    def write(self, holder: Holder) -> None:
        """Say who holds it."""
        with disk.explaining(self._folder):
            content = holder.to_json()
            os.pwrite(self._file, content, 0)
            os.ftruncate(self._file, len(content))

    def leave(self) -> None:
        """Let it last, as far as its content says so."""
        os.close(self._file)
        self._file = -1  # a number that is another file's soon

    def release(self) -> None:
        """Give it back, if it is still ours."""
        if self._file < 0:
            return
        try:
            with disk.explaining(self._folder), self._quiet():
                if self.is_ours():
                    os.unlink(self._path)
        finally:
            self.leave()

    def _locked(self, take_over: bool) -> tuple[int, Holder | None]:
        """Return the file, locked, and what it said."""
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                file, is_ours = self._attempt()
            except FileNotFoundError:  # the folder has just been removed, by one who had made it
                if time.monotonic() > until:
                    raise
                time.sleep(_PAUSE)
                continue
            if file is not None:
                left = Holder.read(os.pread(file, _MOST, 0))
                if left and left.outlives and not take_over:
                    os.close(file)
                    raise Held(left, None)
                if is_ours:
                    os.ftruncate(file, 0)  # whoever looks now is not told of the one before
                    return file, left
                try:
                    with self._quiet():
                        if _leads_to(self._path, file):
                            os.unlink(self._path)  # another user's, who is dead: it may be removed, and not written
                finally:
                    os.close(file)
                continue
            holder = lease.read(self._path)
            if holder or time.monotonic() > until:
                if not take_over:
                    raise Held(holder, None)
                return self._replaced(), holder
            time.sleep(_PAUSE)

    def _attempt(self) -> tuple[int | None, bool]:
        """Return the file, locked, and whether it may be written; None where somebody else has it locked, or had it."""
        os.makedirs(self._folder, exist_ok=True)
        try:
            file, is_ours = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), True
        except PermissionError:
            file, is_ours = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW), False
        locked = False
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if is_ours or error.errno != errno.EBADF:
                    raise
                # NFS locks exclusively only what may be written; this much says that nobody has it.
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            locked = _leads_to(self._path, file)
        except BlockingIOError:
            pass
        finally:
            if not locked:
                os.close(file)
        return (file if locked else None), is_ours

    def _replaced(self) -> int:
        """Return a file of our own, locked, in place of that of a holder who lives."""
        new = partial(self._path, disk.PROCESS)
        file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with self._quiet():
            os.replace(new, self._path)
        return file

    @contextlib.contextmanager
    def _quiet(self) -> Iterator[None]:
        """Let nobody else replace or remove the file, if the kernel can; not for ever, for others may lock a folder."""
        folder, until = os.open(self._folder, os.O_RDONLY), time.monotonic() + _PATIENCE
        try:
            while time.monotonic() < until:
                try:
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(_PAUSE)
                except OSError:
                    break
            yield
        finally:
            os.close(folder)


def _leads_to(path: str, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESTALE):  # the latter: of a file that another machine has removed
            raise
        return False
