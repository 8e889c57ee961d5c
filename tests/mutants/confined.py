"""Confines a process, and all that it starts, to what it may do no harm with: a mutant removes whatever it happens to.

It may read everything and write to a few folders alone, and no process outside can be sent a signal. The kernel sees to
it (Landlock, of Linux 6.12 and later), also where the process is root's.
"""

import ctypes
import os
import resource
from collections.abc import Iterable
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = (
    444,
    445,
    446,
)  # system calls, of the same number on every kind of processor
_ASK_VERSION, _PATH_BENEATH, _NO_NEW_PRIVILEGES = 1, 1, 38
_VERSION = 6  # the first that withholds signals
_WRITE_FILE, _TRUNCATE = 1 << 1, 1 << 14
# To write, to remove a folder or a file, to make seven kinds of them, to move one to another folder, to cut one short.
_WRITES = _WRITE_FILE | sum(1 << bit for bit in range(4, 15))
_SIGNALS_AND_SOCKETS = 0b11
_MOST_BYTES = 2 << 30  # of a file
_MOST_MEMORY = 12 << 30


class _Ruleset(ctypes.Structure):
    _fields_ = (("writes", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def can_confine() -> bool:
    """Say whether this system can."""
    libc = ctypes.CDLL(None, use_errno=True)
    return os.uname().sysname == "Linux" and libc.syscall(_CREATE_RULESET, None, 0, _ASK_VERSION) >= _VERSION


def confine(folders: Iterable[Path]) -> None:
    """Let this process, which must have no threads yet, write below these folders alone from here on.

    Raises:
        OSError: the system cannot confine it.
    """
    rules = _Ruleset(_WRITES, 0, _SIGNALS_AND_SOCKETS)
    ruleset = _asked(_CREATE_RULESET, ctypes.byref(rules), ctypes.sizeof(rules), 0)
    for path, allowed in (*((folder, _WRITES) for folder in folders), (Path(os.devnull), _WRITE_FILE | _TRUNCATE)):
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        _asked(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(_Beneath(allowed, opened)), 0)
        os.close(opened)
    if ctypes.CDLL(None, use_errno=True).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no new privileges")
    _asked(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
    resource.setrlimit(resource.RLIMIT_FSIZE, (_MOST_BYTES, _MOST_BYTES))
    resource.setrlimit(resource.RLIMIT_DATA, (_MOST_MEMORY, _MOST_MEMORY))


def _asked(call: int, *arguments: object) -> int:
    """Make a system call; return what it returns."""
    found = ctypes.CDLL(None, use_errno=True).syscall(call, *arguments)
    if found < 0:
        raise OSError(ctypes.get_errno(), f"Landlock: {os.strerror(ctypes.get_errno())}")
    return int(found)
