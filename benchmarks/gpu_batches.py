"""Batches for the steps on a GPU: of records, made beforehand and carried along; drawn at random where there are none.

The records are those that `python -m pipelines records` makes, and the masks those that `make train` would draw: so
what is measured on has the lengths, the padding and the packing of text, and a machine with a GPU needs no TensorFlow.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.config import GPU_BATCHES, GPU_LENGTHS, GpuCarryOptions
from benchmarks.step import CLS, WORDS, make_batch
from records.errors import RemaskError

LONG_TEXT = {"padded": "window", "packed": "pack"}
"""How records are made whose rows are so filled: one window of a text each, or as many as find room."""

ARRAYS = ("input_ids", "masked_lm_positions", "masked_lm_ids", "masked_lm_weights")
AT_RANDOM = "random words, as many as IMDB reviews have (synthetic)"

_ABOUT = "about"
_AT_RANDOM = 64  # sequences; to pack more takes long, and these will do
_SHUFFLED = 65_536  # sequences

Batch = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class About:
    """What the batches are made of."""

    text: str
    vocab_size: int
    cls_token_id: int
    synthetic: bool


def make(options: GpuCarryOptions) -> None:
    """Make the file, in the folder of what is to be carried."""
    from records.format.manifest import SYNTHETIC  # wants packages that a bare machine has not

    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}  # to mask them is the CPU's work
    arrays: dict[str, NDArray[Any]] = {}
    text = os.path.basename(options.csv) or SYNTHETIC
    with tempfile.TemporaryDirectory() as scratch:
        for length in options.length:
            for rows, long_text in LONG_TEXT.items():
                folder = os.path.join(scratch, f"{length}-{rows}")
                _make_records(options, folder, length, long_text)
                batch, vocab_size, cls_token_id = _first_batch(folder, max(1, options.tokens // length))
                arrays |= {_key(length, rows, name): array for name, array in batch.items()}
                filled = np.mean(batch["input_ids"] > 0)
                print(
                    f"{length:>4} {rows}: {len(batch['input_ids']):,} sequences, {filled:.1%} of them tokens",
                    flush=True,
                )
    about = About(text, vocab_size, cls_token_id, synthetic=not options.csv)
    path = os.path.join(options.out, os.path.basename(GPU_BATCHES))
    os.makedirs(options.out, exist_ok=True)
    arrays[_ABOUT] = np.array(json.dumps(vars(about)))
    with open(f"{path}.partial", "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    os.replace(f"{path}.partial", path)
    print(f"made {path}, {os.path.getsize(path) / 1e6:.1f} MB, of {about.text}")


def describe(path: str) -> About:
    """Say what the batches of a file are made of, or, where `path` is empty, those at random.

    Raises:
        RemaskError: no such file, or another one.
    """
    if not path:
        return About(AT_RANDOM, WORDS, CLS, synthetic=True)
    with _opened(path) as file:
        return About(**json.loads(str(file[_ABOUT])))


def read(path: str, *, length: int, rows: str, sequences: int) -> list[Batch]:
    """Return the batches of a file, or, where `path` is empty, some at random; one at least.

    Args:
        path: of the file.
        length: of a sequence.
        rows: one of `LONG_TEXT`.
        sequences: of a batch; where the file has fewer, they come several times.

    Raises:
        RemaskError: no such file, or none of this length in it.

    >>> [batch["input_ids"].shape for batch in read("", length=16, rows="padded", sequences=32)]
    [(32, 16), (32, 16)]
    """
    if path:
        with _opened(path) as file:
            if _key(length, rows, ARRAYS[0]) not in file:
                lengths = " ".join(map(str, sorted({*GPU_LENGTHS, length})))
                raise RemaskError(
                    f"{path}: it has no {rows} sequences of {length}; make it anew of the same text, with 'make "
                    f'bench-gpu-carry CSV=... TOKENIZER=... ARGS="--length {lengths}"\''
                )
            whole = {name: file[_key(length, rows, name)] for name in ARRAYS}
    else:
        whole = make_batch(rows, sequences=_AT_RANDOM, length=length)
    return cut(whole, sequences)


def cut(whole: Batch, sequences: int) -> list[Batch]:
    """Return a batch in batches of so many sequences, all of a size; what is left over is left out.

    >>> [batch["n"].tolist() for batch in cut({"n": np.arange(5)}, 2)]
    [[0, 1], [2, 3]]
    >>> [batch["n"].tolist() for batch in cut({"n": np.arange(2)}, 5)]
    [[0, 1, 0, 1, 0]]
    """
    there = len(next(iter(whole.values())))
    if there < sequences:
        chosen = np.arange(sequences) % there
        return [{name: array[chosen] for name, array in whole.items()}]
    return [
        {name: array[first : first + sequences] for name, array in whole.items()}
        for first in range(0, there - sequences + 1, sequences)
    ]


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Mapping[str, NDArray[Any]]]:
    try:
        with open(path, "rb") as stream, np.load(stream) as file:
            if _ABOUT not in file.files:
                raise ValueError("it holds other arrays")
            yield file
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise RemaskError(
            f"{path}: no batches there ({error}); make them with 'make bench-gpu-carry CSV=FILE TOKENIZER=FOLDER'"
        ) from error


def _key(length: int, rows: str, name: str) -> str:
    return f"{length} {rows} {name}"


def _make_records(options: GpuCarryOptions, out: str, length: int, long_text: str) -> None:
    command = [sys.executable, "-m", "pipelines", "records", "--out", out, "--long_text", long_text]
    command += ["--max_seq_length", str(length)]
    command += ["--csv", options.csv] if options.csv else []
    command += ["--tokenizer", options.tokenizer] if options.tokenizer else []
    made = subprocess.run(command, check=False, capture_output=True, text=True)
    if made.returncode:
        raise RemaskError(f"the records could not be made: {made.stderr.strip()}")


def _first_batch(folder: str, sequences: int) -> tuple[Batch, int, int]:
    """Return a large batch of records, masked, the size of their vocabulary, and the id of [CLS]."""
    from records.format.reader import open_data_set
    from trainer.input.data import train_batches
    from trainer.input.masking import Masking

    data_set = open_data_set(folder)
    batches = train_batches(
        data_set,
        global_batch_size=sequences,
        start_step=0,
        train_steps=1,
        seed=0,
        masking=Masking(),
        shuffle_examples=_SHUFFLED,
    )
    (batch,) = batches.as_numpy_iterator()
    return {name: batch[name] for name in ARRAYS}, data_set.tokenizer.vocab_size, data_set.tokenizer.cls_id
