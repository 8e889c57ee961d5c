"""Runs tests in a copy of the tree, in a process that is forked once all that is slow to import is there.

TensorFlow and Beam take five CPU-seconds to import, the tests of most mutants less than one.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.mutants.confined import confine
from tests.mutants.made import Mutant

ROOT = Path(__file__).parents[2]
OURS = ("benchmarks", "pipelines", "records", "tests", "trainer")

_NOT_RUN = 70  # an exit status that is none of pytest's
_TOLD = "told.json"

History = dict[str, tuple[float, int]]
"""Of each test the seconds that it takes, and how many mutants it has killed."""


class Outcome(NamedTuple):
    """What became of the tests."""

    result: str  # "survived", "killed" or "timed out"
    seconds: float
    killer: str  # the test that failed
    took: dict[str, float]  # seconds of each test that ran


class Trial:
    """Tests that are under way, in a process and a process group of their own, which can write to `place`/own alone.

    Args:
        place: a folder with a copy of the tree, in `tree`.
        tests: to run.
        history: of these tests.
        limit: seconds after which they are ended.
    """

    def __init__(self, place: Path, tests: Sequence[str], history: History, *, limit: float) -> None:
        self.place, self._limit, self._began = place, limit, time.monotonic()
        shutil.rmtree(place / "own", ignore_errors=True)
        (place / "own").mkdir()
        self._pid = os.fork()
        if not self._pid:
            status = _NOT_RUN
            try:
                status = _run(place, tests, history)
            except BaseException:  # which must not go on where this process was forked
                traceback.print_exc()
            finally:
                os._exit(status)

    def outcome(self) -> Outcome | None:
        """Return what became of it; None while it runs.

        Raises:
            RuntimeError: the tests could not be run at all.
        """
        seconds = time.monotonic() - self._began
        ended = os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if not ended and seconds < self._limit:
            return None
        # What the tests have started goes, too. Not reaped yet, the process keeps its number from being another's.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        _, status = os.waitpid(self._pid, 0)
        if not ended:
            return Outcome("timed out", seconds, "", {})
        if os.waitstatus_to_exitcode(status) == _NOT_RUN:
            raise RuntimeError(f"the tests could not be run:\n{self.log()}")
        told = self.place / "own" / _TOLD
        read: dict[str, Any] = json.loads(told.read_text()) if told.exists() else {}
        result = "killed" if status else "survived"
        return Outcome(result, seconds, read.get("killer", ""), read.get("took", {}))

    def log(self) -> str:
        """Return what the tests said."""
        return (self.place / "log").read_text(errors="replace")


def copied(place: Path) -> Path:
    """Copy all that git knows of, or would, into the folder `tree` of a new place."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (place / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place / "tree" / name)
    return place


def prepare() -> None:
    """Import what is slow to import, with TensorFlow split into four CPUs as the tests want it, and start nothing."""
    import tests.conftest  # noqa: F401, I001  before TensorFlow, which it sets up
    import tensorflow  # noqa: F401
    import apache_beam  # noqa: F401
    import google.cloud.storage  # noqa: F401
    import hypothesis  # noqa: F401
    import keras  # noqa: F401
    import tokenizers  # noqa: F401


def write(place: Path, mutant: Mutant | None, file: str) -> None:
    """Put a mutant into a copy of the tree, or the module as it is."""
    source = mutant.source if mutant else (ROOT / file).read_text(encoding="utf-8")
    (place / "tree" / file).write_text(source, encoding="utf-8")


class _Quickest:
    """Orders the tests of a file: those that kill most in a second come first."""

    def __init__(self, history: History) -> None:
        self._history, self.killer = history, ""
        self.took: dict[str, float] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        files = list(dict.fromkeys(item.path for item in items))

        def place(item: pytest.Item) -> tuple[int, float]:
            seconds, kills = self._history.get(item.nodeid, (1.0, 0))
            return files.index(item.path), -(kills + 0.5) / (seconds + 0.05)

        items.sort(key=place)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.took[report.nodeid] = self.took.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self.killer = report.nodeid


def _run(place: Path, tests: Sequence[str], history: History) -> int:
    """Run tests in a process that was forked for it; return the exit status, 0 where all of them pass."""
    os.setsid()
    tree, own = place / "tree", place / "own"
    with (place / "log").open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    confine([own])
    os.chdir(tree)
    # A mutant may be as long as the module, and be written in the same second: no compiled file would tell them apart.
    sys.dont_write_bytecode = True
    os.environ |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(tree)}
    os.environ |= {name: str(own) for name in ("TMPDIR", "HOME", "HYPOTHESIS_STORAGE_DIRECTORY")}
    tempfile.tempdir = None
    sys.path[:] = [str(tree), *(path for path in sys.path if path not in ("", str(ROOT)))]
    for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
        del sys.modules[name]
    order = _Quickest(history)
    without = [f"-p no:{name}" for name in ("cacheprovider", "randomly", "xdist")]
    status = int(pytest.main(["-x", "-q", "--assert=plain", "-m", "not slow", *without, *tests], plugins=[order]))
    (own / _TOLD).write_text(json.dumps({"killer": order.killer, "took": order.took}))
    return status
