"""What is tested is the same whoever collects it: workers that collect different tests run none of them."""

import os
import sys
from pathlib import Path

import pytest

from tests import processes

ROOT = Path(__file__).parent.parent


def collected(*where, **environment):
    """Return what a process of its own finds that could be run, in the order of the files."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "--quiet",
        "-p",
        "no:randomly",
        "-p",
        "no:cacheprovider",
    ]
    done = processes.run([*command, *where], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if "::" in line]


def differing(tmp_path, *where):
    """Return what only one of two processes finds, which differ by all that a process should not depend on."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    first = collected(*where, PYTHONHASHSEED="1", TMPDIR=str(one), TZ="UTC")
    second = collected(*where, PYTHONHASHSEED="2", TMPDIR=str(other), TZ="Asia/Tokyo")
    assert first
    return [pair for pair in zip(first, second, strict=False) if len(set(pair)) > 1] or len(first) - len(second)


def test_two_processes_collect_the_same_tests_in_the_same_order(tmp_path):
    assert not differing(tmp_path)


@pytest.mark.parametrize(
    "parameters",
    ["{'a', 'b', 'c', 'd', 'e', 'f'}", "[__import__('time').time()]", "[str(object())]", "[__import__('os').getpid()]"],
    ids=["order of a set", "time", "address", "process"],
)
def test_what_differs_is_seen(tmp_path, parameters):
    test = tmp_path / "test_it.py"
    test.write_text(f"import pytest\n@pytest.mark.parametrize('it', {parameters})\ndef test(it):\n    pass\n")
    assert differing(tmp_path, str(test), f"--rootdir={tmp_path}", f"--confcutdir={tmp_path}")
