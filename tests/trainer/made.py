"""Checkpoints that something is wrong with."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

Tensors = dict[str, np.ndarray]


def changed(folder: str | Path, to: Path, change: Callable[[Tensors], object]) -> str:
    """Copy an exported model, with its tensors changed in place."""
    shutil.copytree(folder, to)
    tensors = load_file(to / "model.safetensors")
    change(tensors)
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    return str(to)


def one_nan(tensors: Tensors) -> None:
    """Break one value."""
    tensors["bert.embeddings.LayerNorm.bias"][3] = np.nan


def overflowing(tensors: Tensors) -> None:
    """Leave every value finite, and no score: some are infinite, and their difference is no number."""
    tensors["cls.predictions.transform.LayerNorm.weight"][:] = 3e38
    tensors["bert.embeddings.word_embeddings.weight"][:] = 9.0
