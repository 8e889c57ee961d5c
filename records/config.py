"""The options of `verify`."""

from dataclasses import dataclass

from records.console.command_line import option


@dataclass(frozen=True)
class VerifyOptions:
    """Options of `python -m records verify`."""

    data: str = option("out/sample", "folder of the data set", metavar="DIR")
