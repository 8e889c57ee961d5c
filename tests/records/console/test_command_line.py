import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import types

import pytest

import pipelines.__main__
import records.__main__
import trainer.__main__
from records.console import command_line
from records.console.command_line import Command, option, parse_options
from records.errors import RemaskError
from tests import processes
from tests.said import must_name, one_line


@dataclasses.dataclass(frozen=True)
class Options:
    """Of each kind one."""

    max_length: int = option(128, "how long at most; 100 % is all")
    rate: float = option(0.15, "how much", group="numbers")
    nothing: int = option(0, "a zero", group="numbers")
    name: str = option("", "what it is called", metavar="NAME")
    kind: str = option("big", "which of two", choices=("big", "small"))
    files: tuple[str, ...] = option(("a b", "c"), "several", metavar="PATH")
    seed: int | None = option(None, "may be nothing")
    fast: bool = option(False, "off unless given")
    tidy_up: bool = option(True, "on unless denied")
    n: int = option(3, "short")

    def __post_init__(self) -> None:
        if self.rate > 1:
            raise RemaskError(f"rate: found {self.rate}, expected at most 1")


PRESETS = {"quick": {"max_length": 8, "fast": True}, "slow": {"rate": 1.0}}
HELP = """\
usage: prog run [options]

Runs it.

options:
  --max_length INT          how long at most; 100 % is all (default: 128)
  --name NAME               what it is called
  --kind big|small          which of two (default: big)
  --files PATH [PATH ...]   several (default: 'a b' c)
  --seed INT                may be nothing
  --fast                    off unless given
  --tidy_up, --no-tidy_up   on unless denied (default: True)
  -n INT                    short (default: 3)
  --preset {quick,slow}     options to start from. quick: max_length 8, fast True; slow: rate 1.0
  -h, --help                show this and exit

numbers:
  --rate FLOAT              how much (default: 0.15)
  --nothing INT             a zero (default: 0)
"""


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, 0),
        ({"fast": True, "tidy_up": False, "seed": 0}, 3),
        ({"name": "-x --fast", "files": ("-a", "b c", ""), "n": -1, "rate": 1e-7, "max_length": 8}, 7),
    ],
)
def test_the_words_that_make_options(given, words):
    options = Options(**given)
    said = command_line.arguments(options)
    assert len(said) == words
    assert parse_options(Options, said, prog="prog") == options
    kept = dataclasses.replace(options, fast=False, name="")
    assert parse_options(Options, command_line.arguments(options, but=("fast", "name")), prog="prog") == kept


def run(options: Options) -> int:
    """Do what the name says, so that every end of a command can be had."""
    match options.name:
        case "explained":
            raise RemaskError("a.csv, row 3: no text")
        case "interrupted":
            raise KeyboardInterrupt
        case "bug":
            raise ZeroDivisionError
        case "other pipe":
            raise BrokenPipeError
    print(options)
    return 7 if options.name == "seven" else 0


COMMANDS = {
    "run": Command(Options, f"{__name__}:run", "Runs it.", PRESETS),
    "walk": Command(Options, "no.such.module:main", "Does not run."),
}


def main(*argv: str) -> int:
    return command_line.main("prog", "A program.", COMMANDS, argv)


def parsed(*argv: str) -> Options:
    return parse_options(Options, argv, prog="prog run", presets=PRESETS)


def refusal(capsys, *argv: str) -> str:
    """Return the one line that is said of a command line that is not understood."""
    with pytest.raises(SystemExit) as caught:
        main(*argv)
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err.rstrip("\n")


def test_help_is_complete(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")  # what help looks like does not depend on where it is shown
    for flag in ("-h", "--help"):
        with pytest.raises(SystemExit) as caught:
            main("run", flag)
        assert caught.value.code == 0
        said = capsys.readouterr()
        assert (" ".join(said.out.split()), said.err) == (" ".join(HELP.split()), "")
        assert "\n  --max_length INT " in said.out


@pytest.mark.parametrize(
    "module", [pipelines.__main__, records.__main__, trainer.__main__], ids=lambda each: each.__name__
)
def test_help_lists_every_option_of_every_command_with_its_default(module, capsys):
    for name, command in module.COMMANDS.items():
        with pytest.raises(SystemExit) as caught:
            command_line.main("prog", "", module.COMMANDS, [name, "--help"])
        assert caught.value.code == 0
        said = " ".join(capsys.readouterr().out.replace("\n                                  ", " ").split())
        for field in dataclasses.fields(command.options):
            flag = f"--{field.name}" if len(field.name) > 1 else f"-{field.name}"
            assert f" {flag} " in said
            assert field.metadata["help"].split()[0] in said
            if isinstance(field.default, int | float) and not isinstance(field.default, bool):
                assert f"(default: {field.default})" in said
        assert command.text in said


@pytest.mark.parametrize(
    "module", [pipelines.__main__, records.__main__, trainer.__main__], ids=lambda each: each.__name__
)
def test_presets_name_options_that_there_are(module):
    for command in module.COMMANDS.values():
        for values in command.presets.values():
            dataclasses.replace(command.options(), **values)


@pytest.mark.parametrize(("argv", "status"), [(["--help"], 0), (["-h"], 0), ([], 2)])
def test_the_commands_are_listed(argv, status, capsys):
    with pytest.raises(SystemExit) as caught:
        main(*argv)
    assert caught.value.code == status
    assert capsys.readouterr().out == (
        "usage: prog COMMAND [--help] [options]\n\nA program.\n\ncommands:\n  run   Runs it.\n  walk  Does not run.\n"
    )


def test_no_option_is_every_default():
    assert parsed() == Options()


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--max_length", "5"], {"max_length": 5}),
        (["--max-length", "5"], {"max_length": 5}),
        (["--max-length=5"], {"max_length": 5}),
        (["--rate", "1e-3"], {"rate": 0.001}),
        (["--name", "two words", "--kind", "small"], {"name": "two words", "kind": "small"}),
        (["--name=--dashed-value"], {"name": "--dashed-value"}),
        (["--name", "--a-sentence with dashes"], {"name": "--a-sentence with dashes"}),
        (["--name", "-"], {"name": "-"}),
        (["--name=a=b-c"], {"name": "a=b-c"}),
        (["--name="], {"name": ""}),
        (["--files", "x", "y"], {"files": ("x", "y")}),
        (["--files", "x", "--fast", "--files", "y"], {"files": ("x", "y"), "fast": True}),
        (["--seed", "0"], {"seed": 0}),
        (["--nothing", "-4"], {"nothing": -4}),
        (["--fast"], {"fast": True}),
        (["--no-tidy_up"], {"tidy_up": False}),
        (["--no-tidy-up"], {"tidy_up": False}),
        (["--tidy-up"], {"tidy_up": True}),
        (["-n", "4"], {"n": 4}),
        (["--preset", "quick"], {"max_length": 8, "fast": True}),
        (["--preset", "quick", "--max_length", "9"], {"max_length": 9, "fast": True}),
        (["--max_length", "128", "--preset", "quick"], {"max_length": 128, "fast": True}),
    ],
)
def test_options(argv, expected):
    found = parsed(*argv)
    assert found == Options(**expected)
    assert isinstance(found.files, tuple)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["runs"], "error: prog has no command 'runs' (did you mean run?); it has run, walk"),
        (["xyz"], "error: prog has no command 'xyz'; it has run, walk"),
        (
            ["run", "--max-lenght", "5"],
            "error: unknown option --max-lenght (did you mean --max_length?); see 'prog run --help'",
        ),
        (["run", "--zzz=5"], "error: unknown option --zzz; see 'prog run --help'"),
        (["run", "--max", "5"], "error: unknown option --max; see 'prog run --help'"),
        (["run", "-x"], "error: unknown option -x; see 'prog run --help'"),
        (["run", "stray"], "error: unknown argument stray; see 'prog run --help'"),
        (["run", "--no-fast"], "error: unknown option --no-fast (did you mean --fast?); see 'prog run --help'"),
        (
            ["run", "--max_length", "five"],
            "error: argument --max_length: invalid int value: 'five'; see 'prog run --help'",
        ),
        (
            ["run", "--max_length", "5.0"],
            "error: argument --max_length: invalid int value: '5.0'; see 'prog run --help'",
        ),
        (["run", "--max_length"], "error: argument --max_length: expected one argument; see 'prog run --help'"),
        (["run", "--files"], "error: argument --files: expected at least one argument; see 'prog run --help'"),
    ],
)
def test_what_is_not_understood(argv, expected, capsys):
    assert refusal(capsys, *argv) == expected


@pytest.mark.parametrize("argv", [["run", "--kind", "tiny"], ["run", "--preset", "tiny"]])
def test_a_choice_that_there_is_not(argv, capsys):
    said = refusal(capsys, *argv)  # Python's versions quote the choices differently
    assert said.startswith(f"error: argument {argv[1]}: invalid choice: 'tiny' (choose from ")
    assert said.endswith("; see 'prog run --help'")


def test_a_value_out_of_range_is_explained_in_a_line(capsys):
    assert main("run", "--rate", "2") == 1
    assert capsys.readouterr() == ("", "error: rate: found 2.0, expected at most 1\n")


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [("explained", 1, "error: a.csv, row 3: no text\n"), ("interrupted", 130, "interrupted\n"), ("seven", 7, "")],
)
def test_ends(name, status, said, capsys):
    assert main("run", "--name", name) == status
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(("name", "error"), [("bug", ZeroDivisionError), ("other pipe", BrokenPipeError)])
def test_what_is_our_fault_keeps_its_traceback(name, error):
    with pytest.raises(error):
        main("run", "--name", name)


def test_a_command_that_returns_nothing_has_succeeded(monkeypatch):
    module = types.ModuleType("no.such.module")
    module.main = lambda options: None
    monkeypatch.setitem(sys.modules, "no.such.module", module)
    assert main("walk") == 0


def test_options_are_refused_before_a_commands_module_is_imported(capsys):
    assert refusal(capsys, "walk", "--zzz").startswith("error: unknown option --zzz;")
    assert main("walk", "--rate", "2") == 1


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["pipelines", "records", "--max_seq_length", "7"], ("max_seq_length:", "found 7", "expected at least 8")),
        (
            ["pipelines", "records", "--tokenizer", "train:x"],
            ("tokenizer:", "found train:x", "expected train:100 to train:1000000"),
        ),
        (["trainer", "train", "--mask_rate", "0"], ("mask_rate:", "found 0.0", "expected more than 0, at most 1")),
        (
            ["trainer", "train", "--warmup_steps", "9", "--train_steps", "5"],
            ("warmup_steps:", "found 9", "expected 0 to train_steps", "5", "give both"),
        ),
        (["trainer", "train", "--tpu", "a", "--devices", "2"], ("devices:", "found 2", "expected none beside tpu")),
        (["trainer", "train", "--learning_rate", "nan"], ("learning_rate:", "found nan", "expected a finite number")),
        (
            ["records", "verify", "--data", "no/such"],
            ("no/such:", "no such folder", "'make records CSV=... OUT=no/such'"),
        ),
    ],
)
def test_real_commands_explain_themselves_in_a_line(argv, said, capsys):
    package = {"pipelines": pipelines, "records": records, "trainer": trainer}[argv[0]]
    assert command_line.main("prog", "", package.__main__.COMMANDS, argv[1:]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    must_name(one_line(err), "error:", *said)


TALKS = """
import sys, time
from records.console.command_line import Command, main
from records.config import VerifyOptions
def talk(options):
    for number in range({lines}):
        print("line", number)
        if {slow}: print("x" * 100_000)
    return 5
def sleep(options):
    try:
        print("asleep", flush=True)
        time.sleep(60)
    finally:
        print("cleaned up")
sys.modules["talks"] = sys.modules["__main__"]
commands = {{name: Command(VerifyOptions, f"talks:{{name}}", name) for name in ("talk", "sleep")}}
sys.exit(main("prog", "", commands, sys.argv[1:]))
"""


def started(
    *argv: str, slow: bool = False, lines: int = 3, unbuffered: str = ""
) -> contextlib.AbstractContextManager[subprocess.Popen]:
    return processes.started(
        [sys.executable, "-c", TALKS.format(slow=slow, lines=lines), *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("argv", "slow", "status"),
    [(["talk"], True, 128 + signal.SIGPIPE), (["talk"], False, 5), (["talk", "--help"], False, 0)],
    ids=["in the middle", "at the end", "help"],
)
def test_a_reader_that_has_seen_enough(argv, slow, status, unbuffered):
    with started(*argv, slow=slow, unbuffered=unbuffered) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(processes.LIMIT) in {status, 128 + signal.SIGPIPE}


def test_a_reader_that_reads_on():
    with started("talk") as process:
        assert processes.ended(process) == ("line 0\nline 1\nline 2\n", "")
        assert process.returncode == 5


@pytest.mark.parametrize(("number", "said"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_a_command_that_is_stopped_cleans_up_and_says_so(number, said):
    with started("sleep") as process:
        assert process.stdout.readline() == "asleep\n"
        process.send_signal(number)
        assert processes.ended(process) == ("cleaned up\n", f"{said}\n")
        assert process.returncode == 128 + number


def test_sigterm_is_ignored_where_whoever_started_us_says_so(monkeypatch):
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with command_line._sigterm_raises():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
