"""Entrants in turn on one device, each in a process of its own, within a budget of seconds, whatever they do.

Only one of them has the device at a time. While it has, the next one's process has begun already and imports what it
needs, which takes as long as the measurement. What an entrant finds is given on as soon as it says so; one that takes
too long is killed, and what is missing then has a reason.

An entrant is a function that prepares, without touching the device, and returns what is to be done there: a function
without arguments that yields what it finds, as dictionaries that JSON can hold.
"""

import contextlib
import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

Found = dict[str, Any]
Prepared = Callable[[], Iterator[Found]]

_ROOT = Path(__file__).resolve().parent.parent
_READY, _GO, _DONE = "ready", "go", "done"
_SECONDS_TO_END = 5.0  # that a process which says nothing any more has, to be gone
_SAID_LAST = 20_000  # characters of an entrant's standard error that are kept


class Entrant(NamedTuple):
    """Who takes part."""

    name: str
    entry: str  # MODULE:FUNCTION
    arguments: Mapping[str, Any] = {}


class Missing(NamedTuple):
    """Why an entrant gave no more."""

    reason: str
    said: str = ""  # the end of its standard error


def in_turn(
    entrants: Sequence[Entrant],
    *,
    seconds: float,
    limit: float,
    environment: Mapping[str, str] = {},
    clock: Callable[[], float] = time.monotonic,
) -> Generator[tuple[Entrant, Found | Missing], None, None]:
    """Yield what each entrant finds, and, after the last that it has, why there is no more where it did not end well.

    Close the iterator to end all processes.

    Args:
        entrants: in the order of their turns.
        seconds: of all together.
        limit: seconds of one, from the end of the turn before.
        environment: variables of their processes, beside our own.
        clock: gives the time in seconds.
    """
    end = clock() + seconds
    with contextlib.ExitStack() as running:

        def begun(number: int) -> "_Process | None":
            if number >= len(entrants) or clock() >= end:
                return None
            return running.enter_context(_Process(entrants[number], environment))

        following = begun(0)
        for number, entrant in enumerate(entrants):
            process, left = following, end - clock()
            if process is None or left <= 0:
                yield entrant, Missing(f"not begun: the {seconds:g} s of all were over")
                continue
            following = begun(number + 1)
            until, why = min((clock() + limit, f"its {limit:g} s"), (end, f"the {seconds:g} s of all"))
            with process:  # it is gone before the next one gets the device
                for found in process.turn(until, why, clock):
                    yield entrant, found


class _Process:
    """One entrant's process; leaving its context ends it, and what it has started."""

    def __init__(self, entrant: Entrant, environment: Mapping[str, str]) -> None:
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        command = [sys.executable, "-m", "benchmarks.turns", entrant.entry, json.dumps(dict(entrant.arguments))]
        self._child = subprocess.Popen(
            command,
            cwd=_ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            start_new_session=True,
        )
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()  # an empty one is the end
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._gone = False

    def __enter__(self) -> "_Process":
        return self

    def __exit__(self, *_: object) -> None:
        if self._gone:
            return
        self._gone = True
        with contextlib.suppress(ProcessLookupError):  # not yet waited for, so the number is still its own
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        self._reader.join(_SECONDS_TO_END)
        for pipe in (self._child.stdin, self._child.stdout, self._said):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]

    def turn(self, until: float, why: str, clock: Callable[[], float]) -> Iterator[Found | Missing]:
        """Yield what it finds until that time, of which `why` says whose it is."""
        doing = "while it prepared"
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, until - clock()))
            except queue.Empty:
                yield Missing(f"killed after {why}, {doing}", self._end_of_what_it_said())
                return
            if not line:
                yield Missing(f"{self._end()} {doing}", self._end_of_what_it_said())
                return
            said = json.loads(line)
            if said == _DONE:
                return
            if said == _READY:
                doing = "on the device"
                with contextlib.suppress(BrokenPipeError):  # it has died meanwhile, which its end will tell
                    self._tell(_GO)
            elif "failed" in said:
                yield Missing(said["failed"], self._end_of_what_it_said())
                return
            else:
                yield said["found"]

    def _end(self) -> str:
        """Return how it ended, and leave it to be waited for."""
        until = time.monotonic() + _SECONDS_TO_END
        while not (ended := os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)):
            if time.monotonic() > until:
                return "fell silent"
            time.sleep(0.01)
        return f"{'exited with' if ended.si_code == os.CLD_EXITED else 'was ended by signal'} {ended.si_status}"

    def _tell(self, word: str) -> None:
        assert self._child.stdin
        self._child.stdin.write(f"{word}\n".encode())
        self._child.stdin.flush()

    def _read(self) -> None:
        assert self._child.stdout
        for line in self._child.stdout:
            self._lines.put(line)
        self._lines.put(b"")

    def _end_of_what_it_said(self) -> str:
        return os.pread(self._said.fileno(), 1 << 30, 0).decode(errors="replace")[-_SAID_LAST:]


def main(entry: str, arguments: str) -> None:
    """Be an entrant: prepare, say so, wait for the turn, and give what is found, each as a line of JSON."""
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever else libraries print is no line of ours

    def say(what: object) -> None:
        print(json.dumps(what), file=lines, flush=True)

    turn = threading.Event()
    threading.Thread(target=_listen, args=(turn,), daemon=True).start()
    try:
        module, function = entry.split(":")
        work = getattr(importlib.import_module(module), function)(**json.loads(arguments))
        say(_READY)
        turn.wait()
        for found in work():
            say({"found": found})
        say(_DONE)
    except Exception as error:
        traceback.print_exc()
        first, *_ = str(error).splitlines() or [""]
        say({"failed": f"{type(error).__name__}: {first}".removesuffix(": ")})


def _listen(turn: threading.Event) -> None:
    """Let the turn begin when it is told; end the process when nobody is left who could want what it finds."""
    if sys.stdin.readline():
        turn.set()
        sys.stdin.readline()
    if os.getpid() == os.getpgrp():
        os.killpg(0, signal.SIGKILL)  # with what it has started
    os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
