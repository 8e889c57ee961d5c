"""The options of `verify` and `show`."""

from dataclasses import dataclass

from records.command_line import option
from records.errors import RemaskError


@dataclass(frozen=True)
class VerifyOptions:
    """Options of `python -m records verify`."""

    data: str = option("records-out", "folder of the data set", metavar="DIR")


@dataclass(frozen=True)
class ShowOptions:
    """Options of `python -m records show`.

    Raises:
        RemaskError: `n` is not positive.
    """

    data: str = option("records-out", "folder of the data set", metavar="DIR")
    n: int = option(3, "how many sequences")
    split: str = option("train", "which split", choices=("train", "validation"))
    masks: bool = option(False, "show how epochs 0, 1 and 2 mask each sequence")
    seed: int = option(0, "seed of the masks")

    def __post_init__(self) -> None:
        if self.n < 1:
            raise RemaskError(f"-n: found {self.n}, expected at least 1")
