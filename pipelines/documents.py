"""Rows of the input become documents: blocks of token ids, and a count of what became of the rows."""

import itertools
import json
import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
from apache_beam.metrics import Metrics
from numpy.typing import NDArray

from pipelines.shards.blocks import Block, make_block, token_type
from pipelines.shards.sequences import places
from pipelines.shards.shards import Layout
from pipelines.shards.split import document_ids, held_out
from pipelines.sources.source import BadRow, Piece, Row, decode, read_piece
from pipelines.text import tokens
from pipelines.text.clean import clean
from records import storage
from records.format.manifest import SPLITS
from records.tokenizer import loading

WORK = ".work"
"""Folder below that of the data set for what is gone when it is finished."""

NAMESPACE, ROWS, SHARDS = "remask", "rows", "shards"
"""Metrics of the job: rows that are tokenized, shards that are written."""

_BATCH = 512  # rows tokenized at once, at most
_BATCH_SIZE = 4 << 20  # characters of them, at most but for the last row: a token takes about 100 bytes at first
_PART = 8192  # documents held at once, at most but for the last batch
_PART_SIZE = 16 << 20  # characters of their rows


class Rows(NamedTuple):
    """What became of the rows of a part of the input. Sums of them are as good."""

    rows: int = 0
    malformed: int = 0
    empty: int = 0
    recoded: int = 0


class Documents(NamedTuple):
    """D documents with T tokens in all."""

    ids: NDArray[np.uint8]  # [D, 16]
    length: NDArray[np.int64]  # [D]
    tokens: NDArray[np.int32]  # [T] one document after the other


class Shape(NamedTuple):
    """The options that shape the data, and where things lie meanwhile."""

    folder: str  # of the data set
    blocks: str  # folder for block files; "": blocks travel, there is no disk that all workers share
    piece_bytes: int  # of the input, at least, that a worker reads at once
    column: str
    encoding: str
    validation_fraction: float
    num_shards: int
    layout: Layout
    job: str  # what tells this job from all others

    @property
    def sources(self) -> str:
        """Path of the list of input files."""
        return storage.join(self.folder, WORK, self.job, "sources.json")

    @property
    def letters(self) -> str:
        """Folder of a file of malformed rows for each part of the input that has any, in the order of their names."""
        return storage.join(self.folder, WORK, self.job, "dead_letters")

    @property
    def token(self) -> np.dtype[np.unsignedinteger]:
        """How a token is written in a block."""
        return token_type(self.layout.vocab_size)


class TokenizePiece(beam.DoFn):
    """From a piece of the input to a block of documents for each split. Tokenizing is where the time goes."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape

    def setup(self) -> None:
        """Load the tokenizer, once for each worker."""
        self._encode = tokens.encoder(loading.load(self._shape.folder))

    def process(self, piece: Piece) -> Iterator[Any]:
        """Yield blocks, and the counts of rows on the side, part by part: a .gz file is one piece, however large."""
        rows = read_piece(piece, column=self._shape.column, encoding=self._shape.encoding)
        batches = _batches(rows)
        for part in itertools.count():
            name = f"{piece.source:06d}-{piece.start:015d}-{piece.length or 0}-{part:05d}"
            counts = Rows()
            bad: list[BadRow] = []
            documents: list[Documents] = []
            size = 0
            for batch in batches:
                good = [row for row in batch if isinstance(row, Row)]
                bad += [row for row in batch if isinstance(row, BadRow)]
                found = self._documents([clean(row.text) for row in good])
                documents.append(found)
                recoded = sum(row.recoded for row in good)
                of_batch = Rows(len(batch), len(batch) - len(good), len(good) - len(found.ids), recoded)
                counts = Rows(*map(operator.add, counts, of_batch))
                size += sum(map(_size, batch))
                if counts.rows >= _PART or size >= _PART_SIZE:
                    break
            if not counts.rows:
                return
            yield from self._blocks(name, documents, source=piece.source)
            if bad:
                path = storage.join(self._shape.letters, f"{name}.jsonl")
                storage.write_bytes(path, _lines(bad, piece.path, self._shape.encoding))
            Metrics.counter(NAMESPACE, ROWS).inc(counts.rows)
            yield beam.pvalue.TaggedOutput("rows", (piece.source, counts))

    def _documents(self, texts: list[str]) -> "Documents":
        """Return the documents of those texts that have any tokens."""
        encoded = self._encode(texts)
        held = np.flatnonzero(encoded.length)
        return Documents(document_ids([texts[number] for number in held.tolist()]), encoded.length[held], encoded.ids)

    def _blocks(self, name: str, documents: "Sequence[Documents]", *, source: int) -> Iterator[Block]:
        """Make a block of documents for each split they belong to."""
        ids, length, tokens = (np.concatenate(column) for column in zip(*documents, strict=True))
        offset = np.cumsum(length) - length
        of_split = dict.fromkeys(SPLITS, held_out(ids, validation_fraction=self._shape.validation_fraction))
        of_split["train"] = ~of_split["validation"]
        layout = self._shape.layout
        taken = places(length, max_seq_length=layout.max_seq_length, long_text=layout.long_text)
        for split, held in of_split.items():
            if held.any():
                path = self._shape.blocks and storage.join(self._shape.blocks, f"{name}-{split}.block")
                columns = ids[held], length[held], offset[held], tokens
                yield make_block(
                    path, *columns, places=taken[held], source=source, split=split, dtype=self._shape.token
                )


def _batches(rows: Iterable[Row | BadRow]) -> Iterator[list[Row | BadRow]]:
    """Yield rows in lists of which neither the length nor the size can be large."""
    batch: list[Row | BadRow] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += _size(row)
        if len(batch) == _BATCH or size >= _BATCH_SIZE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _size(row: Row | BadRow) -> int:
    return len(row.text) if isinstance(row, Row) else len(row.raw)


def _lines(bad: Iterable[BadRow], source: str, encoding: str) -> bytes:
    """Return malformed rows as they were found, a JSON object a line."""
    letters = (
        {
            "file": source,
            "row": row.number,
            "line": row.line,
            "reason": row.reason,
            "raw": decode(row.raw, encoding)[0],
        }
        for row in bad
    )
    return "".join(json.dumps(letter) + "\n" for letter in letters).encode()
