"""`make mutants`: which changes to the code it makes, and what it says of those that no test noticed."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.__main__ import report
from tests.mutants.confined import can_confine
from tests.mutants.made import Mutant, drafts

ROOT = Path(__file__).parents[1]

SOURCE = '''"""Adds."""

Sum = tuple[int, int]


def add(one: int = 1, *, name: str) -> int:
    """Add."""
    if one < 0:
        raise ValueError(f"{name}: found {one - 1}, " + "expected more")
    return one + len(name.strip("x"))
'''


def test_all_is_changed_but_words_for_people_and_types():
    pytest.importorskip("mutmut", reason="mutmut is not installed: make mutants")
    found = [draft.written() for draft in drafts("a.py", SOURCE)]
    assert {(mutant.line, mutant.change[1]) for mutant in found} == {
        (6, "+def add(one: int = 2, *, name: str) -> int:"),
        (8, "+    if one <= 0:"),
        (8, "+    if one < 1:"),
        (9, "+        raise ValueError(None)"),
        (9, '+        raise ValueError(f"{name}: found {one + 1}, " + "expected more")'),
        (9, '+        raise ValueError(f"{name}: found {one - 2}, " + "expected more")'),
        (9, '+        raise ValueError(f"{name}: found {one - 1}, " - "expected more")'),
        (10, '+    return one - len(name.strip("x"))'),
    }
    assert len({mutant.id for mutant in found}) == len(found)
    assert {draft.lot for draft in drafts("a.py", SOURCE)} == {draft.lot for draft in drafts("a.py", f"\n{SOURCE}")}


@pytest.mark.parametrize(("survivors", "status"), [(3, 0), (4, 1)])
def test_too_many_survivors_fail_and_each_is_shown(survivors, status, capsys):
    results = ["survived"] * survivors + ["timed out"] + ["killed"] * (19 - survivors)
    done = [(Mutant("a.py", "", line, ("-old", "+new")), result) for line, result in enumerate(results)]
    assert report(done) == status
    said = capsys.readouterr().out
    assert f"20 {19 - survivors:7} {1:10} {survivors:9}   {1 - survivors / 20:.1%}" in said
    assert f"a.py:{survivors - 1}\n    -old\n    +new\n" in said
    assert f"a.py:{survivors}" not in said


CONFINED = """
import os, signal, subprocess, sys
from pathlib import Path
from tests.mutants.confined import confine

own, others = Path(sys.argv[1]), Path(sys.argv[2])
confine([own])


def refused(do, *arguments):
    try:
        do(*arguments)
    except PermissionError:
        return True
    return False


def by_a_child(command):
    return subprocess.run([sys.executable, "-c", f"import os; {command}"], stderr=subprocess.DEVNULL).returncode != 0


(own / "made").mkdir()
(own / "made" / "file").write_text("may be written")
os.rename(own / "made" / "file", own / "moved")
os.rmdir(own / "made")
Path(os.devnull).write_text("")
os.kill(os.getpid(), 0)
assert (others / "file").read_text() == "kept"
assert refused((others / "file").unlink)
assert refused((others / "file").write_text, "lost")
assert refused(os.truncate, others / "file", 0)
assert refused(os.rename, others / "file", own / "file")
assert refused(os.rename, own / "moved", others / "moved")
assert refused((others / "new").mkdir)
assert refused((others / "new").symlink_to, own)
assert refused((others / "empty").rmdir)
assert refused(os.kill, os.getppid(), 0)
assert by_a_child(f"os.remove({str(others / 'file')!r})")
assert by_a_child(f"os.kill({os.getppid()}, 0)")
"""


@pytest.mark.skipif(not can_confine(), reason="this system has no Landlock that withholds signals")
def test_a_confined_process_writes_nowhere_else_and_signals_nobody(tmp_path):
    own, others = tmp_path / "own", tmp_path / "others"
    own.mkdir()
    (others / "empty").mkdir(parents=True)
    (others / "file").write_text("kept")
    command = [sys.executable, "-c", CONFINED, str(own), str(others)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert not done.returncode, done.stderr
    assert (others / "file").read_text() == "kept"
    assert sorted(path.name for path in others.iterdir()) == ["empty", "file"]
