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
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.mutants.made import Mutant

ROOT = Path(__file__).parents[2]
OURS = ("benchmarks", "pipelines", "records", "tests", "trainer")

History = dict[str, tuple[float, int]]
"""Of each test the seconds that it takes, and how many mutants it has killed."""


class Outcome(NamedTuple):
    """What became of the tests."""

    result: str  # "survived", "killed" or "timed out"
    seconds: float
    killer: str  # the test that failed
    took: dict[str, float]  # seconds of each test that ran


class Trial:
    """Tests that are under way, in a process and a process group of their own."""

    def __init__(self, tree: Path, tests: Sequence[str], history: History, *, limit: float) -> None:
        self.tree, self._limit, self._began = tree, limit, time.monotonic()
        self._told = tree.with_suffix(".json")
        self._told.unlink(missing_ok=True)
        self._pid = os.fork()
        if not self._pid:
            with tree.with_suffix(".log").open("w") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            status = 1
            try:
                status = _run(tree, tests, history, self._told)
            except BaseException:  # which must not go on where this process was forked
                traceback.print_exc()
            finally:
                os._exit(status)

    def outcome(self) -> Outcome | None:
        """Return what became of it; None while it runs."""
        seconds = time.monotonic() - self._began
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        if not pid and seconds < self._limit:
            return None
        self.end()
        if not pid:
            os.waitpid(self._pid, 0)
            return Outcome("timed out", seconds, "", {})
        told: dict[str, Any] = json.loads(self._told.read_text()) if self._told.exists() else {}
        result = "killed" if os.waitstatus_to_exitcode(status) else "survived"
        return Outcome(result, seconds, told.get("killer", ""), told.get("took", {}))

    def end(self) -> None:
        """End the tests, and what they have started."""
        with contextlib.suppress(ProcessLookupError):  # nothing of it is left, or it has not even begun
            os.killpg(self._pid, signal.SIGKILL)


def copied(folder: Path) -> Path:
    """Copy all that git knows of, or would, into a folder."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def prepare() -> None:
    """Import what is slow to import, with TensorFlow split into four CPUs as the tests want it, and start nothing."""
    import tests.conftest  # noqa: F401, I001  before TensorFlow, which it sets up
    import tensorflow  # noqa: F401
    import apache_beam  # noqa: F401
    import google.cloud.storage  # noqa: F401
    import hypothesis  # noqa: F401
    import keras  # noqa: F401
    import tokenizers  # noqa: F401


def write(tree: Path, mutant: Mutant | None, file: str) -> None:
    """Put a mutant into a copy of the tree, or the module as it is."""
    (tree / file).write_text(mutant.source if mutant else (ROOT / file).read_text(encoding="utf-8"), encoding="utf-8")


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


def _run(tree: Path, tests: Sequence[str], history: History, told: Path) -> int:
    """Run tests in a process that was forked for it; return the exit status, 0 where all of them pass."""
    os.setsid()
    os.chdir(tree)
    # A mutant may be as long as the module, and be written in the same second: no compiled file would tell them apart.
    sys.dont_write_bytecode = True
    os.environ |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(tree)}
    sys.path[:] = [str(tree), *(path for path in sys.path if path not in ("", str(ROOT)))]
    for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
        del sys.modules[name]
    order = _Quickest(history)
    without = [f"-p no:{name}" for name in ("cacheprovider", "randomly", "xdist")]
    status = int(pytest.main(["-x", "-q", "--assert=plain", "-m", "not slow", *without, *tests], plugins=[order]))
    told.write_text(json.dumps({"killer": order.killer, "took": order.took}))
    return status
