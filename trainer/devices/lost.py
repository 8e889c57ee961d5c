"""What it means that a machine which trains with this one is gone: what it says, and what to do."""

import atexit
import contextlib
import re
from collections.abc import Callable, Iterator

import tensorflow as tf
from tensorflow.python.eager import context

from records.errors import RemaskError
from trainer.config import is_remote_tpu

_GONE = (tf.errors.UnavailableError, tf.errors.AbortedError)
"""What TensorFlow raises where another machine does not answer, or has forgotten what it was asked before."""


IT_BEGINS = "it begins with the state that the TPU is in"


@contextlib.contextmanager
def explained(who: str, *, outcome: Callable[[], str]) -> Iterator[None]:
    """Turn what TensorFlow raises into words for the user.

    Args:
        who: what may be gone; empty where no other machine takes part.
        outcome: says what is kept, and what to do.

    Raises:
        RemaskError: it is gone.
    """
    try:
        yield
    except _GONE as error:
        if not who or "gs://" in error.message:  # a bucket that does not answer is another matter
            raise
        # At its end TensorFlow would wait for that machine: forever (2.19), or until it fails with a traceback (2.21).
        atexit.unregister(context.async_wait)
        raise RemaskError(f"{who} is gone ({reason(error.message)}). {outcome()}") from error


def host_of(tpu: str) -> str:
    """Return what of a TPU may be gone; "" where it is this machine's own, or there is none.

    >>> host_of("node-1"), host_of("local")
    ('a host of TPU node-1', '')
    """
    return f"a host of TPU {tpu}" if is_remote_tpu(tpu) else ""


def reason(message: str) -> str:
    r"""Return the first sentence of TensorFlow's message that says what happened, not where.

    >>> reason("Graph execution error:\n\nDetected at node X\n  File \"a.py\", line 7\n\nSocket closed. More\nElse")
    'Socket closed'
    """
    lines = (re.sub(r"\{\{.*?\}\}|\(\d+\) [A-Z]+:", "", line).strip() for line in message.splitlines())
    where = ("Graph execution error", "Detected at node", "File ")
    said = (line for line in lines if line and not line.startswith(where) and "root error(s) found" not in line)
    return next(said, "no reason given").partition(". ")[0]
