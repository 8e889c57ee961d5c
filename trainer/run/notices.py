"""What Google Cloud says beforehand of this machine's end: that it is preempted, or stopped for maintenance."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

from records.storage import metadata

SECONDS = 1.0
"""Between two questions. A preempted machine has 30 seconds left."""

_NOTICES = {"instance/preempted": "TRUE", "instance/maintenance-event": "TERMINATE_ON_HOST_MAINTENANCE"}
"""By key of the metadata server, the value that means the end; a machine that migrates lives on."""


@contextlib.contextmanager
def watched(say: Callable[[str], None]) -> Iterator[Callable[[], int]]:
    """Yield a function that returns SIGTERM once notice has been given, which stands for the same; 0 before.

    Elsewhere than on Google Cloud nobody is asked.
    """
    if not metadata.is_expected():
        yield lambda: 0
        return
    noticed, over = threading.Event(), threading.Event()

    def watch() -> None:
        while not over.is_set():
            if key := given():
                said = f"{key} is {_NOTICES[key]}"
                say(f"Google Cloud gives notice ({said}): finishing the steps that are under way, then saving")
                noticed.set()
                return
            over.wait(SECONDS)

    thread = threading.Thread(target=watch, name="notices", daemon=True)
    thread.start()
    try:
        yield lambda: signal.SIGTERM if noticed.is_set() else 0
    finally:
        over.set()
        thread.join()


def given() -> str:
    """Return the key under which the metadata server gives notice; "" where it gives none."""
    return next((key for key, value in _NOTICES.items() if metadata.get(key) == value), "")
