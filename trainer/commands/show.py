"""Prints sequences of a data set as text, and how three epochs mask them."""

import os
import sys

import numpy as np
from numpy.typing import NDArray

from records.console.command_line import make_option
from records.errors import RemaskError
from records.format.manifest import SYNTHETIC
from records.format.reader import DataSet, open_data_set
from records.tokenizer.special import PAD_ID
from trainer.config import ShowOptions
from trainer.input.masking import Masking
from trainer.input.rendering import COLOURS, first, masked_row, painted, rendered
from trainer.run.checks import errors_explained

EPOCHS = (0, 1, 2)


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
        print("what stands there⟨the word to find⟩; " + ", ".join(painted(kind, kind, colour) for kind in COLOURS))
    return 0


def _described(input_ids: NDArray[np.integer], data_set: DataSet) -> str:
    segments = int((input_ids == data_set.tokenizer.cls_id).sum())
    return f"{int((input_ids != PAD_ID).sum())} of {len(input_ids)} tokens, {segments} segment{'s' * (segments > 1)}"
