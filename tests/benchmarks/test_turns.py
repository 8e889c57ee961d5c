import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.turns import Entrant, in_turn
from tests.processes import started

LONG = 120.0
"""Seconds that no test here takes, but where it hangs."""


class Clock:
    """Stands still until it is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def entrant(name: str, **arguments: object) -> Entrant:
    return Entrant(name, "tests.benchmarks.made:turns", arguments)


def taken(*entrants: Entrant, limit: float = LONG) -> dict[str, list]:
    """Return what each has given, by name."""
    given: dict[str, list] = {one.name: [] for one in entrants}
    for one, found in in_turn(entrants, seconds=LONG, limit=limit):
        given[one.name].append(found)
    return given


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"  # killed, and not yet reaped
    except FileNotFoundError:
        return True


def processes() -> set[int]:
    """Return those that this one has started, and what these have."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent, *_ = path.read_text().rpartition(")")[2].split()
            if state != "Z":
                parents[int(path.parent.name)] = int(parent)

    def ours(pid: int) -> bool:
        return pid in parents and (parents[pid] == os.getpid() or ours(parents[pid]))

    return {pid for pid in parents if ours(pid)}


def test_each_has_a_turn_and_what_libraries_print_is_no_figure():
    given = taken(entrant("a", found=[{"value": 1}, {"value": 2}]), entrant("b", found=[{"value": 3}]))
    assert given == {"a": [{"value": 1}, {"value": 2}], "b": [{"value": 3}]}


def test_the_next_prepares_meanwhile_and_has_the_device_afterwards(tmp_path):
    """The first ends once the second is prepared, which has not begun its work by then."""
    prepared, works = tmp_path / "prepared", tmp_path / "works"
    first = entrant("a", found=[{"waits": str(prepared)}])
    second = entrant("b", found=[{"value": 2}], writes=str(prepared), works=str(works))
    turns = in_turn([first, second], seconds=LONG, limit=LONG)
    assert next(turns)[0].name == "a"
    assert not works.exists()
    assert [(one.name, found) for one, found in turns] == [("b", {"value": 2})]
    assert works.exists()


def test_what_hangs_is_killed_with_what_it_started():
    clock = Clock()
    turn = in_turn([entrant("a", found=[{"pids": []}], then="hangs")], seconds=10 * LONG, limit=LONG, clock=clock)
    _, found = next(turn)
    assert not any(gone(pid) for pid in found["pids"])
    clock.now = LONG
    assert [missing.reason for _, missing in turn] == ["killed after its 120 s, on the device"]
    assert len(found["pids"]) == 2
    assert all(gone(pid) for pid in found["pids"])


def test_what_never_is_ready_is_killed_too():
    given = taken(entrant("a", then="is never ready"), limit=0.5)
    assert [one.reason for one in given["a"]] == ["killed after its 0.5 s, while it prepared"]


def test_a_limit_begins_with_the_turn():
    clock = Clock()
    turn = in_turn([entrant("a", found=[{}]), entrant("b", found=[{}])], seconds=LONG, limit=LONG - 2, clock=clock)
    next(turn)
    clock.now = LONG - 3
    assert [(one.name, found) for one, found in turn] == [("b", {})]


def test_the_time_of_all_is_kept_and_who_has_had_no_turn_is_named():
    clock = Clock()
    entrants = [entrant(name, found=[{}], then="hangs") for name in "abc"]
    turn = in_turn(entrants, seconds=LONG, limit=10 * LONG, clock=clock)
    next(turn)
    clock.now = LONG
    assert [(one.name, missing.reason) for one, missing in turn] == [
        ("a", "killed after the 120 s of all, on the device"),
        ("b", "not begun: the 120 s of all were over"),
        ("c", "not begun: the 120 s of all were over"),
    ]


@pytest.mark.parametrize(
    ("then", "reason"),
    [
        ("fails", "MemoryError: out of memory on device: asked for 9 GiB"),
        ("dies", "was ended by signal 11 on the device"),
        ("exits", "exited with 3 on the device"),
    ],
)
def test_one_that_fails_is_explained_and_keeps_what_it_gave(then, reason):
    given = taken(entrant("a", found=[{"value": 1}], then=then), entrant("b", found=[{"value": 2}]))
    first, missing = given["a"]
    assert (first, missing.reason) == ({"value": 1}, reason)
    assert given["b"] == [{"value": 2}]


def test_what_it_said_is_kept():
    assert "a last word\n" in taken(entrant("a", then="dies"))["a"][0].said
    (missing,) = taken(entrant("a", then="fails to prepare"))["a"]
    assert missing.reason == "ModuleNotFoundError: No module named 'jax'"
    assert "Traceback" in missing.said


def test_one_that_is_done_is_not_waited_for():
    began = time.monotonic()
    assert taken(entrant("a", found=[{"value": 1}], then="does not exit")) == {"a": [{"value": 1}]}
    assert time.monotonic() - began < LONG


def test_closed_before_its_end_it_leaves_no_process(tmp_path):
    prepared, others = tmp_path / "prepared", processes()
    first = entrant("a", found=[{"waits": str(prepared), "pids": []}], then="hangs")
    second = entrant("b", writes=str(prepared))
    with contextlib.closing(in_turn([first, second], seconds=LONG, limit=LONG)) as turns:
        _, found = next(turns)
        begun = processes() - others
        assert set(found["pids"]) < begun
        assert len(begun) == 3
    assert not processes() - others


def test_who_nobody_listens_to_ends():
    command = [sys.executable, "-m", "benchmarks.turns", "tests.benchmarks.made:turns", '{"then": "hangs"}']
    for go in (b"", b"go\n"):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with started(command, **pipes) as process:
            assert process.stdout.readline() == b'"ready"\n'
            process.stdin.write(go)
            process.stdin.close()
            assert process.wait(timeout=LONG) == -signal.SIGKILL
