"""A lock that is held by renewing it: where no kernel knows whether the holder lives, as in a bucket.

Whoever does not renew it for long enough is taken for dead. How long that is, is measured by the clock of the disk or
the bucket alone, and by the holder on its own, earlier: no two clocks are ever compared.
"""

import contextlib
import threading
import time
from collections.abc import Callable

from records import storage
from records.errors import Changed, RemaskError
from records.storage.holder import Holder

RENEW_SECONDS, EXPIRE_SECONDS = 30.0, 300.0
"""A lock is renewed this often, and dead when it was not for so long."""

_ATTEMPTS = 10  # to take a lock that changes at the same time
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # it goes on while the machine sleeps, as others do


class Held(Exception):
    """Somebody else holds the lock.

    Args:
        holder: who, as far as the lock tells.
        seconds: after which it ends, if it is not renewed; None where only its holder ends it.
    """

    def __init__(self, holder: Holder | None, seconds: float | None) -> None:
        super().__init__()
        self.holder, self.seconds = holder, seconds


class Lease:
    """A lock that this process holds, and renews in the background.

    Args:
        path: of the lock.
        holder: this process.
        take_over: whether to disregard another holder.
        say: is told, once, that it cannot be renewed.

    Raises:
        Held: somebody else holds it.
    """

    def __init__(self, path: str, holder: Holder, *, take_over: bool, say: Callable[[str], None]) -> None:
        self._path, self._holder, self._say = path, holder, say
        self._lost = False
        for _ in range(_ATTEMPTS):
            with contextlib.suppress(Changed):  # given back or renewed since we have looked, or somebody was quicker
                self.left, generation = _look(path, take_over=take_over)
                self._renewed = _now()
                self._generation = storage.write_bytes(path, holder.to_json(), generation=generation)
                break
        else:
            raise Held(read(path), EXPIRE_SECONDS)
        self._turn, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._renew_for_ever, name="lock", daemon=True)
        self._thread.start()

    def is_ours(self) -> bool:
        """Say whether it is still held. Costs nothing, unless it was not renewed for long: then it is, now.

        Raises:
            RemaskError: nobody can tell, since the lock cannot be reached.
        """
        if not self._lost and _now() - self._renewed > EXPIRE_SECONDS / 2:
            self._renew()
        return not self._lost

    def write(self, holder: Holder) -> None:
        """Say something else of the holder."""
        self._holder = holder
        self._renew()

    def leave(self) -> None:
        """Renew it no more."""
        self._ended.set()

    def release(self) -> None:
        """Give it back, if it is still ours."""
        self._ended.set()
        with self._turn, contextlib.suppress(Changed):
            storage.remove(self._path, generation=self._generation)

    def _renew(self) -> None:
        with self._turn:
            began = _now()
            if self._ended.is_set():
                return
            try:
                self._generation = storage.write_bytes(self._path, self._holder.to_json(), generation=self._generation)
            except Changed:
                self._lost = True
            else:
                self._renewed = began

    def _renew_for_ever(self) -> None:
        told = False
        while not self._ended.wait(RENEW_SECONDS) and not self._lost:
            try:
                self._renew()
            except RemaskError as error:
                if not told:
                    self._say(f"the lock cannot be renewed at the moment: {error}")
                told = True


def read(path: str) -> Holder | None:
    """Return who holds a lock; None where nobody does, or the lock does not tell.

    Raises:
        RemaskError: it is there and cannot be read: who cannot read it does not know whose it is.
    """
    try:
        return Holder.read(storage.read_bytes(path))
    except RemaskError:
        if storage.generation(path):
            raise
        return None


def _look(path: str, *, take_over: bool) -> tuple[Holder | None, int]:
    """Return who has left the lock, and its generation.

    Raises:
        Held: somebody holds it.
        Changed: it was given back while we looked.
    """
    generation = storage.generation(path)
    if not generation:
        return None, 0
    holder = read(path)
    if take_over or (holder and holder.is_gone() and not holder.outlives):
        return holder, generation
    if holder and holder.outlives:
        raise Held(holder, None)
    try:
        left = EXPIRE_SECONDS - storage.age(path)
    except RemaskError as error:
        if storage.generation(path) == generation:
            raise
        raise Changed(str(error)) from None
    if left > 0:
        raise Held(holder, left)
    return holder, generation


def _now() -> float:
    return time.clock_gettime(_CLOCK)
