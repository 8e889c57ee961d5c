"""Runs contenders in turn, several times, and says how they compare.

The machines that benchmarks run on are shared: their speed drifts, and what else runs on them takes time from all. So
contenders take turns (A B C, A B C, ...), what is compared is CPU-seconds before wall time, a ratio is taken within
each round, and the median over the rounds is what counts; the spread is printed beside it.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from records.errors import RemaskError

OURS, PEER, LIMIT = "ours", "peer", "limit"
"""Roles of contenders: remask, what others use for the same job, and what the machine could do at best."""

PEERS_PYTHON = ".venv-peers/bin/python"
"""The environment of `benchmarks/peers.txt`."""

_ROOT = Path(__file__).resolve().parent.parent
_WATCH_SECONDS = 0.2


class Contender(NamedTuple):
    """Who takes part, and how it is started."""

    name: str
    role: str
    entry: str  # MODULE:FUNCTION, see `benchmarks.contender`
    arguments: Mapping[str, Any] = {}
    python: str = sys.executable
    environment: Mapping[str, str] = {}


class Run(NamedTuple):
    """What one run of one contender has shown."""

    amount: float
    cpu_seconds: float
    wall_seconds: float
    peak_bytes: int  # of all its processes together
    digest: str = ""
    figures: Mapping[str, float] = {}
    versions: Mapping[str, str] = {}

    @property
    def rate(self) -> float:
        """Work per CPU-second."""
        return self.amount / self.cpu_seconds


@dataclass(frozen=True)
class Contest:
    """What all runs have shown: `runs[name]` has one run a round, in the order of the rounds."""

    title: str
    unit: str
    roles: Mapping[str, str]
    runs: Mapping[str, Sequence[Run]] = field(repr=False)

    def ratios(self, name: str, other: str, of: str = "rate") -> list[float]:
        """Return how `name` compares to `other` in each round.

        >>> runs = {"we": [Run(9, 1.0, 1, 1), Run(9, 1.5, 1, 1)], "they": [Run(3, 1.0, 1, 1), Run(3, 1.0, 1, 1)]}
        >>> Contest("", "", {}, runs).ratios("we", "they")
        [3.0, 2.0]
        """
        return [getattr(a, of) / getattr(b, of) for a, b in zip(self.runs[name], self.runs[other], strict=True)]

    def ratio(self, name: str, other: str, of: str = "rate") -> float:
        """Return the median of `ratios`."""
        return median(self.ratios(name, other, of))

    def median(self, name: str, of: str = "rate") -> float:
        """Return the median of an attribute over a contender's runs."""
        return median(getattr(run, of) for run in self.runs[name])

    @property
    def ours(self) -> str:
        """Name of the first contender of ours."""
        return next(name for name, role in self.roles.items() if role == OURS)

    def table(self) -> str:
        """Return the table to print: medians, and the spread over the rounds of what they are medians of."""
        width = max(map(len, self.runs))
        head = (
            f"{'':<{width}}  {'':5}  {self.unit + '/CPU-s':>18}  {'min .. max':>21}  {'CPU-s':>8}  {'wall s':>8}  "
            f"{'peak MB':>8}  {'ours / it':>9}  {'min .. max':>13}"
        )
        return "\n".join([f"{self.title} (medians of {self.rounds} rounds)", head, *map(self._row, self.runs)])

    @property
    def rounds(self) -> int:
        """How often each contender ran."""
        return len(next(iter(self.runs.values())))

    def _row(self, name: str) -> str:
        width, rates = max(map(len, self.runs)), [run.rate for run in self.runs[name]]
        ratios = self.ratios(self.ours, name)
        return (
            f"{name:<{width}}  {self.roles[name]:5}  {median(rates):>18,.1f}  "
            f"{f'{min(rates):,.0f} .. {max(rates):,.0f}':>21}  {self.median(name, 'cpu_seconds'):>8.2f}  "
            f"{self.median(name, 'wall_seconds'):>8.2f}  {self.median(name, 'peak_bytes') / 1e6:>8,.0f}  "
            f"{median(ratios):>9.2f}  {f'{min(ratios):.2f} .. {max(ratios):.2f}':>13}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return what the results file holds of it."""
        contenders = [
            {
                "name": name,
                "role": self.roles[name],
                "versions": runs[0].versions,
                "runs": [{key: value for key, value in run._asdict().items() if key != "versions"} for run in runs],
            }
            for name, runs in self.runs.items()
        ]
        return {"title": self.title, "unit": self.unit, "contenders": contenders}


def contest(title: str, contenders: Sequence[Contender], *, unit: str, rounds: int) -> Contest:
    """Run each contender once a round.

    Raises:
        RemaskError: a contender failed, or its outcome differs from that of another.
    """
    runs: dict[str, list[Run]] = {contender.name: [] for contender in contenders}
    for number in range(rounds):
        for contender in contenders:
            print(f"{title}: round {number + 1} of {rounds}, {contender.name}", file=sys.stderr, flush=True)
            runs[contender.name].append(run(contender))
    found = {name: {run.digest for run in of_one} for name, of_one in runs.items()}
    if len(set[str]().union(*found.values()) - {""}) > 1:
        raise RemaskError(f"{title}: the outcomes differ: {found}; they were to do the same work")
    return Contest(title, unit, {contender.name: contender.role for contender in contenders}, runs)


def run(contender: Contender) -> Run:
    """Run a contender once, in a process of its own.

    Raises:
        RemaskError: there is no such interpreter, or the contender failed; the text ends with what it said.
    """
    python = contender.python if os.path.isabs(contender.python) else str(_ROOT / contender.python)
    if not os.path.exists(python):
        raise RemaskError(f"{contender.name}: no {contender.python}; run this benchmark by way of 'make bench'")
    command = [python, "-m", "benchmarks.contender", contender.entry, json.dumps(dict(contender.arguments))]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **contender.environment}
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(
            command, cwd=_ROOT, env=environment, stdout=subprocess.PIPE, stderr=said, text=True, start_new_session=True
        )
        with _Memory(session=child.pid) as memory:
            output, _ = child.communicate()
        said.seek(0)
        errors = said.read().decode(errors="replace")
    if child.returncode:
        raise RemaskError(f"{contender.name}: it failed with status {child.returncode}:\n{errors[-4000:]}")
    found = json.loads(output.splitlines()[-1])
    return Run(**{**found, "peak_bytes": max(found["peak_bytes"], memory.peak_bytes)})


class _Memory:
    """Watches how much memory all processes of a session hold together; pages that they share are counted once."""

    def __init__(self, *, session: int) -> None:
        self.peak_bytes = 0
        self._session, self._ended = session, threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "_Memory":
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._ended.wait(_WATCH_SECONDS):
            held = [_proportional_bytes(process) for process in Path("/proc").glob("[0-9]*") if self._is_ours(process)]
            if len(held) > 1:  # of a single process the kernel itself keeps the peak
                self.peak_bytes = max(self.peak_bytes, sum(held))

    def _is_ours(self, process: Path) -> bool:
        try:
            return int((process / "stat").read_text().rpartition(")")[2].split()[3]) == self._session
        except OSError:  # it has ended
            return False


def _proportional_bytes(process: Path) -> int:
    try:
        lines = (process / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


@dataclass
class Report:
    """All contests of one benchmark, and what they come down to."""

    name: str
    input: str  # what was worked on, in words
    contests: list[Contest] = field(default_factory=list)
    headlines: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, found: Contest) -> Contest:
        """Add a contest, and print its table."""
        self.contests.append(found)
        print(f"\n{found.table()}\n", flush=True)
        return found

    def note(self, text: str) -> None:
        """Add a line that says what figures mean, and print it."""
        self.notes.append(text)
        print(text, flush=True)

    def finish(self, results: str = "") -> None:
        """Write the results file and print the headlines, the last lines of a benchmark."""
        folder = Path(results) if results else _ROOT / "benchmarks" / "results"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        content = {
            "benchmark": self.name,
            "input": self.input,
            "machine": machine(),
            "commit": commit(),
            "contests": [found.to_json() for found in self.contests],
            "notes": self.notes,
            "headlines": self.headlines,
        }
        path.write_text(json.dumps(content, indent=1) + "\n")
        print(f"made {os.path.relpath(path)}; 'make bench-report' draws it")
        for name, value in self.headlines.items():
            print(f"headline {name} {value:.4g}")


@dataclass(frozen=True)
class Machine:
    """Where a benchmark ran."""

    processor: str
    cores: int
    memory_bytes: int
    system: str


def machine() -> dict[str, Any]:
    """Return what a reader must know of this machine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    system = os.uname()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return asdict(Machine(processor, len(os.sched_getaffinity(0)), memory, f"{system.sysname} {system.machine}"))


def commit() -> str:
    """Return the commit that is measured, with a + where the working tree differs from it; nothing without git."""
    if not shutil.which("git"):
        return ""

    def git(*arguments: str) -> str:
        said = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=False)
        return said.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "*.py", "*.txt")
    return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
