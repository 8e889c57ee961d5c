"""What all runners have in common."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam

import pipelines
from records.console.command_line import Terminated
from records.errors import RemaskError


class GoesOn(RemaskError):
    """The command ends and the job does not: its folder stays locked."""


Build = Callable[[beam.Pipeline], Any]
"""Adds the flow to a pipeline."""

SETUP = Path(pipelines.__file__).parents[1] / "setup.py"
"""Describes this distribution to those that build it for workers; a package that was installed has none."""


def message(error: object) -> str:
    r"""Return what a worker had to say to the user, if anything.

    Beam adds where in the graph it was said, and an error of another process arrives as text.

    >>> message("Traceback ...\nrecords.errors.RemaskError: a.csv: is empty [while running 'Pieces']")
    'a.csv: is empty'
    """
    found = re.search(r"records\.errors\.\w+: (.*)", str(error))
    said = str(error) if isinstance(error, RemaskError) else found[1] if found else ""
    return said.split(" [while running ")[0]


def interrupt(error: Exception) -> KeyboardInterrupt | None:
    """Return the interrupt of which Beam has made an error of its own, as of all that is raised while it runs a step.

    >>> interrupt(RuntimeError("records.console.command_line.Terminated [while running 'Documents']"))
    Terminated()
    >>> interrupt(RuntimeError("KeyboardInterrupt [while running 'Shards']"))
    KeyboardInterrupt()
    """
    found = re.match(r"(?:[\w.]+\.)?(KeyboardInterrupt|Terminated)\b", str(error))
    return None if found is None else Terminated() if found[1] == "Terminated" else KeyboardInterrupt()
