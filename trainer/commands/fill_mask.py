"""Fills the [MASK]s of a text, or of each line of standard input."""

import sys

from records.console import streams
from records.errors import RemaskError
from trainer.config import FillMaskOptions
from trainer.models import pretrained
from trainer.models.mask_filling import encode, fill, table
from trainer.models.model import BertMaskedLM
from trainer.run.runs import exported


def main(options: FillMaskOptions) -> None:
    """Fill one text, or each line of standard input, and print a table for each [MASK]."""
    start = pretrained.find(options.model or exported(options.run_dir))
    if options.text != "-":  # a text that cannot be filled is refused before the model is read
        encode(options.text, start.tokenizer, longest=start.config.max_position_embeddings)
    model = BertMaskedLM(start.config, seed=0)
    pretrained.read_weights(model, start, say=_remark)
    if options.text != "-":
        print(table(fill(model, options.text, start.tokenizer, top_k=options.top_k)))
        return
    for number, text in enumerate(sys.stdin, start=1):
        if not text.strip():
            continue
        if byte := streams.undecoded(text):
            encoding = sys.stdin.encoding.upper()
            raise RemaskError(
                f"standard input, line {number}: byte {byte} is no {encoding}; convert it, or say with "
                f"PYTHONIOENCODING what it is"
            )
        try:
            print(table(fill(model, text.rstrip("\n"), start.tokenizer, top_k=options.top_k)), flush=True)
        except RemaskError as error:
            raise RemaskError(f"standard input, line {number}: {error}") from None


def _remark(line: str) -> None:
    """Say what is not as usual about a model, beside what is filled; but not that it was read."""
    if line.startswith(" "):
        print(line, file=sys.stderr)
