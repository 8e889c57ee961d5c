"""Writes a model as HuggingFace does: config, weights, tokenizer, and a card that says what it is."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Sequence

import keras

from records import storage
from records.console import interrupts
from records.errors import RemaskError
from records.format import manifest as manifests
from records.format.manifest import Manifest
from records.paths import is_partial, partial
from records.storage import disk
from records.tokenizer.artifact import TOKENIZER_CONFIG_JSON, TOKENIZER_JSON, TokenizerArtifact
from trainer.config import TrainOptions
from trainer.models import bridge
from trainer.models.pretrained import CONFIG_JSON
from trainer.models.tensors import WEIGHTS
from trainer.run import checkpoint, runs
from trainer.run.checkpoint import Checkpoint

_FILES = (CONFIG_JSON, WEIGHTS, TOKENIZER_JSON, TOKENIZER_CONFIG_JSON, runs.CARD)
_STAGED = ".remask-export"
"""Begins the name of a folder below that of an export, for what is written and not yet whole."""
_TAG = "- remask"  # in the front matter of a card: by it we know our own


def choose(folder: str, *, which: str) -> tuple[Checkpoint, checkpoint.State]:
    """Read the checkpoint to export: the one with the lowest held-out loss, or the last.

    Raises:
        RemaskError: there is none, or it is damaged.
    """
    found = checkpoint.latest(folder, say=print)
    if found is None:
        raise RemaskError(f"{folder}: no checkpoint yet; train further")
    lowest = checkpoint.best(found[0].evaluations)
    if which == "last" or lowest is None or lowest.step == found[0].step:
        return found
    path = checkpoint.path_of(folder, lowest.step)
    if path not in checkpoint.paths(folder):  # a later one was better, and is damaged
        print(f"{path}, the best on the held-out split, is gone; this is the newest that is whole, {found[0].step}")
        return found
    del found  # a state is large: one at a time
    return checkpoint.read(path)


def write(
    model: keras.Model,
    folder: str,
    *,
    artifact: TokenizerArtifact,
    manifest: Manifest,
    saved: Checkpoint,
    example: str,
) -> None:
    """Write everything or nothing; the card last, by which an export is known to be complete, with an example in it.

    The caller sees to it that nobody else writes to the folder.

    Raises:
        RemaskError: it would replace what is not ours, or cannot be replaced.
    """
    prepare(folder)
    with _published(folder) as staged:
        bridge.write_checkpoint(model, staged)
        artifact.save(staged)
        storage.write_bytes(storage.join(staged, runs.CARD), card(manifest, saved, example=example).encode())


@contextlib.contextmanager
def _published(folder: str) -> Iterator[str]:
    """Give a folder whose files go to another one together, when the block ends well, and not at all when it does not.

    On a disk they are written below the other folder first. In a bucket, which is never full, they are written right
    there; until the card is, it says that the rest is not whole.
    """
    card = storage.join(folder, runs.CARD)
    unfinished = f"---\ntags:\n{_TAG}\n---\n\n{runs.UNFINISHED}\n".encode()
    if storage.is_remote(folder):
        storage.write_bytes(card, unfinished)
        yield folder
        return
    staged, is_new = partial(storage.join(folder, _STAGED), disk.PROCESS), not storage.exists(folder)
    with interrupts.held(f"the export into {folder}") as signals:
        try:
            with signals.let_through():
                yield staged
            storage.write_bytes(card, unfinished)
            disk.move(_FILES, staged, folder)
        finally:
            storage.remove(staged)
            if is_new:
                with contextlib.suppress(OSError):  # it holds the export
                    os.rmdir(folder)


def is_final(folder: str, last: Checkpoint) -> bool:
    """Say whether a folder holds a complete export of a run's last checkpoint or of its best, and none made before."""
    path = storage.join(folder, runs.CARD)
    if not storage.exists(path):
        return False
    text, lowest = storage.read_bytes(path).decode(errors="replace"), checkpoint.best(last.evaluations)
    steps = {last.step, lowest.step if lowest else last.step}
    return any(_after(step, last.run.options) in text for step in steps)


def card(manifest: Manifest, saved: Checkpoint, *, example: str) -> str:
    """Return the model card: what the model was trained on, how, what it is worth and how to use it."""
    options = dataclasses.replace(
        saved.run.options, global_batch_size=saved.run.global_batch_size, per_replica_batch_size=0
    )
    data = manifest.data
    sections = [
        f"---\nlibrary_name: transformers\npipeline_tag: fill-mask\ntags:\n- bert\n- masked-lm\n{_TAG}\n---",
        f"# {_name(options.model)}, trained on masked words",
        f"A BERT masked language model {_after(saved.step, options)}, started from "
        f"`{_name(options.model)}`, trained with remask.",
        "## Data",
        *(["**The text is synthetic: it was made by a program, not written by people.**"] if data.synthetic else []),
        _rows(
            ("", "train", "validation"),
            [
                ("sequences", *(f"{manifest.examples(split):,}" for split in manifests.SPLITS)),
                ("tokens", *(f"{manifest.tokens(split):,}" for split in manifests.SPLITS)),
            ],
        ),
        f"{sum(source.documents for source in data.sources):,} documents; sequences of {data.max_seq_length} tokens "
        f"(long texts: {data.long_text}); tokenizer {_name(data.tokenizer.name)} of "
        f"{data.tokenizer.vocab_size:,} tokens. Sources:",
        "\n".join(f"- {_base(source.file)}: {source.documents:,} documents" for source in data.sources),
        "## Held-out metrics",
        *_held_out(saved),
        "## Options",
        _rows(("option", "value"), _shown_options(options)),
        "## Use",
        "```python\nfrom transformers import pipeline\n\n"
        f'fill = pipeline("fill-mask", model="path/to/this/folder")\n'
        f"fill({json.dumps(example, ensure_ascii=False)})\n```",
    ]
    return "\n\n".join(sections) + "\n"


def _held_out(saved: Checkpoint) -> list[str]:
    """Return what the model is worth, before it was trained and as it is exported."""
    shown = [each for each in saved.evaluations if each.step in (0, saved.step)]
    if not shown:
        return ["None: no text was held out, so nothing tells what the model is worth on text that it has not seen."]
    rows = [
        (
            str(each.step),
            f"{each.loss:.4f}",
            f"{each.perplexity:.2f}",
            f"{each.accuracy:.2%}",
            f"{each.top5_accuracy:.2%}",
        )
        for each in shown
    ]
    return [
        "On the whole validation split, with 15 % of its tokens masked, always the same ones.",
        _rows(("step", "loss", "perplexity", "accuracy", "top-5 accuracy"), rows),
    ]


def _shown_options(options: TrainOptions) -> list[tuple[str, str]]:
    # about the machine and the watching, not the model
    hidden = {"data", "run_dir", "probes", "tpu", "zone", "project", "devices"}
    return [
        (name, f"`{_name(value) if name == 'model' else value}`")
        for name, value in vars(options).items()
        if name not in hidden
    ]


def prepare(folder: str) -> None:
    """Remove what exports that were killed have left in a folder, and refuse one that cannot take another.

    To be called by who holds its lock.

    Raises:
        RemaskError: as `check_ours` says; or in what was left is something that no export writes.
    """
    check_ours(folder)
    storage.remove_partial(folder)
    for name in storage.folders(folder):
        if not (name.startswith(f"{_STAGED}.") and is_partial(name)):
            continue
        path = storage.join(folder, name)
        others = [
            each
            for each in (*storage.folders(path), *storage.files(path))
            if each not in _FILES and not is_partial(each)
        ]
        if others:
            raise RemaskError(
                f"{path}: an interrupted export has left it, and would be removed, but it holds {others[0]}, which no "
                f"export writes; move that elsewhere"
            )
        storage.remove(path)


def check_ours(folder: str) -> None:
    """Refuse a folder whose README.md is no card of ours: it would be lost; or in which a folder is in the way.

    Raises:
        RemaskError: names what is there.
    """
    if in_the_way := [name for name in storage.folders(folder) if name in _FILES]:
        raise RemaskError(
            f"{storage.join(folder, in_the_way[0])}: found a folder, where an export writes a file; move it elsewhere, "
            f"or export to another folder with OUT="
        )
    path = storage.join(folder, runs.CARD)
    if storage.exists(path):
        head = storage.read_bytes(path).decode(errors="replace").partition("\n---\n")[0].splitlines()
        if head[:1] != ["---"] or _TAG not in head:
            raise RemaskError(f"{path}: not written by remask, and an export would replace it; give another OUT")


def _after(step: int, options: TrainOptions) -> str:
    return f"after {step:,} of {options.train_steps:,} steps"


def _name(model: str) -> str:
    """Return the name of a model or tokenizer: as it is on the hub, or of a folder its last part.

    >>> _name("google/bert_uncased"), _name("/models/bert/"), _name("scratch:out/run/export")
    ('google/bert_uncased', 'bert', 'scratch:export')
    """
    scratch, colon, rest = model.rpartition(":")
    on_hub = rest.count("/") < 2 and not rest.startswith(("/", ".", "~"))
    return scratch + colon + (rest if on_hub else _base(rest))


def _base(path: str) -> str:
    """Return a path without its folders, which are nobody's business."""
    return path.rstrip("/").rpartition("/")[2]


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
