"""The standard streams of a command: any text can be said on them, and what cannot be read from them is noticed.

What a terminal can show is its own affair, and not known where a word is printed; files are UTF-8 everywhere.
"""

import codecs
import io
import os
import re
import sys

_STAND_INS = {"⟨": "<", "⟩": ">"}
"""What is printed for characters of our own where a terminal lacks them."""

_BROKEN = re.compile("[\ud800-\udfff]")
"""What Python makes of a byte that it cannot decode, and what no encoding can write."""

_RAISES = ("strict", "surrogateescape", "backslashreplace")
"""What Python does by itself about characters that a stream lacks. Anything else, somebody has asked for."""


def prepare() -> None:
    """Let standard output and error take any text, and standard input give any bytes; open those that are closed.

    A descriptor that is closed would be that of the next file which is opened, and hear what is said to the terminal.
    Call it before anything is opened or printed.
    """
    codecs.register_error(__name__, _shown_otherwise)
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        _hold(descriptor)
        stream = getattr(sys, name)
        if stream is None:
            mode = "w" if descriptor else "r"
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115  as long as we
        elif isinstance(stream, io.TextIOWrapper) and stream.errors in _RAISES:
            wanted = __name__ if descriptor else "surrogateescape"
            if stream.errors != wanted:
                stream.reconfigure(errors=wanted)


def undecoded(text: str) -> str:
    r"""Return the first byte of a text that could not be decoded, in hexadecimal; "" where all could.

    >>> undecoded("caf\udce9"), undecoded("caf\u00e9")
    ('0xe9', '')
    """
    found = _BROKEN.search(text)
    return f"0x{ord(found[0]) & 0xFF:02x}" if found else ""


def _hold(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)  # the lowest that is free, so it is this one
        os.set_inheritable(opened, True)


def _shown_otherwise(error: UnicodeError) -> tuple[str, int]:
    r"""Return what stands in for characters that a stream lacks: an error handler of `codecs`.

    A byte of a file's name that is not UTF-8 is shown as one, any other character by its number.

    >>> prepare()
    >>> "⟨w⟩ é \udcff \u4e2d".encode("ascii", __name__)
    b'<w> \\xe9 \\xff \\u4e2d'
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_stand_in, error.object[error.start : error.end])), error.end


def _stand_in(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) & 0xFF:02x}"
    return _STAND_INS.get(character) or character.encode("ascii", "backslashreplace").decode("ascii")
