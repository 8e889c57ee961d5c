"""What a data set holds. `manifest.json` is written last: a folder without one is not a data set.

Its `data` part is a function of the input and of the options that shape the data: the same text gives the same bytes,
whatever machine, runner or number of workers made it. What describes the run itself stands apart, in `job`.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from records import storage
from records.errors import RemaskError
from records.tokenizer import TokenizerArtifact

MANIFEST_JSON = "manifest.json"
FORMAT_VERSION = 2
SPLITS = ("train", "validation")


@dataclass(frozen=True)
class Shard:
    """One TFRecord file."""

    file: str
    examples: int
    segments: int
    tokens: int  # special tokens included, padding not
    bytes: int
    crc32c: str  # of the whole file, 8 hexadecimal digits
    sum64: str  # of its records, 16 hexadecimal digits: `records.frame.Sum64`


@dataclass(frozen=True)
class Source:
    """One input file and what became of its rows: `rows == documents + sum(dropped.values())`."""

    file: str
    rows: int
    documents: int
    dropped: Mapping[str, int]  # reason -> rows
    recoded: int  # rows that were not in the given encoding and were read as ISO-8859-1
    tokens_dropped: int  # by long_text=truncate


@dataclass(frozen=True)
class Tokenizer:
    """Which tokenizer the ids belong to; the artefact itself lies beside the manifest."""

    name: str
    sha256: str
    vocab_size: int
    pad_id: int
    cls_id: int
    sep_id: int
    mask_id: int
    special_ids: tuple[int, ...]

    @classmethod
    def of(cls, artifact: TokenizerArtifact) -> "Tokenizer":
        """Return the description of an artefact."""
        return cls(**{field.name: getattr(artifact, field.name) for field in dataclasses.fields(cls)})


@dataclass(frozen=True)
class Data:
    """The part that is a function of the input."""

    max_seq_length: int
    long_text: str
    validation_fraction: float
    compression: str  # "" or "gzip"
    tokenizer: Tokenizer
    splits: Mapping[str, tuple[Shard, ...]]
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Manifest:
    """The data, and the job that made it."""

    data: Data
    job: Mapping[str, Any]  # id, package_version, created, options
    format_version: int = FORMAT_VERSION

    def examples(self, split: str) -> int:
        """Return the number of sequences in a split."""
        return sum(shard.examples for shard in self.data.splits[split])

    def tokens(self, split: str) -> int:
        """Return the number of tokens in a split, special tokens included, padding not."""
        return sum(shard.tokens for shard in self.data.splits[split])

    def to_json(self) -> str:
        """Return the text of `manifest.json`; equal manifests give equal texts."""
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, *, name: str = MANIFEST_JSON) -> "Manifest":
        """Read what `to_json` wrote.

        Raises:
            RemaskError: not a manifest, or one of a format that this version does not know.
        """
        try:
            read = json.loads(text)
            version, wrote = read["format_version"], read.get("job", {}).get("package_version", "unknown")
        except (AttributeError, KeyError, TypeError, ValueError):
            raise RemaskError(f"{name}: not a manifest of remask; make the records again with 'make records'") from None
        if version != FORMAT_VERSION:
            raise RemaskError(
                f"{name}: format version {version}, this remask reads version {FORMAT_VERSION}; make the records again "
                f"with 'make records', or use the remask that wrote them ({wrote})"
            )
        try:
            data = read["data"]
            tokenizer = data["tokenizer"]
            made = Data(
                **{
                    **data,
                    "tokenizer": Tokenizer(**{**tokenizer, "special_ids": tuple(tokenizer["special_ids"])}),
                    "splits": {split: tuple(Shard(**shard) for shard in data["splits"][split]) for split in SPLITS},
                    "sources": tuple(Source(**source) for source in data["sources"]),
                }
            )
            return cls(data=made, job=read["job"])
        except (AttributeError, KeyError, TypeError) as error:
            raise RemaskError(f"{name}: damaged ({error}); make the records again with 'make records'") from None

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
        raise RemaskError(f"{folder}: no such folder; make the records first, with 'make records CSV=... OUT={folder}'")
    if not storage.exists(path):
        raise RemaskError(
            f"{folder}: no {MANIFEST_JSON}, so this is not a finished data set. A job that was interrupted leaves "
            f"none: run 'make records CSV=... OUT={folder}' again"
        )
    return Manifest.from_json(storage.read_bytes(path), name=path)
