"""Ctrl-C and SIGTERM, held back where they would come between a deed and what undoes it.

Python raises whatever a signal's handler raises between any two calls: also between the one that makes something and
the `try` behind it, and in the midst of what that undoes.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any


class Signals:
    """SIGINT and SIGTERM, held back but where they are let through."""

    def __init__(self) -> None:
        self._through = False
        self._received: list[int] = []
        self._before: dict[int, Any] = {}

    def let_through(self) -> "_Window":
        """Return a context manager that lets them through while its block runs, first what has come meanwhile.

        What one of them raises is raised in the block or at its edges, where it is still held back from what follows.
        """
        return _Window(self)

    def hold(self) -> None:
        """Hold them back from here on, until they are let through again."""
        self._through = False

    def _open(self) -> None:
        try:
            self._through = True
            while self._received:
                self._pass_on(self._received.pop(0), None)
        except BaseException:
            self._through = False
            raise

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._through:
            self._pass_on(number, frame)
        else:
            self._received.append(number)

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
def held() -> Iterator[Signals]:
    """Hold SIGINT and SIGTERM back while the block runs, but where it lets them through.

    What has come by its end takes effect then, unless the block fails: that is to be told, and ends the command anyway.
    A signal that is ignored stays so. Outside the main thread, where Python allows no handlers, nothing is held.
    """
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = {number: signal.getsignal(number) for number in numbers}
    signals._before = {number: handler for number, handler in handlers.items() if handler != signal.SIG_IGN}
    try:
        for number in signals._before:
            signal.signal(number, signals._receive)
        yield signals
    finally:
        for number, handler in signals._before.items():
            signal.signal(number, handler)
    for number in signals._received[:1]:
        signal.raise_signal(number)
