"""The records job: the Beam graph, in `build`, and what happens before and after it.

Local runs name `FnApiRunner`: Beam's `DirectRunner` first tries to download a binary, which hangs behind a firewall.
"""

import dataclasses
import glob
import itertools
import json
import logging
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
from apache_beam.options.pipeline_options import PipelineOptions
from numpy.typing import NDArray

import pipelines
from pipelines import sample, summary, tokens
from pipelines.blocks import BUCKETS, Block, Slice, slices, write_block
from pipelines.clean import clean
from pipelines.config import RecordsOptions
from pipelines.progress import Progress
from pipelines.shards import Layout, Written, file_name, shard_of_bucket, write_shard
from pipelines.source import BadRow, Piece, Row, check_source, decode, find_sources, read_piece, split_source
from pipelines.split import document_ids, held_out
from records import storage, tokenizer
from records.errors import RemaskError
from records.manifest import MANIFEST_JSON, SPLITS, Data, Manifest, Source, Tokenizer
from records.tokenizer import TokenizerArtifact

WORK = ".work"
DEAD_LETTERS = "dead_letters.jsonl"
_OURS = (MANIFEST_JSON, DEAD_LETTERS, tokenizer.TOKENIZER_JSON, tokenizer.TOKENIZER_CONFIG_JSON)
_BATCH = 512  # rows tokenized at once, at most
_BATCH_SIZE = 4 << 20  # characters of them, at most but for the last row: a token takes about 100 bytes at first
_PART = 8192  # documents held at once, at most but for the last batch
_PART_SIZE = 16 << 20  # characters of their rows


class RowCounts(NamedTuple):
    """What became of the rows of one part of a piece of the input."""

    source: int
    start: int  # of the piece
    part: int
    rows: int
    malformed: int
    empty: int
    recoded: int
    bad_rows: str  # the file that holds the malformed ones, or ""


class Documents(NamedTuple):
    """D documents with T tokens in all."""

    ids: NDArray[np.uint8]  # [D, 16]
    length: NDArray[np.int64]  # [D]
    tokens: NDArray[np.int32]  # [T] one document after the other


class Shape(NamedTuple):
    """The options that shape the data, and the tokenizer's part in it."""

    folder: str
    column: str
    encoding: str
    validation_fraction: float
    num_shards: int
    layout: Layout


def main(options: RecordsOptions) -> int:
    """Run the job on this machine, and say what it made."""
    started = time.monotonic()
    _refuse_to_replace(options)
    work = storage.join(options.out, WORK)
    storage.remove(work)
    sources = _sources(options, work)
    artifact = _tokenizer(options, sources)
    _make_room(options.out)
    artifact.save(options.out)
    shape = Shape(
        folder=options.out,
        column=options.column,
        encoding=options.encoding,
        validation_fraction=options.validation_fraction,
        num_shards=options.num_shards,
        layout=Layout(
            max_seq_length=options.max_seq_length,
            long_text=options.long_text,
            cls_id=artifact.cls_id,
            sep_id=artifact.sep_id,
            vocab_size=artifact.vocab_size,
            compress=options.compression == "gzip",
        ),
    )
    with Progress(work, options.out, total_bytes=sum(map(storage.size, sources))):
        _run(sources, shape, artifact, options)
    made = Manifest.from_json(storage.read_bytes(storage.join(options.out, MANIFEST_JSON)))
    storage.remove(work)
    print(summary.text(made, options.out, seconds=time.monotonic() - started, synthetic=not options.csv))
    return 0


def build(
    pipeline: beam.Pipeline, sources: Sequence[str], shape: Shape, described: Data, job: dict[str, Any]
) -> beam.PCollection:
    """Add the whole flow to a pipeline: files, pieces, documents, shards, manifest."""
    pieces = (
        pipeline
        | "Sources" >> beam.Create(list(enumerate(sources)))
        | "Pieces" >> beam.FlatMapTuple(lambda number, path: split_source(path, source=number))
        | "Spread" >> beam.Reshuffle()
    )
    documents = pieces | "Documents" >> beam.ParDo(TokenizePiece(shape)).with_outputs("rows", main="blocks")
    plan = (
        documents.blocks
        | "Tokens by bucket" >> beam.Map(_token_counts)
        | "In all" >> beam.CombineGlobally(_total)
        | "Plan" >> beam.Map(_plan, shape)
    )
    shards = (
        documents.blocks
        | "Deal out" >> beam.FlatMap(_deal_out, plan=beam.pvalue.AsSingleton(plan))
        | "By shard" >> beam.GroupByKey()
        | "Shards" >> beam.Map(_write_shard, shape)
    )
    return (
        pipeline
        | "Once" >> beam.Create([described])
        | "Manifest"
        >> beam.Map(
            _write_manifest,
            shards=beam.pvalue.AsList(shards),
            rows=beam.pvalue.AsList(documents.rows),
            folder=shape.folder,
            job=job,
        )
    )


class TokenizePiece(beam.DoFn):
    """From a piece of the input to a block of documents for each split. Tokenizing is where the time goes."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape

    def setup(self) -> None:
        """Load the tokenizer, once for each worker."""
        self._encode = tokens.encoder(tokenizer.load(self._shape.folder))

    def process(self, piece: Piece) -> Iterator[Any]:
        """Yield blocks, and the counts of rows on the side, part by part: a .gz file is one piece, however large."""
        rows = read_piece(piece, column=self._shape.column, encoding=self._shape.encoding)
        batches = _batches(rows)
        for part in itertools.count():
            name = storage.join(
                self._shape.folder, WORK, f"{piece.source:05d}-{piece.start:015d}-{piece.length or 0}-{part}"
            )
            counts = dict.fromkeys(("rows", "malformed", "empty", "recoded"), 0)
            bad: list[BadRow] = []
            documents: list[Documents] = []
            size = 0
            for batch in batches:
                good = [row for row in batch if isinstance(row, Row)]
                bad += [row for row in batch if isinstance(row, BadRow)]
                found = self._documents([clean(row.text) for row in good])
                documents.append(found)
                counts["rows"] += len(batch)
                counts["recoded"] += sum(row.recoded for row in good)
                counts["empty"] += len(good) - len(found.ids)
                size += sum(map(_size, batch))
                if counts["rows"] >= _PART or size >= _PART_SIZE:
                    break
            if not counts["rows"]:
                return
            counts["malformed"] = len(bad)
            yield from self._blocks(name, documents, source=piece.source)
            bad_rows = _write_bad_rows(f"{name}.jsonl", piece.path, bad, self._shape.encoding) if bad else ""
            yield beam.pvalue.TaggedOutput(
                "rows", RowCounts(piece.source, piece.start, part, bad_rows=bad_rows, **counts)
            )

    def _documents(self, texts: list[str]) -> "Documents":
        """Return the documents of those texts that have any tokens."""
        encoded = self._encode(texts)
        held = np.flatnonzero(encoded.length)
        return Documents(document_ids([texts[number] for number in held.tolist()]), encoded.length[held], encoded.ids)

    def _blocks(self, name: str, documents: "Sequence[Documents]", *, source: int) -> Iterator[Block]:
        """Write documents to a block file for each split they belong to."""
        ids, length, tokens = (np.concatenate(column) for column in zip(*documents, strict=True))
        offset = np.cumsum(length) - length
        of_split = dict.fromkeys(SPLITS, held_out(ids, validation_fraction=self._shape.validation_fraction))
        of_split["train"] = ~of_split["validation"]
        for split, held in of_split.items():
            if held.any():
                yield write_block(
                    f"{name}-{split}.block", ids[held], length[held], offset[held], tokens, source=source, split=split
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


def _refuse_to_replace(options: RecordsOptions) -> None:
    """Refuse a folder that holds a data set, unless it is to be replaced."""
    if storage.exists(storage.join(options.out, MANIFEST_JSON)) and not options.overwrite:
        raise RemaskError(
            f"{options.out}: it holds a data set already; choose another folder with OUT=, or replace it with "
            f"ARGS=--overwrite"
        )


def _make_room(folder: str) -> None:
    """Clear what an earlier job has made in the folder, and nothing that is not ours.

    Only once the input and the tokenizer are known to be good: a mistyped option must not cost a data set, and the
    tokenizer may be the one in this folder.
    """
    shards = storage.matching(storage.join(glob.escape(folder), "*-of-*.tfrecord*"))
    ours = [path for path in shards if re.search(rf"/(?:{'|'.join(SPLITS)})-\d+-of-\d+\.tfrecord(?:\.partial)?$", path)]
    # The manifest goes first: from then on the folder is no data set, whatever happens.
    for path in [*(storage.join(folder, name) for name in _OURS), *ours]:
        storage.remove(path)


def _sources(options: RecordsOptions, work: str) -> tuple[str, ...]:
    """Return the input files, each found to have the column that is asked for."""
    if not options.csv:
        print(f"input: {sample.LABEL}")
        path = storage.join(work, "sample.csv")
        try:
            storage.local(work).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage.explained(work, error) from error
        sample.write_csv(path)
        return (path,)
    sources = find_sources(options.csv)
    for path in sources:
        check_source(path, column=options.column, encoding=options.encoding)
    return sources


def _tokenizer(options: RecordsOptions, sources: Sequence[str]) -> TokenizerArtifact:
    """Load or make the tokenizer, and hold the length of sequences against what its model can take."""
    name = options.tokenizer_or_default
    if name.startswith("train:"):
        size = int(name.removeprefix("train:"))
        print(f"tokenizer: making a vocabulary of up to {size:,} from the text", flush=True)
        artifact = tokens.train(_texts(sources, options), vocab_size=size, name=name)
    else:
        artifact = tokenizer.load(name)
    longest = json.loads(artifact.tokenizer_config_json).get("model_max_length") or options.max_seq_length
    if options.max_seq_length > longest:
        raise RemaskError(
            f"max_seq_length: found {options.max_seq_length}, expected at most {longest}, the positions of the model "
            f"that tokenizer {artifact.name} belongs to"
        )
    return artifact


def _texts(sources: Sequence[str], options: RecordsOptions) -> Iterator[str]:
    for number, path in enumerate(sources):
        for piece in split_source(path, source=number):
            for row in read_piece(piece, column=options.column, encoding=options.encoding):
                if isinstance(row, Row):
                    yield clean(row.text)


def _run(sources: Sequence[str], shape: Shape, artifact: TokenizerArtifact, options: RecordsOptions) -> None:
    """Run the graph on this machine, and turn what a worker reports of bad input into its message alone."""
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)  # what a worker raises is raised here, too
    parallel = options.processes > 1
    os.environ["TOKENIZERS_PARALLELISM"] = "false" if parallel else "true"
    flags = {"direct_num_workers": options.processes, "direct_running_mode": "multi_processing"} if parallel else {}
    folder = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in sources])
    described = Data(
        max_seq_length=options.max_seq_length,
        long_text=options.long_text,
        validation_fraction=options.validation_fraction,
        compression="" if options.compression == "none" else options.compression,
        tokenizer=Tokenizer.of(artifact),
        splits=dict.fromkeys(SPLITS, ()),
        sources=tuple(Source(os.path.relpath(path, folder), 0, 0, {}, 0, 0) for path in sources),
    )
    job = {
        "package_version": pipelines.__version__,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "options": dataclasses.asdict(options),
    }
    try:
        with beam.Pipeline(runner="FnApiRunner", options=PipelineOptions([], **flags)) as pipeline:
            build(pipeline, sources, shape, described, job)
    except Exception as error:
        if str(error).startswith("KeyboardInterrupt"):  # Beam makes a RuntimeError of it
            raise KeyboardInterrupt from None
        if "Channel closed prematurely" in str(error):
            raise RemaskError(
                "a worker process was killed, most likely for lack of memory; use fewer processes, as with PROCESSES=1"
            ) from error
        if message := _message(error):
            raise RemaskError(message) from error
        raise


def _message(error: Exception) -> str:
    """Return what a worker had to say to the user, if anything.

    Beam adds where in the graph it was said, and an error of another process arrives as text.
    """
    found = re.search(r"records\.errors\.RemaskError: (.*)", str(error))
    said = str(error) if isinstance(error, RemaskError) else found[1] if found else ""
    return said.split(" [while running ")[0]


def _token_counts(block: Block) -> NDArray[np.int64]:
    """Return the tokens of a block by split and bucket, `[2, BUCKETS]`."""
    counts = np.zeros((len(SPLITS), BUCKETS), np.int64)
    counts[SPLITS.index(block.split), block.buckets] = np.diff(block.token_ends, prepend=0)
    return counts


def _total(counts: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
    return sum(counts, start=np.zeros((len(SPLITS), BUCKETS), np.int64))


def _plan(counts: NDArray[np.int64], shape: Shape) -> dict[str, NDArray[np.int64]]:
    """Return, for each split, the shard of each bucket. The held-out split is dealt out in proportion."""
    wanted = {"train": shape.num_shards, "validation": 0}
    return {split: shard_of_bucket(row, num_shards=wanted[split]) for split, row in zip(SPLITS, counts, strict=True)}


def _deal_out(block: Block, plan: dict[str, NDArray[np.int64]]) -> Iterator[tuple[tuple[str, str], Slice]]:
    """Yield the parts of a block, each keyed by the split and the name of the shard that it belongs to."""
    shards = plan[block.split]
    for number, part in slices(block, shards):
        yield (block.split, file_name(block.split, number, int(shards[-1]) + 1)), part


def _write_shard(keyed: tuple[tuple[str, str], Iterable[Slice]], shape: Shape) -> Written:
    (split, name), parts = keyed
    return write_shard(shape.folder, name, parts, split=split, layout=shape.layout)


def _write_bad_rows(path: str, source: str, bad: Iterable[BadRow], encoding: str) -> str:
    """Write malformed rows as they were found, a JSON object a line, and return the path."""
    with storage.open_write(path) as file:
        for row in bad:
            letter = {
                "file": source,
                "row": row.number,
                "line": row.line,
                "reason": row.reason,
                "raw": decode(row.raw, encoding)[0],
            }
            file.write((json.dumps(letter) + "\n").encode())
    return path


def _write_manifest(
    described: Data, shards: Sequence[Written], rows: Sequence[RowCounts], folder: str, job: dict[str, Any]
) -> None:
    """Write the dead letters, and then, when all else is there, the manifest."""
    rows = sorted(rows)
    if any(count.bad_rows for count in rows):
        with storage.open_write(storage.join(folder, DEAD_LETTERS)) as file:
            for count in rows:
                if count.bad_rows:
                    file.write(storage.read_bytes(count.bad_rows))
    described = summary.filled_in(described, shards, rows)
    if not any(described.splits.values()):
        raise RemaskError(summary.nothing_left(described, storage.join(folder, DEAD_LETTERS)))
    storage.write_bytes(storage.join(folder, MANIFEST_JSON), Manifest(described, job).to_json().encode())
