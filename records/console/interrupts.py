"""Ctrl-C and SIGTERM, held back where they would come between a deed and what undoes it.

Python raises whatever a signal's handler raises between any two calls: also between the one that makes something and
the `try` behind it, and in the midst of what that undoes.
"""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

_NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """SIGINT and SIGTERM, held back but where they are let through.

    One is held back at a time, and it is said what it waits for. Whatever that is may never come, so the next one
    goes through at once.

    Args:
        waiting_for: what comes first, in the words of a sentence: "the lock of out".
    """

    def __init__(self, waiting_for: str) -> None:
        self._through = False
        self._always = self._waiting_for = waiting_for
        self._received: list[int] = []
        self._before: dict[int, Any] = {}

    def let_through(self) -> "_Window":
        """Return a context manager that lets them through while its block runs, first what has come meanwhile.

        What one of them raises is raised in the block or at its edges, where it is still held back from what follows.
        """
        return _Window(self)

    def hold(self, waiting_for: str = "") -> None:
        """Hold them back from here on, until they are let through again.

        Args:
            waiting_for: what comes first, if that is something else than at the beginning.
        """
        self._waiting_for = waiting_for or self._always
        self._through = False

    def _begin(self) -> None:
        with _blocked():
            handlers = {number: signal.getsignal(number) for number in _NUMBERS}
            # None is a handler that was not set in Python, which could not put it back.
            self._before = {
                number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, None)
            }
            for number in self._before:
                signal.signal(number, self._receive)

    def _end(self, failure: BaseException | None) -> None:
        try:
            with _blocked():
                # What another thread receives comes through in spite of the block. Where it keeps a handler from being
                # put back, ours stays, and passes on what it receives.
                self._through = True
                for number, handler in self._before.items():
                    signal.signal(number, handler)
            if self._received and not isinstance(failure, KeyboardInterrupt):  # which is one of them already
                signal.raise_signal(self._received[0])
        except KeyboardInterrupt as asked:
            raise asked from None if isinstance(failure, KeyboardInterrupt) else failure

    def _open(self) -> None:
        try:
            self._through = True
            while self._received:
                self._pass_on(self._received.pop(0), None)
        except BaseException:
            self._through = False
            raise

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._through or self._received:
            self._through = True  # whoever asks twice is not to wait for what undoes it, either
            self._received.clear()
            self._pass_on(number, frame)
            return
        self._received.append(number)
        with contextlib.suppress(RuntimeError, OSError):  # Python was just writing there; or nobody reads it any more
            said = f"{signal.Signals(number).name}: waiting for {self._waiting_for}; another one ends this at once"
            print(said, file=sys.stderr, flush=True)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        handler = self._before.get(number)
        if callable(handler):
            handler(number, frame)
        else:  # the system's own, which ends the process
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


class _Window:
    def __init__(self, signals: Signals) -> None:
        self._signals = signals

    def __enter__(self) -> None:
        self._signals._open()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._signals.hold()


@contextlib.contextmanager
def held(waiting_for: str) -> Iterator[Signals]:
    """Hold SIGINT and SIGTERM back while the block runs, but where it lets them through.

    What has come by its end takes effect then. Where the block fails, what it raised is the cause of what the signal
    raises, which is to be told, too. A signal that is ignored stays so. Outside the main thread, where Python allows no
    handlers, nothing is held.

    Args:
        waiting_for: what a signal waits for, in the words of a sentence: "the lock of out".
    """
    signals = Signals(waiting_for)
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    failure: BaseException | None = None
    try:
        signals._begin()
        yield signals
    except BaseException as error:
        failure = error
        raise
    finally:
        signals._end(failure)


@contextlib.contextmanager
def _blocked() -> Iterator[None]:
    """Let this thread receive neither of them while the block runs."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())  # by itself: the next call may raise, and the mask be set
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, _NUMBERS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
