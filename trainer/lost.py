"""What it means that a machine which trains with this one is gone: what is saved, and how to go on."""

import contextlib
import re
from collections.abc import Callable, Iterator

import tensorflow as tf

from records.errors import RemaskError
from trainer import checkpoint

_GONE = (tf.errors.UnavailableError, tf.errors.AbortedError)
"""What TensorFlow raises where another machine does not answer, or has forgotten what it was asked before."""


@contextlib.contextmanager
def explained(who: str, *, saved: Callable[[], str], next_step: str) -> Iterator[None]:
    """Turn what TensorFlow raises into words for the user.

    Args:
        who: what may be gone; empty where no other machine takes part.
        saved: gives the path of the newest checkpoint, empty where there is none.
        next_step: what to do.

    Raises:
        RemaskError: it is gone.
    """
    try:
        yield
    except _GONE as error:
        if not who or "gs://" in error.message:  # a bucket that does not answer is another matter
            raise
        path = saved()
        kept = f"The run is saved up to step {checkpoint.step_of(path)}" if path else "Nothing had been saved yet"
        raise RemaskError(f"{who} is gone ({reason(error.message)}). {kept}; {next_step}") from error


def reason(message: str) -> str:
    r"""Return the first sentence of TensorFlow's message that says what happened, not where.

    >>> reason("Graph execution error:\n\nDetected at node X\n  File \"a.py\", line 7\n\nSocket closed. More\nElse")
    'Socket closed'
    """
    lines = (re.sub(r"\{\{.*?\}\}|\(\d+\) [A-Z]+:", "", line).strip() for line in message.splitlines())
    where = ("Graph execution error", "Detected at node", "File ")
    said = (line for line in lines if line and not line.startswith(where) and "root error(s) found" not in line)
    return next(said, "no reason given").partition(". ")[0]
