"""Signals that come to this very process at a moment of the code's own, not of the clock's."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any


@contextlib.contextmanager
def signalled(number: int, function: str, event: str) -> Iterator[list[str]]:
    """Send a signal once a Python function is called, or returns, for the first time in the block, in this thread.

    Args:
        number: of the signal.
        function: "FILE.py:NAME", the latter with its class.
        event: "call" or "return".

    Gives:
        A list that holds the function once the signal is sent: for the test to look at, or it tests nothing.
    """
    sent: list[str] = []
    file, name = function.split(":")

    def look(frame: FrameType, found: str, argument: Any) -> None:
        code = frame.f_code
        if found == event and code.co_qualname == name and os.path.basename(code.co_filename) == file and not sent:
            sent.append(function)
            sys.setprofile(None)
            signal.raise_signal(number)

    sys.setprofile(look)
    try:
        yield sent
    finally:
        sys.setprofile(None)
