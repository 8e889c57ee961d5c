"""Shows sequences of a data set as text, and how they are masked."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from records import storage
from records.format import tfrecord
from records.format.reader import DataSet
from records.format.verify import decoded
from records.tokenizer.special import PAD_ID
from trainer.input.masking import Masking, Vocabulary, mask_tokens

EPOCHS = (0, 1, 2)
COLOURS = {"masked": "31", "random": "33", "kept": "32"}  # red, yellow, green


def masked_row(
    data_set: DataSet, input_ids: NDArray[np.integer], example_id: int, *, seed: int, epoch: int, masking: Masking
) -> dict[str, NDArray[Any]]:
    """Return a sequence as an epoch masks it: one row of what `trainer.input.masking.mask_tokens` returns."""
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
                words[position] = painted(f"{words[position]}⟨{tokens[int(original)]}⟩", kind, colour)
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


def painted(text: str, kind: str, colour: bool) -> str:
    """Return a text in the colour of what was done to it, one of `COLOURS`, for a terminal that shows colours."""
    return f"\x1b[{COLOURS[kind]}m{text}\x1b[0m" if colour else text
