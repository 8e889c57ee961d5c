"""Ctrl-C, SIGTERM and SIGPIPE, turned into a question that the loop asks between two looks at the device."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from records.console.command_line import reader_has_gone


@contextlib.contextmanager
def stop_signals(say: Callable[[str], None]) -> Iterator[Callable[[], int]]:
    """Yield a function that returns the signal that asked to stop, 0 while none has.

    SIGPIPE, which Python ignores otherwise, is one of them where nobody reads any more what is said. (The line itself
    still raises BrokenPipeError.) A second Ctrl-C interrupts at once. Outside the main thread, where Python allows no
    handlers, nothing is caught.
    """
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        if number == signal.SIGPIPE and not reader_has_gone():  # a bucket has closed a connection, and is asked again
            return
        received.append(number)
        if number == signal.SIGPIPE:
            return
        with contextlib.suppress(RuntimeError):  # Python was just writing to the same file: that cannot be reentered
            say(f"{signal.Signals(number).name}: finishing the steps that are under way, then saving")

    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)}
    try:
        yield lambda: received[0] if received else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
