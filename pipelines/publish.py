"""The end of a job, wherever it runs: all parts are looked at once more, and the manifest makes a data set of them."""

from collections.abc import Iterable, Mapping
from typing import Any

from pipelines import summary
from pipelines.documents import WORK, Rows, Shape
from pipelines.shards.shards import Kept
from pipelines.sources import source
from records import storage
from records.errors import Changed, RemaskError
from records.format.manifest import FORMAT_VERSION, MANIFEST_JSON, Data, Manifest, Shard
from records.storage import folder_lock

DEAD_LETTERS = "dead_letters.jsonl"


def publish(
    described: Data,
    shards: Iterable[tuple[str, Shard]],
    rows: Mapping[int, Rows],
    kept: Mapping[int, Kept],
    shape: Shape,
    about: Mapping[str, Any],
) -> None:
    """Write the dead letters and, when all else is there, the manifest; then remove what is of no use any more.

    An engine may run this twice: the second time finds the job's own manifest and does nothing.

    Args:
        described: the data, without its splits and its sources.
        shards: that were written, each with its split.
        rows: what became of the rows, by source.
        kept: what became of the documents, by source.
        shape: of the data.
        about: the job, for the manifest.

    Raises:
        RemaskError: there is nothing in the data set, or another job wrote into its folder.
    """
    path = storage.join(shape.folder, MANIFEST_JSON)
    if storage.exists(path) and Manifest.from_json(storage.read_bytes(path), name=path).job.get("id") == shape.job:
        _clean(shape.folder, shape.job)
        return
    check(shape.folder, shape.job)
    names = sorted(name for name in storage.files(shape.letters) if not name.endswith(storage.TEMPORARY))
    if letters := [storage.join(shape.letters, name) for name in names]:
        storage.concatenate(letters, storage.join(shape.folder, DEAD_LETTERS))
    sources = [listed.name for listed in source.read_list(shape.sources)]
    data = summary.filled_in(described, sources, shards, rows, kept)
    if not any(data.splits.values()):
        raise RemaskError(summary.nothing_left(data, storage.join(shape.folder, DEAD_LETTERS)))
    _check_shards(shape.folder, data)
    check(shape.folder, shape.job)  # again: to look at all shards takes a while
    content = Manifest(data, {"id": shape.job, **about}, FORMAT_VERSION).to_json().encode()
    try:
        storage.write_bytes(path, content, generation=0)
    except Changed:
        raise RemaskError(lost(shape.folder, f"has written its {MANIFEST_JSON}")) from None
    _clean(shape.folder, shape.job)


def check(folder: str, job: str) -> None:
    """Refuse to go on where another job has taken a folder over.

    Raises:
        RemaskError: it has.
    """
    if not folder_lock.is_held(folder, job):
        raise RemaskError(lost(folder, "has taken it over"))


def lost(folder: str, what: str) -> str:
    """Return what to say where another job has come in between."""
    return f"{folder}: another job {what}, so this one has made no data set; run it again with another OUT="


def _clean(folder: str, job: str) -> None:
    """Remove what is of no use in a data set, and give its folder back: in this order, for it is ours no more then.

    What the workers of this job that died have left of files is removed, too. Where the folder is another job's by now,
    only what has this one's name is.
    """
    if not folder_lock.is_held(folder, job):
        storage.remove(storage.join(folder, WORK, job))
        return
    storage.remove(storage.join(folder, WORK))
    storage.remove_partial(folder)
    folder_lock.end(folder, job)


def _check_shards(folder: str, data: Data) -> None:
    """Refuse shards that are not as this job wrote them, as far as a listing tells."""
    found = storage.files(folder)
    for shard in (shard for made in data.splits.values() for shard in made):
        size, crc32c = found.get(shard.file, (None, ""))
        if size != shard.bytes or (crc32c and crc32c != shard.crc32c):
            raise RemaskError(lost(folder, f"has written {shard.file}"))
