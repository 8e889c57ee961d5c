"""Makes each command's line from the dataclass of its options, so that an option has one home.

Only the standard library is imported here, and a command's own module only once its options are known to be good: help
and refusals are instant.
"""

import argparse
import contextlib
import dataclasses
import difflib
import errno
import importlib
import os
import select
import shlex
import signal
import sys
import threading
import types
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, NamedTuple, NoReturn

from records.console import streams
from records.errors import RemaskError

_STANDARD_OUTPUT, _STANDARD_ERROR = 1, 2  # file descriptors


def option(
    default: Any,
    text: str,
    *,
    group: str = "options",
    choices: Sequence[str] = (),
    metavar: str = "",
    instead_of: str = "",
) -> Any:
    """Declare one field of an options dataclass.

    Args:
        default: the value when the option is not given.
        text: one line of help; the default is added to it.
        group: the heading under which `--help` lists it.
        choices: the words it may be, where it may not be any.
        metavar: what help calls the value; the kind of value when empty.
        instead_of: the option that this one, where it is given, takes out of a preset.
    """
    metadata = {
        "help": text,
        "group": group,
        "choices": tuple(choices),
        "metavar": metavar,
        "instead_of": instead_of,
    }
    return dataclasses.field(default=default, metadata=metadata)


def require(holds: bool, name: str, found: object, expected: str) -> None:
    """Refuse an option out of its range.

    >>> require(2 <= 1, "rate", 2, "at most 1")
    Traceback (most recent call last):
    records.errors.RemaskError: rate: found 2, expected at most 1

    Raises:
        RemaskError: `holds` is false.
    """
    if not holds:
        raise RemaskError(f"{name}: found {found}, expected {expected}")


class Terminated(KeyboardInterrupt):
    """SIGTERM. Whatever undoes or keeps something on Ctrl-C does so on this, too."""


class Command(NamedTuple):
    """One word of a package's command line."""

    options: type  # a frozen dataclass that checks itself
    entry: str  # "module:function", called with the options
    text: str  # one line of help
    presets: Mapping[str, Mapping[str, Any]] = types.MappingProxyType({})  # name -> options it sets


def main(prog: str, description: str, commands: Mapping[str, Command], argv: Sequence[str] | None = None) -> int:
    """Run one of a package's commands and return its exit status.

    0 is success, 1 an error explained on standard error, 2 a command line that was not understood, 130 an interrupt,
    141 a reader of our output that has gone, 143 that it was told to stop. In either case what is half done is undone.
    """
    streams.prepare()
    try:
        status = _status(prog, description, commands, sys.argv[1:] if argv is None else argv)
    finally:
        is_whole = _flush()
    return status if is_whole else 1


def _status(prog: str, description: str, commands: Mapping[str, Command], argv: Sequence[str]) -> int:
    try:
        with _sigterm_raises():
            command, options = _parse(prog, description, commands, argv)
            module, function = command.entry.split(":")
            return getattr(importlib.import_module(module), function)(options) or 0
    except RemaskError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        if isinstance(error.__cause__, RemaskError):  # the command had failed when the signal came
            print(f"error: {error.__cause__}", file=sys.stderr)
        elif error.__cause__:
            raise
        is_sigterm = isinstance(error, Terminated)
        print("terminated" if is_sigterm else "interrupted", file=sys.stderr)
        return 128 + (signal.SIGTERM if is_sigterm else signal.SIGINT)
    except BrokenPipeError:
        if not reader_has_gone():  # some other pipe broke, and that is a fault
            raise
        return 128 + signal.SIGPIPE  # as it ends a program in C: `make show | head`
    except OSError as error:
        # Unbuffered, standard output has nothing left that would fail again; and whatever else is full names its file.
        if error.errno == errno.ENOSPC and error.filename is None:
            print(f"error: standard output could not be written: {error.strerror}", file=sys.stderr)
            return 1
        if _flush():  # it was not standard output that could not be written
            raise
        return 1


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Let SIGTERM raise `Terminated` while the block runs, unless whoever started us has it ignored."""

    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        raise Terminated

    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def parse_options(options_type: type, argv: Sequence[str], *, prog: str, text: str = "", presets: Any = None) -> Any:
    """Return an instance of `options_type` made from `argv`.

    >>> from records.config import VerifyOptions
    >>> parse_options(VerifyOptions, ["--data", "records"], prog="verify")
    VerifyOptions(data='records')
    """
    parser = _Parser(prog=prog, description=text, allow_abbrev=False, add_help=False)
    fields, kinds = dataclasses.fields(options_type), typing.get_type_hints(options_type)
    names = dict.fromkeys([*(field.metadata["group"] for field in fields), "options"])
    groups = {name: parser.add_argument_group(name) for name in names}
    for field in fields:
        _add(groups[field.metadata["group"]], field, kinds[field.name])
    if presets:
        shown = "; ".join(f"{name}: {_shown(values)}" for name, values in presets.items())
        groups["options"].add_argument("--preset", choices=list(presets), help=f"options to start from. {shown}")
    groups["options"].add_argument("-h", "--help", action="help", help="show this and exit")
    given = vars(parser.parse_args(argv))
    for name, value in given.items():
        for word in value if isinstance(value, list) else [value]:
            _require_decoded(word, name)
    preset = given.pop("preset", None)
    replaced = {field.metadata["instead_of"] for field in fields if field.name in given}
    values = {name: value for name, value in (presets[preset] if preset else {}).items() if name not in replaced}
    values.update(given)
    return options_type(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def arguments(options: Any, *, but: Collection[str] = ()) -> list[str]:
    """Return the words that `parse_options` makes options of: of those that do not have their defaults.

    Args:
        options: an instance of a dataclass of options.
        but: names of options to leave out.

    >>> from records.config import VerifyOptions
    >>> arguments(VerifyOptions(data="records")), arguments(VerifyOptions(data="records"), but=["data"])
    (['--data=records'], [])
    """
    words = []
    for field in dataclasses.fields(options):
        value, flag = getattr(options, field.name), _flag(field.name)
        if field.name in but or value == field.default:
            continue
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{field.name}")
        else:
            words += [f"{flag}={each}" for each in (value if isinstance(value, tuple) else [value])]
    return words


def _parse(prog: str, description: str, commands: Mapping[str, Command], argv: Sequence[str]) -> tuple[Command, Any]:
    if not argv or argv[0] in ("-h", "--help"):
        width = max(map(len, commands))
        lines = [f"  {name:<{width}}  {command.text}" for name, command in commands.items()]
        print(f"usage: {prog} COMMAND [--help] [options]\n\n{description}\n\ncommands:\n" + "\n".join(lines))
        raise SystemExit(0 if argv else 2)
    name = argv[0]
    if name not in commands:
        print(
            f"error: {prog} has no command {name!r}{_meant(name, commands)}; it has {', '.join(commands)}",
            file=sys.stderr,
        )
        raise SystemExit(2)
    command = commands[name]
    options = parse_options(
        command.options, argv[1:], prog=f"{prog} {name}", text=command.text, presets=command.presets
    )
    return command, options


def _add(group: Any, field: Any, kind: Any) -> None:
    """Add one field to its group. Defaults stay with the dataclass: an option not given is absent from the result."""
    flags = [_flag(field.name)]
    unset = field.default is False or field.default in (None, "", ())  # 0 is a value, and equal to False
    shown = "" if unset else f" (default: {_word(field.default)})"
    keywords: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS}
    keywords["help"] = (field.metadata["help"] + shown).replace("%", "%%")
    if kind is bool:
        keywords["action"] = argparse.BooleanOptionalAction if field.default else "store_true"
    else:
        single = next(part for part in typing.get_args(kind) or (kind,) if part is not type(None))
        many = typing.get_origin(kind) is tuple
        keywords["type"] = single
        keywords["metavar"] = field.metadata["metavar"] or single.__name__.upper()
        if field.metadata["choices"]:
            keywords.update(choices=field.metadata["choices"], metavar="|".join(field.metadata["choices"]))
        if many:
            keywords.update(nargs="+", action="extend")  # given twice, neither is lost
    group.add_argument(*flags, **keywords)


def _flag(name: str) -> str:
    return f"-{name}" if len(name) == 1 else f"--{name}"


def _require_decoded(word: Any, name: str) -> None:
    """Refuse a value with bytes that are no characters: neither a manifest nor TensorFlow could hold it."""
    if isinstance(word, str) and (byte := streams.undecoded(word)):
        encoding = sys.getfilesystemencoding()
        if os.path.lexists(word):
            hint = "rename the file"
        elif encoding == "utf-8":
            hint = "give it in UTF-8"
        else:
            hint = "set PYTHONUTF8=1 if it is UTF-8"
        raise RemaskError(f"{name}: byte {byte} in {word} is no {encoding.upper()}; {hint}")


def _word(value: Any) -> str:
    """Return a value as one would type it."""
    return shlex.join(map(str, value)) if isinstance(value, tuple) else str(value)


def make_option(name: str, value: str) -> str:
    """Return an option of make's as one would type it into a shell.

    >>> print(make_option("RUN", "out/run"), make_option("TEXT", "a [MASK]."), make_option("TEXT", "5 $ [MASK]"))
    RUN=out/run TEXT="a [MASK]." TEXT='5 $$ [MASK]'
    """
    quoted = shlex.quote(value)
    if quoted != value and not set('"$`!\\') & set(value):
        quoted = f'"{value}"'
    return f"{name}={quoted}".replace("$", "$$")


def _shown(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_word(value)}" for name, value in values.items())


def _meant(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def reader_has_gone() -> bool:
    """Say whether standard output, or standard error, is a pipe that nobody reads any more."""
    poll = select.poll()
    for file in (_STANDARD_OUTPUT, _STANDARD_ERROR):
        poll.register(file, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _flush() -> bool:
    """Flush standard output now, and say whether it has taken all, or nobody reads it any more.

    When Python does it at its end, nobody can catch what goes wrong.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return True
        print(f"error: standard output could not be written: {error.strerror}", file=sys.stderr)
        return False
    return True


class _Parser(argparse.ArgumentParser):
    """argparse, but dashes do for underscores, and an option it does not know is answered with the nearest it does."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(
            usage="%(prog)s [options]",
            formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=34, width=110),
            **keywords,
        )

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        flags = [flag for action in self._actions for flag in action.option_strings]
        known, unknown = self.parse_known_args([_spelled(argument, flags) for argument in args], namespace)
        if unknown:
            word = unknown[0].partition("=")[0]
            kind = "option" if word.startswith("-") else "argument"
            self.error(f"unknown {kind} {word}{_meant(word, flags)}")
        return known

    def error(self, message: str) -> NoReturn:
        print(f"error: {message}; see '{self.prog} --help'", file=sys.stderr)
        raise SystemExit(2)


def _spelled(argument: str, flags: Sequence[str]) -> str:
    """Let `--max-seq-length=128` be `--max_seq_length=128`; leave what is no option alone.

    >>> _spelled("--max-seq-length=1-2", ["--max_seq_length"])
    '--max_seq_length=1-2'
    """
    name, equals, value = argument.partition("=")
    for flag in flags:
        if flag.replace("_", "-") == name.replace("_", "-"):
            return flag + equals + value
    return argument
