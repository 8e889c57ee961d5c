"""What a data set holds. `manifest.json` is written last: a folder without one is not a data set.

Its `data` part is a function of the input and of the options that shape the data: the same text gives the same bytes,
whatever machine, runner or number of workers made it. What describes the run itself stands apart, in `job`.
"""

import dataclasses
import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from annotated_types import Ge, Le

from records import storage, typed_json
from records.console.command_line import make_option
from records.errors import RemaskError
from records.tokenizer.artifact import TokenizerArtifact
from records.typed_json import Count, FileName, Matches

MANIFEST_JSON = "manifest.json"
FORMAT_VERSION: Final = 2
SPLITS = ("train", "validation")
SYNTHETIC = "synthetic film reviews (made by remask, not real)"
"""What to print beside any text of a data set that is `synthetic`."""

_SHARD_FILE = re.compile(rf"(?:{'|'.join(SPLITS)})-\d{{5,}}-of-\d{{5,}}\.tfrecord")
_SHA256 = Matches("[0-9a-f]{64}", "64 hexadecimal digits")
_SHA256_OR_NONE = Matches("([0-9a-f]{64})?", "64 hexadecimal digits")


def again(folder: str, *options: str) -> str:
    """Return the command that makes the records of a data set again, as far as is known without its manifest.

    Args:
        folder: of the data set.
        options: which the job is to have now, such as "--num_shards 8".

    >>> print(again("my records"), again("records", "--num_shards 8"), sep=chr(10))
    'make records CSV=... OUT="my records" ARGS=--overwrite'
    'make records CSV=... OUT=records ARGS="--overwrite --num_shards 8"'
    """
    given = " ".join(["--overwrite", *options])
    return f"'make records CSV=... {make_option('OUT', folder)} {make_option('ARGS', given)}'"


def shard_file(split: str, number: int, of: int) -> str:
    """Return the name of a shard, which says where it belongs.

    >>> shard_file("train", 3, 16)
    'train-00003-of-00016.tfrecord'
    """
    return f"{split}-{number:05d}-of-{of:05d}.tfrecord"


def is_shard_file(name: str) -> bool:
    """Say whether a file is called as a shard is.

    >>> is_shard_file("train-00003-of-00016.tfrecord"), is_shard_file("train-00003-of-00016.tfrecord.0123abcd.partial")
    (True, False)
    """
    return _SHARD_FILE.fullmatch(name) is not None


@dataclass(frozen=True)
class Shard:
    """One TFRecord file."""

    file: FileName
    examples: Annotated[Count, Ge(1)]
    segments: Count
    tokens: Count  # special tokens included, padding not
    bytes: Count
    crc32c: Annotated[str, Matches("[0-9a-f]{8}", "8 hexadecimal digits")]  # of the whole file
    sum64: Annotated[str, Matches("[0-9a-f]{16}", "16 hexadecimal digits")]  # of its records, as `frame.Sum64` has it


@dataclass(frozen=True)
class Source:
    """One input file and what became of its rows.

    Raises:
        ValueError: not every row became a document or was dropped for a reason.
    """

    file: str
    rows: Count
    documents: Count
    dropped: Mapping[str, Count]  # reason -> rows
    recoded: Count  # rows that were not in the given encoding and were read as ISO-8859-1
    tokens_dropped: Count  # by long_text=truncate

    def __post_init__(self) -> None:
        if self.rows != self.documents + sum(self.dropped.values()):
            raise ValueError(
                f"found {self.rows} rows of {self.file}, expected as many as its {self.documents} documents and "
                f"{sum(self.dropped.values())} dropped rows together"
            )


@dataclass(frozen=True)
class Tokenizer:
    """Which tokenizer the ids belong to; the artefact itself lies beside the manifest."""

    name: str
    sha256: Annotated[str, _SHA256]  # of `tokenizer.json`
    vocab_size: Annotated[Count, Ge(1)]
    pad_id: Count
    cls_id: Count
    sep_id: Count
    mask_id: Count
    special_ids: tuple[Count, ...]
    config_sha256: Annotated[str, _SHA256_OR_NONE] = ""  # of `tokenizer_config.json`; "": an older remask wrote none

    @classmethod
    def of(cls, artifact: TokenizerArtifact) -> "Tokenizer":
        """Return the description of an artefact."""
        return cls(**{field.name: getattr(artifact, field.name) for field in dataclasses.fields(cls)})


@dataclass(frozen=True)
class Data:
    """The part that is a function of the input.

    Raises:
        ValueError: other splits than `SPLITS`, or a file that is there twice.
    """

    max_seq_length: Annotated[Count, Ge(1), Le(1 << 16)]
    long_text: str
    validation_fraction: Annotated[float, Ge(0), Le(1)]
    compression: Annotated[str, Matches("(gzip)?", '"" or "gzip"')]
    tokenizer: Tokenizer
    splits: Mapping[str, tuple[Shard, ...]]
    sources: tuple[Source, ...]
    synthetic: bool = False  # whether a program made the text: the embedded reviews

    def __post_init__(self) -> None:
        if set(self.splits) != set(SPLITS):
            raise ValueError(f"found the splits {', '.join(self.splits) or 'none'}, expected {' and '.join(SPLITS)}")
        files = Counter(shard.file for split in SPLITS for shard in self.splits[split])
        if files and (most := files.most_common(1)[0])[1] > 1:
            raise ValueError(f"found the shard {most[0]} twice, expected each once")

    def check(self) -> None:
        """Hold what is said of shards and sources against each other, as whoever reads a manifest does.

        Raises:
            ValueError: a shard is not where its name says, two hold the same, or counts contradict each other.
        """
        self._check_places()
        self._check_counts()

    def _check_places(self) -> None:
        """Refuse a shard that has another's name or content."""
        known: dict[tuple[str, str], str] = {}
        for split in SPLITS:
            for number, shard in enumerate(self.splits[split]):
                if shard.file != (name := shard_file(split, number, len(self.splits[split]))):
                    raise ValueError(f"found the shard {shard.file} as splits.{split}[{number}], expected {name}")
                other = known.setdefault((shard.crc32c, shard.sum64), shard.file)
                if other != shard.file:  # no text is in two shards, so that no two can hold the same
                    raise ValueError(f"found the shards {other} and {shard.file} to hold the same, expected each once")

    def _check_counts(self) -> None:
        """Refuse counts that cannot be those of one data set."""
        shards = [shard for split in SPLITS for shard in self.splits[split]]
        for shard in shards:
            least, most = 2 * shard.segments, shard.examples * self.max_seq_length  # [CLS] and [SEP] of each segment
            if shard.segments < shard.examples or (self.long_text != "pack" and shard.segments > shard.examples):
                each = "at least one" if self.long_text == "pack" else f"one (long_text is {self.long_text})"
                raise ValueError(
                    f"found {shard.segments:,} segments in the {shard.examples:,} sequences of {shard.file}, expected "
                    f"{each} in each"
                )
            if not least <= shard.tokens <= most:
                raise ValueError(f"found {shard.tokens:,} tokens in {shard.file}, expected {least:,} to {most:,}")
        segments, documents = sum(shard.segments for shard in shards), sum(each.documents for each in self.sources)
        if shards and (segments < documents or (self.long_text == "truncate" and segments > documents)):
            each = "one" if self.long_text == "truncate" else "at least one"
            raise ValueError(
                f"found {segments:,} segments in all shards and {documents:,} documents in all sources, expected "
                f"{each} of each document"
            )


@dataclass(frozen=True)
class Manifest:
    """The data, and the job that made it."""

    data: Data
    job: Mapping[str, Any]  # id, package_version, created, options
    format_version: Literal[2]

    def examples(self, split: str) -> int:
        """Return the number of sequences in a split."""
        return sum(shard.examples for shard in self.data.splits[split])

    def tokens(self, split: str) -> int:
        """Return the number of tokens in a split, special tokens included, padding not."""
        return sum(shard.tokens for shard in self.data.splits[split])

    def training(self, folder: str) -> str:
        """Return the command that trains on it: from random weights where the tokenizer was made from the text."""
        # No model shares such a vocabulary, and what starts anew needs another learning rate than what goes on.
        start = ' ARGS="--preset sample"' if self.data.tokenizer.name.startswith("train:") else ""
        return f"make train {make_option('DATA', folder)}{start}"

    def why_empty(self, split: str) -> str:
        """Return why there is nothing in a split; "" where there is something.

        To hold out nothing may be asked for; with few texts it also happens, since the hash of each decides.
        """
        if self.data.splits[split]:
            return ""
        documents, fraction = sum(source.documents for source in self.data.sources), self.data.validation_fraction
        if split == "train":
            return f"nothing is left to train on, since validation_fraction {fraction:g} held out all of {documents:,}"
        if not fraction:
            return "nothing is held out, as validation_fraction 0 asks"
        return f"nothing is held out: of {documents:,} documents validation_fraction {fraction:g} took none, by chance"

    def to_json(self) -> str:
        """Return the text of `manifest.json`; equal manifests give equal texts."""
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, *, name: str = MANIFEST_JSON) -> "Manifest":
        """Read what `to_json` wrote.

        Raises:
            RemaskError: not a manifest, one that contradicts itself, or of a format that this version does not know.
        """
        content = text.encode() if isinstance(text, str) else text
        command = again(name.rpartition("/")[0] or ".")
        advice = f"copy it again, or make the records again with {command}"
        try:
            made = typed_json.read(cls, content, name=name, advice=advice)
            made.data.check()
            return made
        except ValueError as error:
            raise RemaskError(f"{name}: data: {error}; {advice}") from None
        except RemaskError:
            about = typed_json.parse(content, name=name, advice=advice)
            version, job = about.get("format_version"), about.get("job")
            if type(version) is not int or version == FORMAT_VERSION:
                raise
        wrote = job.get("package_version") if isinstance(job, dict) else None
        raise RemaskError(
            f"{name}: found format version {version}, expected {FORMAT_VERSION}, which this remask reads; make the "
            f"records again with {command}, or use the remask that wrote them ({wrote or 'unknown'})"
        )

    def digest(self) -> str:
        """Return a digest of the records, by which a run knows the data that it was trained on.

        What files are called, and where the tokenizer came from, is no part of it.
        """
        shards = {split: [dataclasses.asdict(shard) for shard in held] for split, held in self.data.splits.items()}
        text = json.dumps([self.data.max_seq_length, self.data.tokenizer.sha256, shards], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def load(folder: str) -> Manifest:
    """Read the manifest of a data set.

    Raises:
        RemaskError: the folder is not a data set, and why it might not be.
    """
    path = storage.join(folder, MANIFEST_JSON)
    if not storage.exists(folder):
        raise RemaskError(
            f"{folder}: no such folder; make the records first, with 'make records CSV=... "
            f"{make_option('OUT', folder)}'"
        )
    if not storage.exists(path):
        raise RemaskError(
            f"{folder}: no {MANIFEST_JSON}, so this is not a finished data set. A job that was interrupted leaves "
            f"none: run 'make records CSV=... {make_option('OUT', folder)}' again"
        )
    return Manifest.from_json(storage.read_bytes(path), name=path)
