"""The records job: the Beam graph, in `build`, and what happens before and after it."""

import concurrent.futures
import contextlib
import dataclasses
import json
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.metrics import Metrics
from numpy.typing import NDArray

import pipelines
from pipelines import summary
from pipelines.config import RecordsOptions
from pipelines.documents import NAMESPACE, SHARDS, WORK, Rows, Shape, TokenizePiece
from pipelines.publish import DEAD_LETTERS, check, publish
from pipelines.runners import launch
from pipelines.runners.runner import GoesOn
from pipelines.shards.blocks import BUCKETS, Block, Slice, slices
from pipelines.shards.shards import Kept, Layout, ShardKey, bytes_in_places, shard_of_bucket, write_shard
from pipelines.sources import sample, source
from pipelines.sources.source import Row, check_source, find_sources, read_piece, split_source
from pipelines.text import tokens
from pipelines.text.clean import clean
from records import storage
from records.console import interrupts
from records.console.interrupts import Signals
from records.errors import RemaskError
from records.format.manifest import MANIFEST_JSON, SPLITS, SYNTHETIC, Data, Manifest, Tokenizer, is_shard_file
from records.paths import is_same
from records.storage import folder_lock, lease
from records.storage.folder_lock import Lock
from records.tokenizer import loading
from records.tokenizer.artifact import TOKENIZER_CONFIG_JSON, TOKENIZER_JSON, TokenizerArtifact

_TOKENIZER = (TOKENIZER_JSON, TOKENIZER_CONFIG_JSON)
_JOB = "job"  # what the lock calls it
_INSTEAD = "choose another folder with OUT=, or take over with ARGS=--overwrite"
_HEADERS_AT_ONCE = 16  # of files in buckets
PIECE_BYTES = 4 << 20
_PIECES = 100_000  # about, at most: of more text they are larger, and fewer files have to be cut
_FANOUT = 16  # sums on the way to the sum of all, so that no worker adds up what all workers send


def main(options: RecordsOptions) -> int:
    """Run the job, and say what it made."""
    started = time.monotonic()
    launch.check(options)
    _refuse_to_replace(options)
    if options.dry_run:
        return _rehearse(options)
    with interrupts.held(folder_lock.waiting(options.folder)) as signals:
        was_killed = _left_by_a_job(options.folder)
        lock = folder_lock.take(options.folder, what=_JOB, instead=_INSTEAD, take_over=options.overwrite)
        undo = _Undo(options, lock, signals, has_room=was_killed)
        try:
            with undo, signals.let_through():
                said, ended = _finished(options, lock), None
                if not said:
                    with _blocks(options) as blocks:
                        ended = _run(options, lock, blocks, undo, signals)
        except GoesOn:
            lock.leave()
            raise
        except BaseException:
            lock.release()
            raise
        if ended is not None:  # nobody waits for its end, which gives the lock back
            lock.leave()
            return ended
        lock.release()
    if said:
        print(said)
        return 0
    made = Manifest.from_json(storage.read_bytes(storage.join(options.folder, MANIFEST_JSON)))
    print(summary.text(made, options.folder, seconds=time.monotonic() - started))
    return 0


def build(pipeline: beam.Pipeline, shape: Shape, described: Data, about: dict[str, Any]) -> beam.PCollection:
    """Add the whole flow to a pipeline: files, pieces, documents, shards, manifest.

    The graph is as large for a hundred thousand files as for one, since engines limit its size: what the files are
    stands in a list in the work folder.
    """
    pieces = (
        pipeline
        | "List" >> beam.Create([shape.sources])
        | "Sources" >> beam.FlatMap(lambda path: enumerate(source.read_list(path)))
        | "Spread sources" >> beam.Reshuffle()
        | "Pieces"
        >> beam.FlatMapTuple(
            lambda number, listed: split_source(listed.path, source=number, piece_bytes=shape.piece_bytes)
        )
        | "Spread" >> beam.Reshuffle()
    )
    documents = pieces | "Documents" >> beam.ParDo(TokenizePiece(shape)).with_outputs("rows", main="blocks")
    in_all = beam.CombineGlobally(PlacesInAll())
    plan = (
        documents.blocks
        | "Places by bucket" >> beam.Map(lambda block: (SPLITS.index(block.split), block.buckets, block.places))
        | "In all" >> (in_all if shape.blocks else in_all.with_fanout(_FANOUT))
        | "Plan" >> beam.Map(_plan, shape)
    )
    part: Any = Slice if shape.blocks else bytes
    parts = documents.blocks | "Deal out" >> beam.FlatMap(
        _deal_out, plan=beam.pvalue.AsSingleton(plan), shape=shape
    ).with_output_types(tuple[int, part])
    shards = (
        parts
        | "By shard" >> beam.GroupByKey()
        | "Shards" >> beam.ParDo(WriteShard(shape)).with_outputs("kept", main="shards")
    )
    return (
        pipeline
        | "Once" >> beam.Create([described])
        | "Manifest"
        >> beam.Map(
            publish,
            shards=beam.pvalue.AsIter(shards.shards),
            rows=beam.pvalue.AsDict(documents.rows | "Rows by source" >> beam.CombinePerKey(_sum_of_rows)),
            kept=beam.pvalue.AsDict(shards.kept | "Documents by source" >> beam.CombinePerKey(_sum_of_kept)),
            shape=shape,
            about=about,
        )
    )


class WriteShard(beam.DoFn):
    """From the parts of a shard to its file, and what became of its documents by source on the side."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape

    def process(self, keyed: tuple[int, Iterable[Any]]) -> Iterator[Any]:
        """Write one shard."""
        key, parts = keyed
        # Names of shards are those of any job: one that has lost the folder must not write over another's.
        check(self._shape.folder, self._shape.job)
        sliced = parts if self._shape.blocks else map(Slice.unpacked, parts)
        made = write_shard(self._shape.folder, ShardKey.unpacked(key), sliced, layout=self._shape.layout)
        Metrics.counter(NAMESPACE, SHARDS).inc()
        yield made.split, made.shard
        for each in made.kept.items():
            yield beam.pvalue.TaggedOutput("kept", each)


def _refuse_to_replace(options: RecordsOptions) -> None:
    """Refuse a folder that holds a data set, unless it is to be replaced, or something was left beside it.

    Without any of that, files that are called as ours would be are another's: a model has a tokenizer, too.
    """
    folder = options.folder
    left = (storage.join(folder, name) for name in (WORK, folder_lock.LOCK))
    if _holds_data(options):
        if options.dry_run or not any(map(storage.exists, left)):
            raise _refusal(options)
    elif not options.overwrite and not _left_by_a_job(folder) and (found := _to_replace(options)):
        raise RemaskError(
            f"{folder}: holds {found[0]}{' and more' if found[1:] else ''}, which a data set would replace, and no "
            f"{MANIFEST_JSON} of one; choose another folder with OUT=, or replace what is there with ARGS=--overwrite"
        )


def _left_by_a_job(folder: str) -> bool:
    """Say whether a job that has not come to its end has left its mark: its work folder, or its lock."""
    if storage.exists(storage.join(folder, WORK)):
        return True
    holder = lease.read(storage.join(folder, folder_lock.LOCK))
    return holder is not None and holder.what == _JOB


def _holds_data(options: RecordsOptions) -> bool:
    return not options.overwrite and storage.exists(storage.join(options.folder, MANIFEST_JSON))


def _refusal(options: RecordsOptions) -> RemaskError:
    return RemaskError(
        f"{options.folder}: it holds a data set already; choose another folder with OUT=, or replace it with "
        f"ARGS=--overwrite"
    )


def _finished(options: RecordsOptions, lock: Lock) -> str:
    """Tidy up behind a job that was killed when it had written its manifest, and was asked for what is asked for now.

    Returns:
        What to say of it; "" where there is no data set, or it is to be replaced.

    Raises:
        RemaskError: there is another job's, which is not to be replaced.
    """
    if not _holds_data(options):
        return ""
    path, work = storage.join(options.folder, MANIFEST_JSON), storage.join(options.folder, WORK)
    content = storage.read_bytes(path)
    try:
        made = Manifest.from_json(content, name=path)
    except RemaskError as error:
        raise RemaskError(f"{error}; to replace what is there, add ARGS=--overwrite") from None
    job = str(made.job.get("id"))
    was_killed = (lock.left is not None and lock.left.id == job) or storage.exists(storage.join(work, job))
    storage.remove(work)
    storage.remove_partial(options.folder)
    asked, had = (_comparable(each) for each in (dataclasses.asdict(options), made.job.get("options")))
    if not was_killed or asked != had:
        raise _refusal(options)
    return (
        f"{options.folder}: this data set is whole, of the input as it was at {made.job.get('created')}; the job that "
        f"made it was killed while it tidied up, which is done now. If the input has changed since, ARGS=--overwrite "
        f"makes it again\n{summary.next_step(made, options.folder)}"
    )


def _comparable(options: Any) -> Any:
    """Return options as JSON has them, without the one that does not say what is to be made."""
    held = json.loads(json.dumps(options))
    return {name: value for name, value in held.items() if name != "overwrite"} if isinstance(held, dict) else held


def _make_room(options: RecordsOptions) -> None:
    """Clear what an earlier job has made in the folder, and nothing that is not ours.

    Only once the input and the tokenizer are known to be good: a mistyped option must not cost a data set.
    """
    ours = _ours(options)
    # The manifest goes first: from then on the folder is no data set, whatever happens.
    storage.remove(storage.join(options.folder, MANIFEST_JSON))
    storage.remove_files(ours)
    storage.remove_partial(options.folder)


def _ours(options: RecordsOptions) -> list[str]:
    """Return the paths of what a job makes in its folder; of shards and the tokenizer, of those that are there."""
    return [storage.join(options.folder, name) for name in (MANIFEST_JSON, DEAD_LETTERS, *_to_replace(options))]


def _to_replace(options: RecordsOptions) -> list[str]:
    """Return the names of the shards and the tokenizer that are in the folder, and that a job makes anew.

    A tokenizer that is read from the folder itself is not among them: it is the user's, and nothing else may hold it.
    """
    is_read_there = is_same(options.tokenizer_or_default, options.folder)
    return [
        name
        for name in storage.files(options.folder)
        if is_shard_file(name) or (name in _TOKENIZER and not is_read_there)
    ]


def _sources(options: RecordsOptions, folder: str) -> tuple[tuple[str, ...], int]:
    """Return the input files, each found to have the column that is asked for, and how many bytes they have.

    The embedded reviews are written to `folder`.
    """
    if not options.csv:
        print(f"input: {SYNTHETIC}")
        path = storage.join(folder, "sample.csv")
        sample.write_csv(path)
        return (path,), storage.size(path)
    sources = find_sources(options.csv)

    def checked_size(path: str) -> int:
        check_source(path, column=options.column, encoding=options.encoding)
        return storage.size(path)

    with concurrent.futures.ThreadPoolExecutor(_HEADERS_AT_ONCE if storage.is_remote(sources[0]) else 1) as threads:
        return sources, sum(threads.map(checked_size, sources))


def _tokenizer(options: RecordsOptions, sources: Sequence[str]) -> TokenizerArtifact:
    """Load or make the tokenizer, and hold the length of sequences against what its model can take."""
    name = options.tokenizer_or_default
    if name.startswith("train:"):
        size = int(name.removeprefix("train:"))
        print(f"tokenizer: making a vocabulary of up to {size:,} from the text", flush=True)
        artifact = tokens.train(_texts(sources, options), vocab_size=size, name=name)
    else:
        artifact = loading.load(name)
    if artifact.max_length and options.max_seq_length > artifact.max_length:
        raise RemaskError(
            f"max_seq_length: found {options.max_seq_length}, expected at most {artifact.max_length:.0f}, the "
            f"positions of the model that tokenizer {artifact.name} belongs to"
        )
    return artifact


def _texts(sources: Sequence[str], options: RecordsOptions) -> Iterator[str]:
    for number, path in enumerate(sources):
        for piece in split_source(path, source=number):
            for row in read_piece(piece, column=options.column, encoding=options.encoding):
                if isinstance(row, Row):
                    yield clean(row.text)


class _Undo:
    """Removes what a job has made in its folder, where it fails; not where it goes on without this command.

    Args:
        options: of the job.
        lock: of the folder. Where that is another's by now nothing is removed.
        signals: which would come in between.
        has_room: whether what is there of a data set is only what a killed job has left, by whose marks it is known.
            They end with this job, and so must that.
    """

    def __init__(self, options: RecordsOptions, lock: Lock, signals: Signals, *, has_room: bool) -> None:
        self._options, self._lock, self._signals = options, lock, signals
        self._has_room = has_room

    def from_here(self) -> None:
        """Take what there is of a data set from here on for the job's own: it is about to make room for it."""
        self._has_room = True

    def __enter__(self) -> None:
        """Has nothing to begin with."""

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Remove, and raise nothing: what was wrong before is to be told."""
        if error is None or isinstance(error, GoesOn):
            return
        # A bucket that does not answer takes minutes, in which a second Ctrl-C shall do what it always does.
        patient = self._signals.let_through() if storage.is_remote(self._options.folder) else contextlib.nullcontext()
        with contextlib.suppress(RemaskError), patient:
            self._remove(str(error))

    def _remove(self, told: str) -> None:
        folder = self._options.folder
        check(folder, self._lock.id)
        if self._has_room and not storage.exists(storage.join(folder, MANIFEST_JSON)):
            kept = storage.join(folder, DEAD_LETTERS)
            storage.remove_files([path for path in _ours(self._options) if path != kept or path not in told])
        storage.remove_partial(folder)
        storage.remove(storage.join(folder, WORK))  # the last: it is the mark by which all that is known for ours


@contextlib.contextmanager
def _blocks(options: RecordsOptions) -> Iterator[str]:
    """Give a folder for block files, on the disk of this machine; "" where the job does not run on this machine."""
    if options.runner != "local":
        yield ""
    elif storage.is_remote(options.folder):
        with tempfile.TemporaryDirectory(prefix="remask-") as folder:
            yield folder
    else:
        yield storage.join(options.folder, WORK, "blocks")


def _run(options: RecordsOptions, lock: Lock, blocks: str, undo: _Undo, signals: Signals) -> int | None:
    """Run the graph; return a status where the command is to end before the job does."""
    storage.remove(storage.join(options.folder, WORK))  # of an earlier job, which did not come to its end
    sources, total_bytes = _sources(options, storage.join(options.folder, WORK))
    artifact = _tokenizer(options, sources)
    check(options.folder, lock.id)  # to come here may take hours: another may be done by now
    shape, described, about = _described(options, artifact, lock.id, blocks, total_bytes)
    source.write_list(shape.sources, sources)  # into the work folder, by which what follows is known for ours
    undo.from_here()
    _make_room(options)
    artifact.save(options.folder)
    return launch.run(
        lambda pipeline: build(pipeline, shape, described, about),
        options,
        job=lock.id,
        blocks=blocks,
        total_bytes=total_bytes,
        submitted=lock.outlive,
        signals=signals,
    )


def _rehearse(options: RecordsOptions) -> int:
    """Do all that can be done without changing anything, and say what would be done."""
    with tempfile.TemporaryDirectory() as folder:
        sources, total_bytes = _sources(options, folder)
        artifact = _tokenizer(options, sources)
        shape, described, about = _described(options, artifact, "dry-run", "", total_bytes)
        launch.rehearse(lambda pipeline: build(pipeline, shape, described, about), options)
    print(f"input      {len(sources):,} files of {total_bytes / 1e6:,.1f} MB, the first is {sources[0]}")
    print(f"tokenizer  {artifact.name}: {artifact.vocab_size:,} tokens")
    print(f"output     {options.folder}")
    print("nothing was written or submitted; without --dry_run it would be")
    return 0


def _described(
    options: RecordsOptions, artifact: TokenizerArtifact, job: str, blocks: str, total_bytes: int
) -> tuple[Shape, Data, dict[str, Any]]:
    """Return the shape of the data, its description as far as it is known, and what the manifest says of the job."""
    shape = Shape(
        folder=options.folder,
        blocks=blocks,
        piece_bytes=max(PIECE_BYTES, total_bytes // _PIECES),
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
        job=job,
    )
    described = Data(
        max_seq_length=options.max_seq_length,
        long_text=options.long_text,
        validation_fraction=options.validation_fraction,
        compression="" if options.compression == "none" else options.compression,
        tokenizer=Tokenizer.of(artifact),
        splits=dict.fromkeys(SPLITS, ()),
        sources=(),
        synthetic=not options.csv,
    )
    about = {
        "package_version": pipelines.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "options": dataclasses.asdict(options),
    }
    return shape, described, about


class PlacesInAll(beam.CombineFn):
    """Adds up what many blocks take by split and bucket: `[2, BUCKETS]`, 2 MB whatever there is to add up."""

    def create_accumulator(self) -> NDArray[np.int64]:
        """Return the sum of nothing."""
        return np.zeros((len(SPLITS), BUCKETS), np.int64)

    def add_input(
        self, total: NDArray[np.int64], block: tuple[int, NDArray[np.int64], NDArray[np.int64]]
    ) -> NDArray[np.int64]:
        """Add the number of a block's split, the buckets that occur in it, and the places that each takes."""
        split, buckets, places = block
        total[split, buckets] += places
        return total

    def merge_accumulators(self, totals: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
        """Add up sums, one after the other: there may be more of them than fit into memory."""
        return sum(totals, start=self.create_accumulator())

    def extract_output(self, total: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sum."""
        return total


def _plan(counts: NDArray[np.int64], shape: Shape) -> dict[str, NDArray[np.int64]]:
    """Return, for each split, the shard of each bucket. The held-out split is dealt out in proportion."""
    wanted, size = {"train": shape.num_shards, "validation": 0}, bytes_in_places(counts, shape.layout)
    return {split: shard_of_bucket(row, num_shards=wanted[split]) for split, row in zip(SPLITS, size, strict=True)}


def _deal_out(block: Block, plan: dict[str, NDArray[np.int64]], shape: Shape) -> Iterator[tuple[int, Slice | bytes]]:
    """Yield the parts of a block, each with the key of the shard that it belongs to."""
    shards = plan[block.split]
    count = int(shards[-1]) + 1
    for number, part in slices(block, shards, dtype=shape.token):
        yield ShardKey(block.split, number, count).packed(), part if shape.blocks else part.packed()


def _sum_of_rows(counts: Iterable[Rows]) -> Rows:
    return Rows(*map(sum, zip(*counts, strict=True)))


def _sum_of_kept(counts: Iterable[Kept]) -> Kept:
    return Kept(*map(sum, zip(*counts, strict=True)))
