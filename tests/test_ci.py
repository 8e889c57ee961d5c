"""What CI runs, on machines with one Python and with more."""

import shutil
import stat
from pathlib import Path

import pytest

from tests import processes

pytestmark = pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")

ROOT = Path(__file__).parent.parent
RUNS, RUNS_NOT = "exit 0", "exit 127"


@pytest.fixture
def machine(tmp_path):
    """Give what makes a clone with CI's script, and runs that where `make` only says how it was called."""

    def program(path, script):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    clone, pyenv = tmp_path / "clone", tmp_path / "pyenv"
    (clone / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", clone / ".ci")
    shutil.copy(ROOT / "README.md", clone)
    make = program(tmp_path / "bin" / "make", 'echo make "$@"')
    program(clone / ".venv" / "bin" / "python", "echo 11")
    for minor in range(12, 20):  # whatever this machine has
        program(make.with_name(f"python3.{minor}"), RUNS_NOT)

    def run(on_path, of_pyenv=()):
        for version in on_path:
            program(make.with_name(f"python{version}"), RUNS)
        for version in of_pyenv:
            program(pyenv / "versions" / f"{version}.5" / "bin" / f"python{version}", RUNS)
        environment = {"PATH": f"{make.parent}:/usr/bin:/bin", "PYENV_ROOT": str(pyenv), "HOME": str(tmp_path)}
        done = processes.run([clone / ".ci" / "run"], env=environment, capture_output=True, text=True, check=True)
        return done.stdout.replace(f"{pyenv}/", "").splitlines()

    return run


def test_all_is_checked_on_one_python_and_tested_on_the_newest_that_is_promised(machine):
    assert machine(["3.12", "3.13", "3.19"]) == ["make check", "make test PYTHON=python3.13 VENV=.venv-3.13"]


def test_the_newest_may_be_one_of_pyenvs(machine):
    assert machine(["3.12"], ["3.13"]) == [
        "make check",
        "make test PYTHON=versions/3.13.5/bin/python3.13 VENV=.venv-3.13",
    ]


def test_the_newest_may_be_an_older_one(machine):
    assert machine(["3.12"]) == ["make check", "make test PYTHON=python3.12 VENV=.venv-3.12"]


def test_where_there_is_no_newer_python_it_says_so(machine):
    checked, said = machine([], ["3.10"])
    assert checked == "make check"
    assert "Python 3.11 alone" in said
