"""Every command on a terminal that shows few characters, and with names and texts that are not UTF-8."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests import processes
from tests.said import must_name, one_line

ROOT = Path(__file__).parent.parent
ALL = """
import json, sys
from pipelines.__main__ import COMMANDS as pipelines
from records.__main__ import COMMANDS as records
from records.console.command_line import main
from trainer.__main__ import COMMANDS as trainer
packages = {"pipelines": pipelines, "records": records, "trainer": trainer}
for package, *argv in json.loads(sys.argv[1]):
    status = main(f"python -m {package}", "", packages[package], argv)
    print(f"{package} {argv[0]}: {status}", file=sys.stderr, flush=True)
"""
"""Runs commands one after the other in one process, for starting TensorFlow is slow."""

POSIX = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # as Python was before it preferred UTF-8
BUFFERED = {"PYTHONUNBUFFERED": ""}  # as it is unless somebody asks for more
NARROW = {
    "ascii": POSIX,
    "latin-1": {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "latin-1"},
}


def ran(command, environment, **more):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHONIO"))}
    return processes.run(command, cwd=ROOT, env={**clean, **environment}, capture_output=True, **more)


@pytest.mark.parametrize("terminal", NARROW)
def test_commands_say_all_they_have_to_say(terminal, tiny_data_set, tiny_shape, tmp_path):
    folder = tmp_path / ("data" if terminal == "ascii" else "数据")  # which no command line has where all is ASCII
    shutil.copytree(tiny_data_set, folder)
    csv, run = tmp_path / "texts.csv", f"{folder}-run"
    csv.write_text('text\n"a ⟨中⟩ plot, 20 € long"\n' + "".join(f"the film {n} was fine\n" for n in range(99)), "utf-8")
    records = ["--max_seq_length", "24", "--validation_fraction", "0.3"]
    small = ["--train_steps", "2", "--warmup_steps", "1", "--global_batch_size", "8"]
    commands = [
        ["pipelines", "records", "--csv", str(csv), "--out", f"{folder}-made", "--tokenizer", tiny_data_set, *records],
        ["records", "verify", "--data", str(folder)],
        ["trainer", "show", "--data", str(folder), "--masks"],
        [
            "trainer",
            "train",
            "--data",
            str(folder),
            "--run_dir",
            run,
            "--model",
            tiny_shape,
            *small,
            "--probes",
            "⟨[MASK]⟩",
        ],
        ["trainer", "evaluate", "--run_dir", run],
        ["trainer", "export", "--run_dir", run, "--out", f"{run}/again"],
        ["trainer", "fill-mask", "--run_dir", run, "--text", "⟨€中⟩ [MASK]"],
        ["trainer", "doctor", "--data", str(folder), "--model", tiny_shape],
        ["trainer", "show", "--data", f"{folder}/none"],
    ]
    done = ran([sys.executable, "-c", ALL, json.dumps(commands)], NARROW[terminal])
    said, errors = done.stdout.decode("latin-1"), done.stderr.decode("latin-1")
    assert "Traceback" not in errors
    ends = [line for line in errors.splitlines() if line.startswith(("pipelines ", "records ", "trainer "))]
    assert ends == [f"{command[0]} {command[1]}: {int(command is commands[-1])}" for command in commands], errors
    assert "what stands there<the word to find>; masked, random, kept" in said
    assert "<\\u20ac\\u4e2d> [MASK]" in said


@pytest.mark.parametrize("option", ["--text", "--run_dir", "--model"])
def test_an_option_that_is_no_utf_8_is_refused_by_name(option):
    others = [] if option == "--text" else ["--text", "[MASK]"]
    done = ran(
        [sys.executable, "-m", "trainer", "fill-mask", *others, option, b"caf\xe9 [MASK]"], {"LC_ALL": "C.UTF-8"}
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(f"error: {option[2:]}: byte 0xe9 in caf\\xe9 [MASK] is no UTF-8".encode())
    assert done.stderr.count(b"\n") == 1


def test_where_python_knows_ascii_alone_it_is_told_what_utf_8_is(tmp_path):
    command = [sys.executable, "-m", "records", "verify", "--data", "données".encode()]
    refused = ran(command, POSIX)
    must_name(
        one_line(refused.stderr.decode("ascii")),
        "error: data:",
        "byte 0xc3",
        "donn\\xc3\\xa9es",
        "no ASCII",
        "PYTHONUTF8=1",
    )
    told = ran(command, {**POSIX, "PYTHONUTF8": "1"})
    assert told.stderr.startswith("error: données: no such folder".encode())


def test_a_file_that_is_there_under_such_a_name_is_to_be_renamed(tmp_path):
    (folder := Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))).mkdir()
    done = ran([sys.executable, "-m", "records", "verify", "--data", folder], {"LC_ALL": "C.UTF-8"})
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert done.stderr.endswith(b"/caf\\xe9 is no UTF-8; rename the file\n")


def test_a_file_that_a_glob_finds_is_to_be_renamed_too(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.csv")).write_text("text\na film\n", "utf-8")
    command = [sys.executable, "-m", "pipelines", "records", "--csv", f"{tmp_path}/*.csv", "--out", tmp_path / "out"]
    done = ran([*command, "--tokenizer", "train:100"], {"LC_ALL": "C.UTF-8"})
    assert done.returncode == 1
    assert b"/caf\\xe9.csv: byte 0xe9 in its name" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "utf-8:strict"}, "byte 0xe9 is no UTF-8"),
        (POSIX, "byte 0xe9 is no ASCII"),
    ],
)
def test_a_line_of_standard_input_that_is_no_text_is_named(environment, found, trained_run):
    command = [sys.executable, "-m", "trainer", "fill-mask", "--run_dir", trained_run, "--text", "-"]
    done = ran(command, environment, input=b"the [MASK]\n\ncaf\xe9 [MASK]\n")
    assert done.returncode == 1
    assert done.stdout.startswith(b"the [MASK]\n  ")  # those before it are filled
    assert done.stderr.startswith(f"error: standard input, line 3: {found}".encode())
    assert done.stderr.count(b"\n") == 1


def test_a_stream_that_is_closed_is_no_file_of_ours(tiny_data_set):
    done = ran(["sh", "-c", '"$0" -m records verify --data "$1" <&- >&- 2>&-', sys.executable, tiny_data_set], {})
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("environment", [BUFFERED, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])
def test_output_that_cannot_be_written_is_said(tiny_data_set, environment):
    command = ["sh", "-c", '"$0" -m records verify --data "$1" >/dev/full', sys.executable, tiny_data_set]
    done = ran(command, environment)
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert done.stderr.startswith(b"error: standard output could not be written: ")
