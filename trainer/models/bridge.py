"""HuggingFace checkpoints, in and out: which tensor of `model.safetensors` is which variable of `trainer.models.model`.

Neither PyTorch nor transformers is needed. What is written is what transformers 5 writes for the same weights, byte for
byte.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors.numpy
from keras import Variable, layers
from numpy.typing import NDArray

from records import storage
from records.errors import RemaskError
from records.tokenizer.special import PAD_ID
from trainer.config import ModelConfig
from trainer.models import heads
from trainer.models.model import BertMaskedLM
from trainer.models.tensors import FLOATS, WEIGHTS, Stored, opened, today

ENCODER = "bert."
HEAD = "cls.predictions."
"""Begins the names of the head for masked words, which the checkpoint of an encoder alone does not have."""

_LAYER = re.compile(r"bert\.encoder\.layer\.(\d+)\.")

TIED = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}
"""Second names of a tensor, under which some checkpoints store it once more."""


class Weight(NamedTuple):
    """A variable of ours, and the tensors of a checkpoint that it is made of."""

    variable: Variable
    names: tuple[str, ...]  # more than one lie side by side along the variable's last axis
    transposed: bool = False  # PyTorch keeps a dense kernel as [out, in]

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape that each tensor has in a checkpoint."""
        *rest, last = self.variable.shape
        shape = (*rest, last // len(self.names))
        return shape[::-1] if self.transposed else shape

    def assign(self, tensors: Iterable[NDArray[Any]]) -> None:
        """Give the variable the values of its tensors, in the order of `names`."""
        parts = [tensor.T if self.transposed else tensor for tensor in tensors]
        self.variable.assign(np.concatenate(parts, axis=-1))

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the tensors of a checkpoint, by name."""
        parts = np.split(np.asarray(self.variable), len(self.names), axis=-1)
        parts = [np.ascontiguousarray(part.T if self.transposed else part) for part in parts]
        return dict(zip(self.names, parts, strict=True))


def table(model: BertMaskedLM) -> list[Weight]:
    """Return how the variables of a model and the tensors of a checkpoint correspond: the one home of both names."""

    def dense(layer: layers.Dense, *names: str) -> list[Weight]:
        kernel = Weight(layer.kernel, tuple(f"{name}.weight" for name in names), transposed=True)
        return [kernel, Weight(layer.bias, tuple(f"{name}.bias" for name in names))]

    def norm(layer: layers.LayerNormalization, name: str) -> list[Weight]:
        return [Weight(layer.gamma, (f"{name}.weight",)), Weight(layer.beta, (f"{name}.bias",))]

    weights = [
        Weight(model.word_embeddings.embeddings, ("bert.embeddings.word_embeddings.weight",)),
        Weight(model.position_embeddings.embeddings, ("bert.embeddings.position_embeddings.weight",)),
        Weight(model.token_type_embeddings.embeddings, ("bert.embeddings.token_type_embeddings.weight",)),
        *norm(model.embeddings_norm, "bert.embeddings.LayerNorm"),
    ]
    for number, layer in enumerate(model.encoder_layers):
        name = f"bert.encoder.layer.{number}"
        weights += dense(layer.attention, *(f"{name}.attention.self.{part}" for part in ("query", "key", "value")))
        weights += dense(layer.attention_output, f"{name}.attention.output.dense")
        weights += norm(layer.attention_norm, f"{name}.attention.output.LayerNorm")
        weights += dense(layer.intermediate, f"{name}.intermediate.dense")
        weights += dense(layer.output_dense, f"{name}.output.dense")
        weights += norm(layer.output_norm, f"{name}.output.LayerNorm")
    weights += dense(model.transform, "cls.predictions.transform.dense")
    weights += norm(model.transform_norm, "cls.predictions.transform.LayerNorm")
    return [*weights, Weight(model.decoder_bias, ("cls.predictions.bias",))]


@dataclass(frozen=True)
class CheckpointReport:
    """What `read_checkpoint` did not find, and what it found and left."""

    missing: tuple[str, ...]  # tensors of the head, which stays as it was
    unused: tuple[str, ...]  # tensors of other heads than that for words, by the names that they have there
    heads: int | None = None  # that the weights look as if they had, where the config says another number


def read_checkpoint(model: BertMaskedLM, path: str | Path) -> CheckpointReport:
    """Read the weights of a HuggingFace BERT into a model, all or, on an error, none; halves become float32.

    Args:
        model: to be filled.
        path: a folder with `model.safetensors`, whole or in shards, or such a file.

    Raises:
        RemaskError: no checkpoint there, or a damaged one; a tensor of the encoder that is missing, one that the model
            has no place for, any of another shape or with values that are no finite numbers, or a decoder that is not
            tied to the word embeddings.
    """
    with opened(path) as (stored, twice):
        for tensor in twice:
            _check_equal(tensor, stored[today(tensor.name)], path, "they are one tensor by its old and its new name")
        _untie(stored, path)
        weights = table(model)
        missing = _check(weights, stored, path)
        _check_values([stored[name] for weight in weights for name in weight.names if name in stored], model)
        for weight in weights:
            if missing.isdisjoint(weight.names):
                weight.assign(stored.pop(name).read() for name in weight.names)
    left = sorted(tensor.name for tensor in (*twice, *stored.values()))
    given, found = model.config.num_attention_heads, heads.seen(_norms(model), given=model.config.num_attention_heads)
    return CheckpointReport(tuple(sorted(missing)), tuple(left), found if found != given else None)


def write_checkpoint(model: BertMaskedLM, folder: str | Path) -> None:
    """Write `config.json` and `model.safetensors` as transformers would; the same weights give the same bytes.

    Raises:
        RemaskError: the folder cannot be written.
    """
    config = json.dumps(huggingface_config(model.config), indent=2, sort_keys=True) + "\n"
    storage.write_bytes(storage.join(str(folder), "config.json"), config.encode())
    tensors = {name: tensor for weight in table(model) for name, tensor in weight.tensors().items()}
    content = safetensors.numpy.save(tensors, metadata={"format": "pt"})
    storage.write_bytes(storage.join(str(folder), WEIGHTS), content)


def huggingface_config(config: ModelConfig) -> dict[str, Any]:
    """Return the `config.json` from which `AutoModelForMaskedLM` makes the same model.

    >>> config = ModelConfig(vocab_size=30522, num_hidden_layers=4, cls_token_id=101)
    >>> ModelConfig.from_huggingface(huggingface_config(config), cls_token_id=101) == config
    True
    """
    shape = asdict(config)
    del shape["cls_token_id"]  # belongs to the tokenizer
    return {
        "architectures": ["BertForMaskedLM"],
        "dtype": "float32",
        "hidden_act": "gelu",
        "model_type": "bert",
        "pad_token_id": PAD_ID,
        "position_embedding_type": "absolute",
        "tie_word_embeddings": True,
        **shape,
    }


def _untie(stored: dict[str, Stored], path: str | Path) -> None:
    """Leave each tied tensor under its first name only."""
    for second, first in TIED.items():
        if second in stored:
            tensor = stored.pop(second)
            _check_equal(
                tensor,
                stored.setdefault(first, tensor),
                path,
                "in this model the decoder is tied to the word embeddings",
            )


def _check_equal(tensor: Stored, other: Stored, path: str | Path, reason: str) -> None:
    if not np.array_equal(tensor.read(), other.read(), equal_nan=True):
        raise RemaskError(f"{path}: {tensor.name} differs from {other.name}, expected equal: {reason}")


def _check(weights: list[Weight], stored: Mapping[str, Stored], path: str | Path) -> set[str]:
    """Return the names of the head that are missing; refuse whatever else does not fit."""
    expected = {name: list(weight.shape) for weight in weights for name in weight.names}
    lost = [f"{name} {shape}" for name, shape in expected.items() if name not in stored and not name.startswith(HEAD)]
    if lost:
        others = [tensor.name for name, tensor in stored.items() if name not in expected]
        raise RemaskError(
            f"{path}: {len(lost)} tensors of the encoder are missing:{_listed(lost)}\n"
            f"Found and not expected:{_listed(others)}\nIs its config.json that of another model?"
        )
    unfit = [
        f"{stored[name].name}: expected {shape} of floats, found {list(stored[name].shape)} of {stored[name].dtype}"
        for name, shape in expected.items()
        if name in stored and (list(stored[name].shape) != shape or stored[name].dtype not in FLOATS)
    ]
    if unfit:
        raise RemaskError(
            f"{path}: {len(unfit)} tensors do not fit the model:{_listed(unfit)}\n"
            f"Is its config.json that of another model?"
        )
    more = [tensor.name for name, tensor in stored.items() if name not in expected and name.startswith((ENCODER, HEAD))]
    if more:
        layers, said = (
            len({found[1] for name in names if (found := _LAYER.match(name))}) for names in (stored, expected)
        )
        raise RemaskError(
            f"{path}: {len(more)} tensors of the encoder or the head have no place in the model:{_listed(more)}\n"
            f"It would compute something else without them. The checkpoint has {layers} layers, its config.json "
            f"says num_hidden_layers {said}. Is that of another model?"
        )
    return {name for name in expected if name not in stored}


def _norms(model: BertMaskedLM) -> NDArray[np.float64]:
    """Return the lengths of the rows of all query, key and value matrices, `[3 x layers, hidden_size]`."""
    kernels = (np.asarray(layer.attention.kernel, np.float64) for layer in model.encoder_layers)  # [H, 3 x H] each
    lengths = np.concatenate([np.linalg.norm(kernel, axis=0) for kernel in kernels])
    return np.maximum(lengths.reshape(-1, model.config.hidden_size), np.finfo(np.float64).tiny)


def _check_values(tensors: Iterable[Stored], model: BertMaskedLM) -> None:
    """Refuse values with which a model cannot reckon, before any is given to it."""
    largest = float(ml_dtypes.finfo(model.compute_dtype).max)
    for tensor in tensors:
        values = tensor.read()
        if not values.size or (values.min() >= -largest and values.max() <= largest):  # which a NaN is not
            continue
        wrong = values[~(np.abs(values) <= largest)]
        raise RemaskError(
            f"{tensor.path}: {tensor.name} has {wrong.size:,} of {values.size:,} values that are no finite numbers in "
            f"{model.compute_dtype}, {np.isnan(wrong).sum():,} of them NaN; stored as {tensor.dtype}. The weights "
            f"are broken: take an earlier checkpoint of that model, or copy it again"
        )


def _listed(lines: list[str]) -> str:
    """Return the first few lines, each on one of its own, and how many more there are."""
    more = [f".. and {len(lines) - 6} more"] if len(lines) > 6 else []
    return "".join(f"\n  {line}" for line in [*lines[:6], *more]) or " nothing"
