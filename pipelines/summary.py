"""Adds up what a job did, for the manifest and for the person who waits for it."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from records import storage
from records.console.command_line import make_option
from records.format.manifest import SPLITS, SYNTHETIC, Data, Manifest, Shard, Source

if TYPE_CHECKING:
    from pipelines.documents import Rows
    from pipelines.shards.shards import Kept


def filled_in(
    described: Data,
    names: Iterable[str],
    shards: Iterable[tuple[str, Shard]],
    rows: Mapping[int, "Rows"],
    kept: Mapping[int, "Kept"],
) -> Data:
    """Return the data part of the manifest.

    Args:
        described: it, without its splits and its sources.
        names: of the sources, in their order.
        shards: that were written, each with its split.
        rows: what became of the rows of each source that has any.
        kept: what became of the documents of each source that has any.
    """
    of_split: dict[str, list[Shard]] = {split: [] for split in SPLITS}
    for split, shard in shards:
        of_split[split].append(shard)
    splits = {split: tuple(sorted(made, key=lambda shard: shard.file)) for split, made in of_split.items()}
    sources = tuple(_source(name, rows.get(number), kept.get(number)) for number, name in enumerate(names))
    return dataclasses.replace(described, splits=splits, sources=sources)


def dropped(data: Data) -> dict[str, int]:
    """Return the rows of all sources that did not become documents, by reason."""
    total: Counter[str] = Counter()
    for source in data.sources:
        total.update(source.dropped)
    return {reason: count for reason, count in sorted(total.items()) if count}


def nothing_left(data: Data, dead_letters: str) -> str:
    """Return the message for an input of which nothing is left."""
    rows = sum(source.rows for source in data.sources)
    first, others = data.sources[0].file, len(data.sources) - 1
    files = f"{first} and {others:,} other files" if others > 1 else ", ".join(each.file for each in data.sources)
    if not rows:
        return f"{files}: a header and no rows, expected at least one text"
    reasons = dropped(data)
    where = f"; the malformed ones are in {dead_letters}" if reasons.get("malformed") else ""
    return f"{files}: none of the {rows:,} rows became a document ({_listed(reasons)}){where}"


def text(made: Manifest, folder: str, *, seconds: float) -> str:
    """Return the lines that end a job: what it made, of what, where, and what to run next."""
    data = made.data
    rows, documents, cut = (
        sum(getattr(source, name) for source in data.sources) for name in ("rows", "documents", "tokens_dropped")
    )
    examples, tokens = (sum(count(split) for split in SPLITS) for count in (made.examples, made.tokens))
    padding = 1 - tokens / (examples * data.max_seq_length)
    reasons, recoded = dropped(data), sum(source.recoded for source in data.sources)
    lines = [
        f"rows       {rows:,}" + (f"; {recoded:,} read as ISO-8859-1" if recoded else ""),
        f"documents  {documents:,}; dropped: {_listed(reasons) or 'none'}",
        f"tokens     {tokens:,}; dropped: {cut:,}",
        f"sequences  {examples:,} of {data.max_seq_length} ({data.long_text}), {padding:.1%} padding",
        *(_split(made, split) for split in SPLITS),
        f"time       {seconds:.1f} s, {tokens / seconds:,.0f} tokens/s",
        f"made       {folder}" + (f" of {SYNTHETIC}" if data.synthetic else ""),
    ]
    if reasons.get("malformed"):
        lines.append(
            f"look at    {storage.join(folder, 'dead_letters.jsonl')}: the malformed rows, with the reason of each"
        )
    return "\n".join((*lines, next_step(made, folder)))


def next_step(made: Manifest, folder: str) -> str:
    """Return the line that says what to run next."""
    return f"next       make show {make_option('DATA', folder)}; {made.training(folder)}"


def _source(file: str, rows: "Rows | None", kept: "Kept | None") -> Source:
    return Source(
        file=file,
        rows=rows.rows if rows else 0,
        documents=kept.documents if kept else 0,
        dropped={
            "malformed": rows.malformed if rows else 0,
            "empty": rows.empty if rows else 0,
            "duplicate": kept.duplicates if kept else 0,
        },
        recoded=rows.recoded if rows else 0,
        tokens_dropped=kept.tokens_dropped if kept else 0,
    )


def _split(made: Manifest, split: str) -> str:
    """Return the line about a split; of one that is empty why, and what that means for who trains on it."""
    shards = made.data.splits[split]
    if why := made.why_empty(split):
        if split == "train":
            then = "make the records again with a smaller --validation_fraction"
        else:
            then = "training will have no held-out figures, and export its last checkpoint"
            if made.data.validation_fraction:
                then += "; more text, or a larger --validation_fraction, holds some out"
        return f"{split:<10} WARNING: {why}; {then}" if made.data.validation_fraction else f"{split:<10} {why}; {then}"
    sizes = [shard.bytes / 1e6 for shard in shards]
    largest = f", the largest of {max(sizes):.1f} MB" if len(shards) > 1 else ""
    return f"{split:<10} {made.examples(split):,} sequences in {len(shards)} shards, {sum(sizes):.1f} MB{largest}"


def _listed(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
