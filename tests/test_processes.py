"""Whatever tests start ends, and is as if nobody had started it: neither our signals nor our options reach it."""

import ast
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import processes

ROOT = Path(__file__).parent.parent
HANGS = """
import time
def hang_up():
    print("here", flush=True)
    time.sleep(600)
hang_up()
"""
STARTS_ANOTHER = """
import subprocess, sys
with subprocess.Popen([sys.executable, "-c", "import time; print('here', flush=True); time.sleep(600)"]): pass
"""
AS_STARTED = """
import signal
ignored = {number.name for number in signal.valid_signals() if signal.getsignal(number) is signal.SIG_IGN}
print(*sorted(ignored - {"SIGPIPE", "SIGXFSZ", "SIGHUP"}))  # two of which Python itself ignores
print(*signal.pthread_sigmask(signal.SIG_BLOCK, ()))
"""
A_TEST_THAT_HANGS = """
import signal, threading, pytest
@pytest.mark.timeout({timeout})
def test_hangs():
    signal.pthread_sigmask(signal.SIG_BLOCK, {blocked})
    threading.Event().wait(600)
def test_next():
    pass
"""
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


def test_a_process_that_hangs_says_where_once_it_is_given_up():
    with processes.started([sys.executable, "-c", HANGS], **PIPES) as process:
        assert process.stdout.readline() == "here\n"
        processes.give_up(process)
        with pytest.raises(AssertionError, match=r"(?s)^does not end: .* in hang_up\n"):
            processes.ended(process)


def test_a_process_is_given_up_after_its_limit():
    with processes.started([sys.executable, "-c", HANGS], limit=0.1, **PIPES) as process:
        assert process.wait(processes.LIMIT) in (-signal.SIGABRT, -signal.SIGKILL)
        with pytest.raises(AssertionError, match="does not end"):
            processes.ended(process)


def test_what_a_process_has_started_ends_with_it():
    reader, writer = os.pipe()
    with open(reader) as said:
        with processes.started([sys.executable, "-c", STARTS_ANOTHER], stdout=writer):
            os.close(writer)
            assert said.readline() == "here\n"
        assert said.read() == ""  # which comes when nobody is left who could write


def test_what_was_to_succeed_and_fails_says_why():
    program = "import sys; print('of no use', file=sys.stderr); sys.exit(3)"
    with pytest.raises(AssertionError, match=r"(?s) ended with 3\n.*of no use"):
        processes.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)


def test_nobody_waits_for_what_a_process_would_have_done_that_has_ended():
    program = [sys.executable, "-c", "import sys; sys.exit('of no use')"]
    with processes.started(program, **PIPES) as process, pytest.raises(AssertionError, match="of no use"):
        processes.wait_for(lambda: False, process)


@pytest.mark.parametrize("how", ["trap '' INT QUIT TERM CHLD; exec {}", "nohup {} &\nwait $!"], ids=["script", "nohup"])
def test_signals_are_those_of_a_command_in_the_foreground(tmp_path, how):
    """A shell has what it starts in the background ignore SIGINT; nohup SIGHUP, which may stay so."""
    assert started_by_tests(tmp_path, AS_STARTED, lambda tests: ["sh", "-c", how.format(shlex.join(tests))]) == "\n\n"


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make")
def test_options_of_make_and_of_whoever_runs_the_tests_do_not_reach_what_they_start(tmp_path, monkeypatch):
    for name in ("HF_HUB_OFFLINE", "TF_CONFIG", "https_proxy", "PYTHONWARNINGS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "somebody's")
    program = "import json, os; print(json.dumps(dict(os.environ)))"
    made = ["make", "--silent", "-C", str(ROOT), "-o", ".venv/ready", "test", "ARGS=-x"]
    there = json.loads(started_by_tests(tmp_path, program, lambda tests: [*made, f"TESTS={shlex.join(tests)} #"]))
    assert not [name for name in there if name.startswith("MAKE") or name == "ARGS" or "somebody's" in there[name]]
    assert there["PATH"] == os.environ["PATH"]


def started_by_tests(folder, content, command):
    """Return what a program says that tests start, which are themselves started by some command."""
    (folder / "program.py").write_text(content)
    starts = "import sys, tests.conftest; from tests import processes; processes.run(sys.argv[1:], check=True)"
    tests = [sys.executable, "-c", starts, sys.executable, str(folder / "program.py")]
    return processes.run(command(tests), cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("alone", [(), ("-p", "xdist", "-n", "1")], ids=["alone", "xdist"])
def test_a_test_that_hangs_fails_with_its_stack_and_the_next_one_runs(tmp_path, alone):
    done = run_tests(tmp_path, A_TEST_THAT_HANGS.format(timeout=0.5, blocked=()), *alone)
    assert "1 failed, 1 passed" in done.stdout
    assert "threading.Event().wait(600)" in done.stdout
    assert "Timeout (>0.5s)" in done.stdout


def test_a_test_that_cannot_be_interrupted_ends_the_process_and_says_where(tmp_path):
    test = A_TEST_THAT_HANGS.format(timeout=0.5, blocked={int(signal.SIGALRM)})
    done = run_tests(tmp_path, test, "-o", "faulthandler_timeout=2")
    assert done.returncode == 1
    assert "passed" not in done.stdout
    assert "in test_hangs" in done.stderr


def run_tests(folder, content, *options):
    (folder / "test_it.py").write_text(content)
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "-p", "no:cacheprovider", *options]
    return processes.run([*command, "--rootdir", str(folder), str(folder)], cwd=folder, capture_output=True, text=True)


def test_nothing_waits_for_ever():
    """Processes are started by way of `tests.processes`, which limits them; what else is waited for gets a limit."""
    tests, others = (
        ROOT / "tests",
        {"cloud/__main__.py", "benchmarks/made.py", "mutants/tried.py"},
    )  # which run alone, for as long as may be
    found = []
    for path in sorted({*tests.rglob("*.py")} - {Path(processes.__file__), *(tests / other for other in others)}):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                called = ast.unparse(node.func)
                starts = re.fullmatch(
                    r"subprocess\.(run|Popen|call|check_\w+)|os\.(system|fork|popen|spawn\w+)", called
                )
                waits = node.func.attr in ("wait", "communicate", "join", "get", "result", "acquire")
                limited = any(keyword.arg == "timeout" for keyword in node.keywords)
                if (starts and not limited) or (waits and not node.args and not node.keywords):
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {called}")
    assert not found, "start it by way of tests.processes, or give it a limit"
