"""Processes that tests start: each has a limit, and none outlives the test that has started it.

Limits are for what hangs, not for what is slow: what is waited for takes seconds, and a machine may be loaded with
much else.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

LIMIT = 240
"""Seconds after which a wait is given up; a test as a whole has more (`timeout` in pyproject.toml)."""


@contextlib.contextmanager
def started(command: str | Sequence[str], *, limit: float = LIMIT, **options: Any) -> Iterator[subprocess.Popen]:
    """Give a process, as `subprocess.Popen` starts it; at the end it is killed, and so is what it has started itself.

    Args:
        command: of the process.
        limit: seconds after which it is killed in any case, so that no read and no wait in the block is for ever. It
            says where it hangs before, as far as that is Python.
        options: of `subprocess.Popen`.
    """
    options = {"stdin": subprocess.DEVNULL, **options}
    with subprocess.Popen(command, start_new_session=True, **options) as process:
        process.hung = False
        watch = threading.Timer(limit, give_up, [process])
        watch.daemon = True
        watch.start()
        try:
            yield process
        finally:
            watch.cancel()
            _kill(process)


def ended(process: subprocess.Popen, said_to_it: Any = None) -> tuple[Any, Any]:
    """Wait for the end of a process; return what it said on stdout and stderr, as far as they are pipes.

    Raises:
        AssertionError: it did not end by itself; with what it has said.
    """
    said = process.communicate(said_to_it)
    assert not process.hung, "\n".join((f"does not end: {process.args}", *map(str, said)))
    return said


def run(
    command: str | Sequence[str],
    *,
    input: Any = None,
    capture_output: bool = False,
    check: bool = False,
    **options: Any,
) -> subprocess.CompletedProcess:
    """Run a command to its end, as `subprocess.run` does.

    Raises:
        AssertionError: it does not end; or it was to be checked, and has failed; with what it said.
    """
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if input is not None:
        options["stdin"] = subprocess.PIPE
    with started(command, **options) as process:
        out, err = ended(process, input)
    assert not check or process.returncode == 0, f"{command} ended with {process.returncode}\n{out}\n{err}"
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def wait_for(happened: Callable[[], object], *needed: subprocess.Popen) -> None:
    """Wait until something has happened, for which some processes must run on.

    Raises:
        AssertionError: it does not happen, or one of the processes has ended; with what that one said.
    """
    deadline = time.monotonic() + LIMIT
    while not happened():
        for process in needed:
            assert process.poll() is None, (process.args, process.returncode, *ended(process))
        assert time.monotonic() < deadline, f"has not happened in {LIMIT} s"
        time.sleep(0.01)


def give_up(process: subprocess.Popen) -> None:
    """End a process that has not ended by itself, and let it say where it is."""
    if process.poll() is None:
        process.hung = True
        process.send_signal(signal.SIGABRT)  # upon which faulthandler, which conftest.py switches on, says where it is
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
    _kill(process)


def _kill(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody of them is there any more
        os.killpg(process.pid, signal.SIGKILL)
