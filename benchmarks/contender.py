"""One run of one contender, in a process of its own: `python -m benchmarks.contender MODULE:FUNCTION ARGUMENTS`.

The function is called with the arguments, a JSON object. It prepares (imports, loads, warms up) and returns what is to
be measured: a function without arguments that does the work and returns how much it was. So start-up is in nobody's
figures, and the interpreter may be that of another environment: only the standard library is imported here.
"""

import hashlib
import importlib
import json
import re
import resource
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

PACKAGES = (
    "apache-beam",
    "datasets",
    "jax",
    "jaxlib",
    "keras",
    "keras-hub",
    "numpy",
    "pyarrow",
    "tensorflow",
    "tensorflow-text",
    "tf-keras",
    "tokenizers",
    "torch",
    "transformers",
    "triton",
)
"""Those whose versions a result names, where they are installed."""


class Work(NamedTuple):
    """What a contender has done."""

    amount: float  # in the unit of the contest
    digest: str = ""  # of the outcome: contenders that give one must give the same
    figures: dict[str, float] = {}  # noqa: RUF012  whatever else is worth a place in the results


Prepared = Callable[[], Work]


def digest(*parts: bytes) -> str:
    """Return a digest by which outcomes are compared.

    >>> digest(b"ab", b"c") == digest(b"abc")
    True
    """
    state = hashlib.blake2b(digest_size=8)
    for part in parts:
        state.update(part)
    return state.hexdigest()


def measured(work: Prepared) -> dict[str, Any]:
    """Do the work once; return it with its CPU-seconds, those of child processes included, and its wall seconds."""
    cpu, began = _cpu_seconds(), time.monotonic()
    done = work()
    return {**done._asdict(), "cpu_seconds": _cpu_seconds() - cpu, "wall_seconds": time.monotonic() - began}


def _cpu_seconds() -> float:
    ours, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(used.ru_utime + used.ru_stime for used in (ours, children))


def peak_bytes() -> int:
    """Return the most memory this process has ever held; `ru_maxrss` would begin with that of its parent."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def versions() -> dict[str, str]:
    """Return the versions of `PACKAGES`, as far as they are installed."""
    installed = {distribution.name.lower().replace("_", "-"): distribution for distribution in metadata.distributions()}
    return {name: installed[name].version for name in PACKAGES if name in installed}


def main(entry: str, arguments: str) -> None:
    """Print what was measured as the last line of standard output."""
    module, function = entry.split(":")
    work = getattr(importlib.import_module(module), function)(**json.loads(arguments))
    found = measured(work)
    print(json.dumps({**found, "peak_bytes": peak_bytes(), "versions": versions()}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
