"""The options of `pipelines`. Only the standard library: help is instant."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from records.command_line import option, require

LONG_TEXT = ("pack", "window", "truncate")
MAX_SHARDS = 1 << 14
SAMPLE_TOKENIZER = "train:2000"

PRESETS: Mapping[str, Mapping[str, Any]] = {"sample": {"max_seq_length": 32}}
"""Options to start from: `sample` suits the embedded reviews, and a model that is to learn from them in a minute."""


@dataclass(frozen=True)
class RecordsOptions:
    """Options of `python -m pipelines records`.

    Raises:
        RemaskError: an option outside its range, or two that contradict each other.
    """

    csv: tuple[str, ...] = option(
        (), "CSV files or globs, .gz too; none: the embedded synthetic film reviews", group="what", metavar="PATH"
    )
    out: str = option("out/sample", "folder of the data set", group="what", metavar="DIR")
    overwrite: bool = option(False, "replace the data set that is in the folder", group="what")
    column: str = option("text", "column that holds the text", group="input")
    encoding: str = option("utf-8", "of the files; rows that do not decode are read as ISO-8859-1", group="input")
    tokenizer: str = option(
        "",
        "folder, hub name, or train:SIZE for a vocabulary made from the text "
        f"(default: bert-base-uncased; {SAMPLE_TOKENIZER} for the embedded reviews)",
        group="sequences",
        metavar="NAME|DIR|train:SIZE",
    )
    max_seq_length: int = option(128, "tokens in a sequence, [CLS], [SEP] and padding included", group="sequences")
    long_text: str = option(
        "pack",
        "pack: long texts become windows, and short pieces share a sequence; window: one window a sequence; "
        "truncate: the first window of each text, the rest is dropped",
        group="sequences",
        choices=LONG_TEXT,
    )
    validation_fraction: float = option(0.05, "share of the texts that is held out", group="output")
    num_shards: int = option(
        0,
        "shards of the train split, fewer where there are too few texts; 0: some tens of MB each, at least 8",
        group="output",
    )
    compression: str = option("none", "of the shards", group="output", choices=("none", "gzip"))
    processes: int = option(1, "worker processes; a second one pays from some hundred MB of text on", group="machine")

    def __post_init__(self) -> None:
        require(self.max_seq_length >= 8, "max_seq_length", self.max_seq_length, "at least 8")
        require(self.max_seq_length <= 1 << 16, "max_seq_length", self.max_seq_length, "at most 65536")
        require(0 <= self.validation_fraction < 1, "validation_fraction", self.validation_fraction, "0 to less than 1")
        require(0 <= self.num_shards <= MAX_SHARDS, "num_shards", self.num_shards, f"0 to {MAX_SHARDS}")
        require(self.processes >= 1, "processes", self.processes, "at least 1")
        if self.tokenizer.startswith("train:"):
            size = self.tokenizer[len("train:") :]
            require(
                size.isdecimal() and 100 <= int(size) <= 1_000_000,
                "tokenizer",
                self.tokenizer,
                "train:100 to train:1000000",
            )

    @property
    def tokenizer_or_default(self) -> str:
        """The tokenizer that was asked for, or the one that suits the input."""
        return self.tokenizer or ("bert-base-uncased" if self.csv else SAMPLE_TOKENIZER)


@dataclass(frozen=True)
class ImdbOptions:
    """Options of `python -m pipelines imdb`."""

    source: str = option("", "URL, folder or archive of the reviews; none: their public home", metavar="URL|DIR|FILE")
    out: str = option("imdb.csv", "CSV file to write", metavar="FILE")
    overwrite: bool = option(False, "replace the file")
