"""Contenders for the tests of contests and of turns."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import turns as turns_of_a_device
from benchmarks.contender import Prepared, Work, digest
from benchmarks.turns import Found


def counts(*, to: int, answer: str = "") -> Prepared:
    """Count in a loop, which takes CPU time and none to speak of in preparation."""

    def work() -> Work:
        total = 0
        for number in range(to):
            total += number
        return Work(to, digest(answer.encode()) if answer else "", {"total": total})

    return work


def prepares(*, seconds: float) -> Prepared:
    """Take CPU time before there is anything to measure."""
    began = time.process_time()
    while time.process_time() - began < seconds:
        pass
    return lambda: Work(1)


def holds(*, processes: int, size: int) -> Prepared:
    """Hold memory in processes of its own for a while."""

    def work() -> Work:
        held = [multiprocessing.Process(target=_hold, args=(size,), daemon=True) for _ in range(processes)]
        for process in held:
            process.start()
        for process in held:
            process.join(60)
        return Work(processes)

    return work


def fails() -> Prepared:
    """Fail in the way that benchmarks do."""
    raise SystemExit("there is no such tokenizer")


def sees() -> Prepared:
    """Return a figure that the environment gives."""
    return lambda: Work(1, figures={"seen": float(os.environ["SEEN"])})


def _hold(size: int) -> None:
    held = bytearray(os.urandom(1 << 10) * (size >> 10))
    time.sleep(1.5)
    assert held


def turns(
    *, found: Sequence[Found] = (), writes: str = "", works: str = "", then: str = ""
) -> turns_of_a_device.Prepared:
    """Take a turn: write a file once prepared, give what is to be found, then end well or in another way.

    What has a file `waits` is found once that is there; in `pids` are then those of this process and of its child.
    """
    os.write(1, b"a library says hello\n")  # which is no line of the protocol
    if then == "is never ready":
        time.sleep(600)
    if then == "fails to prepare":
        raise ModuleNotFoundError("No module named 'jax'\nand more")

    if writes:
        Path(writes).touch()

    def work() -> Iterator[Found]:
        if works:
            Path(works).touch()
        children = [subprocess.Popen(["sleep", "600"])] if then == "hangs" else []
        for one in found:
            while "waits" in one and not Path(one["waits"]).exists():
                time.sleep(0.01)
            yield {**one, **({"pids": [os.getpid(), *(child.pid for child in children)]} if "pids" in one else {})}
        for child in children:
            child.wait(600)
        if then == "fails":
            raise MemoryError("out of memory on device: asked for 9 GiB\ndetails")
        elif then == "dies":
            print("a last word", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        elif then == "exits":
            os._exit(3)
        elif then == "does not exit":
            threading.Thread(target=time.sleep, args=(600,)).start()

    return work


def trains(
    *, rows: Sequence[str], length: int, sequences: int, speed: int, gives: int = 2, then: str = "", **_: object
) -> turns_of_a_device.Prepared:
    """Give figures as a contender on a GPU does: of sequences a half of which is padding.

    Of the first kind of rows it takes `speed` steps a second, of the next twice as many.
    """
    windows = [
        [{"steps": 1, "sequences": sequences, "tokens": sequences * length // 2, "seconds": 1 / speed / factor}] * 3
        for factor in (1, 2)
    ]
    figure = {"first_step_seconds": 1.5, "first_loss": 3.0, "loss": 2.0, "peak_bytes": 2_000_000_000}
    seen = {"device": "NVIDIA H100 80GB HBM3", "versions": {"jax": "0.11"}}
    return turns(
        found=[
            {**figure, **seen, "windows": one, "rows": kind}
            for kind, one in list(zip(rows, windows, strict=True))[:gives]
        ],
        then=then,
    )


def multiplies(*, device: str, seconds: float, size: int) -> turns_of_a_device.Prepared:
    """Give what a device multiplies at best."""
    return turns(found=[{"flops": 800e12, "size": size, "device": "NVIDIA H100 80GB HBM3", "versions": {"torch": "2"}}])
