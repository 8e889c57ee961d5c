"""Reads every shard of a data set again and holds it against the manifest."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from records import storage
from records.config import VerifyOptions
from records.console.bars import layout
from records.errors import Damaged, RemaskError
from records.format import example, tfrecord
from records.format.frame import Frame, Sum64
from records.format.manifest import MANIFEST_JSON, SPLITS, Shard, again
from records.format.reader import DataSet, open_without_shards, unlisted
from records.tokenizer.special import PAD_ID

_AT_ONCE = 8  # shards: in a bucket the next ones are fetched while one is looked at
_BATCH = 2048


class Counts(NamedTuple):
    """What a shard was found to hold."""

    examples: int
    segments: int
    tokens: int
    sum64: str


def main(options: VerifyOptions) -> int:
    """Print a verdict for each shard; exit with 1 where one is damaged, or none of the data set's."""
    data_set = open_without_shards(options.data)
    shards = [shard for split in SPLITS for shard in data_set.manifest.data.splits[split]]
    damaged = 0
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        found = threads.map(partial(_fault, data_set), shards)
        for shard, fault in zip(
            shards,
            tqdm(found, total=len(shards), unit="shard", disable=None, leave=False, bar_format=layout()),
            strict=True,
        ):
            damaged += bool(fault)
            fine = f"ok       {shard.file}: {shard.examples:,} sequences, {shard.tokens:,} tokens"
            tqdm.write(f"DAMAGED  {fault}" if fault else fine)
    strays = unlisted(data_set, storage.files(options.data))
    for name in strays:
        tqdm.write(f"UNKNOWN  {data_set.path(name)}: {MANIFEST_JSON} does not list it")
    if damaged:
        raise RemaskError(
            f"{options.data}: {damaged} of {len(shards)} shards damaged; copy those again, or make the records again "
            f"with {again(options.data)}"
        )
    if strays:
        raise RemaskError(
            f"{options.data}: {len(strays)} of the shards there are none of {MANIFEST_JSON}'s: another job has left "
            f"them; remove what is named UNKNOWN above"
        )
    print(
        f"{options.data}: all {len(shards)} shards are as the manifest says. "
        f"Next: {data_set.manifest.training(options.data)}"
    )
    return 0


def _fault(data_set: DataSet, shard: Shard) -> str:
    """Return what is wrong with a shard; nothing where it is whole.

    Raises:
        RemaskError: it is there and cannot be read, of which nothing follows for what it holds.
    """
    try:
        check_shard(data_set, shard)
    except Damaged as error:
        return str(error)
    except RemaskError as error:
        if storage.exists(data_set.path(shard.file)):
            raise
        return str(error)
    return ""


def check_shard(data_set: DataSet, shard: Shard) -> Counts:
    """Read a shard whole and hold it against the manifest.

    Raises:
        Damaged: names the shard, the record where one is to blame, what was found and what was expected.
    """
    path = data_set.path(shard.file)
    with storage.open_read(path) as file:
        payloads = tfrecord.read(file, name=path, compress=bool(data_set.compression))
        found = _counted(data_set, path, payloads)
    counts = {"examples": found.examples, "segments": found.segments, "tokens": found.tokens}
    for name, count in {**counts, "bytes": storage.size(path)}.items():
        if count != getattr(shard, name):
            raise Damaged(f"{path}: {count:,} {name}, the manifest says {getattr(shard, name):,}")
    for name, checksum in {"crc32c": storage.crc32c(path), "sum64": found.sum64}.items():
        if checksum != getattr(shard, name):
            raise Damaged(f"{path}: {name} is {checksum}, the manifest says {getattr(shard, name)}")
    return found


def _counted(data_set: DataSet, path: str, payloads: Iterator[bytes]) -> Counts:
    """Check all records of a shard and count what they hold."""
    cls_id = data_set.tokenizer.cls_id
    total = np.zeros(3, np.int64)
    last, frame, checksum = -1, data_set.frame, Sum64(data_set.frame)
    while batch := list(islice(payloads, _BATCH)):
        first = int(total[0])
        input_ids, example_ids = decoded(batch, path, first, frame)
        for reason, wrong in _faults(input_ids, example_ids, last, data_set):
            if wrong.any():
                raise Damaged(f"{path}, record {first + int(np.argmax(wrong))}: {reason}")
        total += (len(batch), int((input_ids == cls_id).sum()), int((input_ids != PAD_ID).sum()))
        last = int(example_ids[-1])
        checksum.add(np.frombuffer(b"".join(map(tfrecord.framed, batch)), np.uint8).reshape(-1, frame.size))
    examples, segments, tokens = map(int, total)
    return Counts(examples, segments, tokens, checksum.hexdigest())


def decoded(batch: list[bytes], path: str, first: int, frame: Frame) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the `input_ids` and `example_id`s of records, as `records.format.example.decode` does.

    Args:
        batch: what the records hold.
        path: of their file.
        first: number of the first of them in the file.
        frame: the layout of a record.

    Raises:
        Damaged: names the record that has another layout.
    """
    try:
        return example.decode(batch, frame)
    except ValueError as error:
        if len(batch) == 1:
            raise Damaged(f"{path}, record {first}: {error}") from None
        middle = len(batch) // 2
        decoded(batch[:middle], path, first, frame)
        return decoded(batch[middle:], path, first + middle, frame)


def _faults(
    input_ids: NDArray[np.int64], example_ids: NDArray[np.int64], last: int, data_set: DataSet
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield what can be wrong with a record, and for which of the batch it is."""
    tokenizer = data_set.tokenizer
    filled = input_ids != PAD_ID
    yield (
        f"an id outside the vocabulary of {tokenizer.vocab_size:,}",
        np.any(input_ids >= tokenizer.vocab_size, axis=1),
    )
    yield f"it does not start with [CLS], id {tokenizer.cls_id}", input_ids[:, 0] != tokenizer.cls_id
    yield "a token after the padding", (~filled[:, :-1] & filled[:, 1:]).any(axis=1)
    yield (
        f"it holds [MASK], id {tokenizer.mask_id}, before anything was masked",
        (input_ids == tokenizer.mask_id).any(axis=1),
    )
    opened, closed = ((input_ids == id_).cumsum(axis=1) for id_ in (tokenizer.cls_id, tokenizer.sep_id))
    inside = filled & (input_ids != tokenizer.sep_id)  # in one segment, and only one
    yield (
        "a segment that does not run from one [CLS] to one [SEP]",
        (opened - closed != inside).any(axis=1) | (opened[:, -1] != closed[:, -1]),
    )
    yield "its example_id is not above the one before", example_ids <= np.append(last, example_ids[:-1])
