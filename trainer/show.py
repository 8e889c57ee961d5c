"""Prints sequences of a data set as text, and how three epochs mask them."""

import os
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from records import storage, tfrecord
from records.command_line import make_option
from records.errors import RemaskError
from records.manifest import SYNTHETIC
from records.reader import DataSet, open_data_set
from records.schema import PAD_ID
from records.verify import decoded
from trainer.checks import errors_explained
from trainer.config import ShowOptions
from trainer.masking import Masking, Vocabulary, mask_tokens

EPOCHS = (0, 1, 2)
_COLOURS = {"masked": "31", "random": "33", "kept": "32"}  # red, yellow, green


def main(options: ShowOptions) -> int:
    """Print the first sequences of a split."""
    data_set = open_data_set(options.data)
    with errors_explained(data_set):
        shown = list(first(data_set, options.split, options.n))
    if not shown:
        why, other = data_set.manifest.why_empty(options.split), "train" if options.split != "train" else "validation"
        raise RemaskError(
            f"{options.data}: {why}; 'make show {make_option('DATA', options.data)} SPLIT={other}' shows the "
            f"other split"
        )
    if data_set.manifest.data.synthetic:
        print(f"text: {SYNTHETIC}")
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    for input_ids, example_id in shown:
        print(f"example {example_id}: {_described(input_ids, data_set)}")
        print(f"  {rendered(data_set, input_ids)}")
        for epoch in EPOCHS if options.masks else ():
            masking = Masking(rate=options.mask_rate, whole_word=options.whole_word)
            row = masked_row(data_set, input_ids, example_id, seed=options.seed, epoch=epoch, masking=masking)
            print(f"  epoch {epoch}: {rendered(data_set, row['input_ids'], row, colour=colour)}")
    if options.masks:
        print("what stands there⟨the word to find⟩; " + ", ".join(_painted(kind, kind, colour) for kind in _COLOURS))
    return 0


def masked_row(
    data_set: DataSet, input_ids: NDArray[np.integer], example_id: int, *, seed: int, epoch: int, masking: Masking
) -> dict[str, NDArray[Any]]:
    """Return a sequence as an epoch masks it: one row of what `trainer.masking.mask_tokens` returns."""
    batch = mask_tokens(
        tf.constant([input_ids]),
        tf.constant([example_id], tf.int64),
        seed=seed,
        epoch=epoch,
        vocabulary=Vocabulary.of(data_set.tokenizer),
        masking=masking,
    )
    return {name: values[0].numpy() for name, values in batch.items()}


def rendered(
    data_set: DataSet,
    input_ids: NDArray[np.integer],
    masked: Mapping[str, NDArray[np.generic]] | None = None,
    *,
    colour: bool = False,
) -> str:
    """Return a sequence as text, padding left out, the word to find in ⟨⟩ behind each chosen token.

    Args:
        data_set: whose tokenizer made the ids.
        input_ids: `[L]`.
        masked: one row of a masked batch, where its targets are to be shown.
        colour: paint chosen tokens for a terminal.
    """
    tokens = {id_: token for token, id_ in data_set.tokenizer.vocabulary.items()}
    words = [tokens[int(id_)] for id_ in input_ids if id_ != PAD_ID]
    if masked is not None:
        places = zip(masked["masked_lm_positions"], masked["masked_lm_ids"], masked["masked_lm_weights"], strict=True)
        for position, original, weight in places:
            if weight:
                found = input_ids[position]
                kind = "masked" if found == data_set.tokenizer.mask_id else "kept" if found == original else "random"
                words[position] = _painted(f"{words[position]}⟨{tokens[int(original)]}⟩", kind, colour)
    return " ".join(words)


def first(data_set: DataSet, split: str, count: int) -> Iterator[tuple[NDArray[np.int32], int]]:
    """Yield the first sequences of a split, and their ids."""
    for shard in data_set.manifest.data.splits[split]:
        path = data_set.path(shard.file)
        with storage.open_read(path) as file:
            payloads = tfrecord.read(file, name=path, compress=bool(data_set.compression))
            input_ids, example_id = decoded(list(islice(payloads, min(count, shard.examples))), path, 0, data_set.frame)
        yield from zip(input_ids.astype(np.int32), example_id.tolist(), strict=True)
        count -= min(count, shard.examples)
        if not count:
            return


def _described(input_ids: NDArray[np.integer], data_set: DataSet) -> str:
    segments = int((input_ids == data_set.tokenizer.cls_id).sum())
    return f"{int((input_ids != PAD_ID).sum())} of {len(input_ids)} tokens, {segments} segment{'s' * (segments > 1)}"


def _painted(text: str, kind: str, colour: bool) -> str:
    return f"\x1b[{_COLOURS[kind]}m{text}\x1b[0m" if colour else text
