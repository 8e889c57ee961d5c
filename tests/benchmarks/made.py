"""Contenders for the tests of contests."""

import multiprocessing
import os
import time

from benchmarks.contender import Prepared, Work, digest


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
        held = [multiprocessing.Process(target=_hold, args=(size,)) for _ in range(processes)]
        for process in held:
            process.start()
        for process in held:
            process.join()
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
