"""Ports of loopback at which nobody listens, nor will before a test does, or has found that nobody does.

A port that the system gives and that is closed again may be given to anybody else meanwhile: to a server of another
process, or to one end of any connection. These are below those that it gives.
"""

import contextlib
import itertools
import os
import socket

_FIRST, _PORTS, _APART = 10_000, 20_000, 37
_places = itertools.count()


def free(number: int) -> list[int]:
    """Return some ports; none is returned twice by a process, and processes that run side by side begin apart.

    >>> one, other = free(2)
    >>> one != other
    True
    """
    found: list[int] = []
    while len(found) < number:
        port = _FIRST + (os.getpid() * _APART + next(_places)) % _PORTS
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(port)
    return found
