"""Finds the model that `model` names: a folder, a name on the HuggingFace hub, or a shape with random weights."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from records import storage, typed_json
from records.errors import RemaskError
from records.storage import hub
from records.tokenizer import loading
from records.tokenizer.artifact import TOKENIZER_CONFIG_JSON, TOKENIZER_JSON, VOCAB_TXT, TokenizerArtifact
from trainer.config import SCRATCH, ModelConfig
from trainer.models import bridge, tensors
from trainer.models.tensors import INDEX, WEIGHTS

CONFIG_JSON = "config.json"
_SHAPE = (CONFIG_JSON, TOKENIZER_JSON, TOKENIZER_CONFIG_JSON, VOCAB_TXT)
_OF_WEIGHTS = "model*.safetensors*"
_SCRATCH_FOLDER = "scratch:"


@dataclass(frozen=True)
class Start:
    """Where a model starts from: everything but the weights, which are read only when there is a model to hold them."""

    name: str
    config: ModelConfig
    weights: str  # the folder that holds them; empty for random ones
    tokenizer: TokenizerArtifact


def find(name: str, *, data: TokenizerArtifact | None = None, dropout: float = -1, trained: bool = False) -> Start:
    """Find a model and read its shape, and refuse one that does not fit a data set.

    Args:
        name: a folder, a hub name, one of `SCRATCH`, or `scratch:FOLDER`.
        data: tokenizer of the data set; None to use the model's own, which must then be there.
        dropout: replaces both rates of the config, unless -1.
        trained: whether random weights are of no use, as where a model is measured or used.

    Raises:
        RemaskError: no such model, no weights, a shape that is not BERT's, or another tokenizer than the data's.
    """
    trained = trained or data is None
    if trained and (name in SCRATCH or name.startswith(_SCRATCH_FOLDER)):
        raise RemaskError(f"model: {name} has random weights; give the folder or the hub name of a trained model")
    if name in SCRATCH and data is not None:
        config, weights, own = {**SCRATCH[name], "vocab_size": data.vocab_size}, "", None
    else:
        scratch = name.startswith(_SCRATCH_FOLDER)
        folder = _folder(name.removeprefix(_SCRATCH_FOLDER), weights=not scratch, trained=trained)
        config = _read_config(folder)
        weights = "" if scratch else _with_weights(folder, name, trained=trained)
        own = _own_tokenizer(folder)
    artifact = _fitting_tokenizer(name, own, data)
    shape = ModelConfig.from_huggingface(config, cls_token_id=artifact.cls_id)
    if artifact.vocab_size > shape.vocab_size:
        raise RemaskError(
            f"model {name}: its vocab_size is {shape.vocab_size}, the tokenizer {artifact.name} has ids up to "
            f"{artifact.vocab_size - 1}; make the records with this model's tokenizer, or start from random weights "
            f"(model one of {', '.join(SCRATCH)})"
        )
    if dropout != -1:
        shape = replace(shape, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    return Start(name, shape, weights, artifact)


def _folder(name: str, *, weights: bool, trained: bool) -> str:
    """Return a folder with the model's files, perhaps without its weights; fetch them if `name` is no folder."""
    if os.path.isdir(name) or storage.is_remote(name):
        return name
    if os.path.isfile(name):
        raise RemaskError(f"model {name}: found a file, expected the folder that holds {CONFIG_JSON} and {WEIGHTS}")
    try:
        if not weights:
            return hub.fetch(name, _SHAPE, needs=((CONFIG_JSON,),))
        return hub.fetch(name, (*_SHAPE, _OF_WEIGHTS), needs=((CONFIG_JSON,), (WEIGHTS, INDEX)))
    except RemaskError as error:
        raise RemaskError(
            f"model {name}: {error}. Give a folder with {CONFIG_JSON} and {WEIGHTS}{' or' if trained else ','} a hub "
            f"name such as bert-base-uncased"
            + ("" if trained else f", or one of {', '.join(SCRATCH)} to start from random weights")
        ) from None


def _read_config(folder: str) -> dict[str, Any]:
    path = storage.join(folder, CONFIG_JSON)
    if not storage.exists(path):
        raise RemaskError(f"{folder}: no {CONFIG_JSON}, so this is not the folder of a HuggingFace model")
    return typed_json.parse(storage.read_bytes(path), name=path, advice="copy it again")


def _with_weights(folder: str, name: str, *, trained: bool) -> str:
    if not any(storage.exists(storage.join(folder, file)) for file in (WEIGHTS, INDEX)):
        raise RemaskError(
            f"{folder}: no {WEIGHTS}. "
            + ("" if trained else f"To train this shape from random weights say MODEL={_SCRATCH_FOLDER}{folder}; ")
            + f"{'A' if trained else 'a'} pytorch_model.bin is converted by transformers: "
            f"AutoModelForMaskedLM.from_pretrained(...).save_pretrained(...)"
        )
    files = storage.files(folder)
    if missing := [file for file in map(os.path.basename, tensors.files(folder)) if file not in files]:
        how = "copy them again" if folder == name else f"with a network run {hub.download(name, [_OF_WEIGHTS])}"
        raise RemaskError(f"{folder}: without {', '.join(missing)}, which {INDEX} names; {how}")
    return folder


def _own_tokenizer(folder: str) -> TokenizerArtifact | None:
    if any(storage.exists(storage.join(folder, file)) for file in (TOKENIZER_JSON, VOCAB_TXT)):
        return loading.load(folder)
    return None


def _fitting_tokenizer(name: str, own: TokenizerArtifact | None, data: TokenizerArtifact | None) -> TokenizerArtifact:
    """Return the tokenizer to use: the data's, if the model's own, where it has one, means the same by every id."""
    if data is None:
        if own is None:
            raise RemaskError(
                f"model {name}: neither {TOKENIZER_JSON} nor {VOCAB_TXT} beside the weights; copy the tokenizer there"
            )
        return own
    if own is not None and own.vocabulary != data.vocabulary:
        raise RemaskError(
            f"model {name}: its tokenizer is not the one that made the records ({data.name}): token "
            f"{_first_difference(own.vocabulary, data.vocabulary)}. Make the records with TOKENIZER={name}, or "
            f"start from random weights (model one of {', '.join(SCRATCH)})"
        )
    return data


def _first_difference(own: dict[str, int], data: dict[str, int]) -> str:
    """Return the token of lowest id that differs, and what it is in either.

    >>> _first_difference({"a": 1, "b": 2}, {"a": 1, "b": 3})
    "'b' is id 2 in the model and is id 3 in the records"
    """
    differing = (token for token in own.keys() | data.keys() if own.get(token) != data.get(token))
    token = min(differing, key=lambda each: (own.get(each, data.get(each)), each))
    there, here = (f"is id {ids[token]}" if token in ids else "has no id" for ids in (own, data))
    return f"{token!r} {there} in the model and {here} in the records"


def read_weights(model: Any, start: Start, *, say: Callable[[str], None]) -> None:
    """Read the weights of `start` into a model, and say what was missing or left over.

    Call it in the scope of the strategy that made the model. Random weights are already there.

    Raises:
        RemaskError: a tensor of the encoder is missing, left over, of another shape or no finite numbers.
    """
    if not start.weights:
        say(f"model {start.name}: random weights")
        return
    report = bridge.read_checkpoint(model, start.weights)
    say(f"model {start.name}: weights read")
    if report.missing:
        say(f"  WARNING: not in the checkpoint, so these start from random weights: {', '.join(report.missing)}")
    if report.heads:
        say(
            f"  WARNING: config.json says num_attention_heads {start.config.num_attention_heads}, but the weights look "
            f"as if they had {report.heads}; if what the model says makes no sense, that is why"
        )
    if report.unused:
        say(f"  in the checkpoint, but not used: {', '.join(report.unused)}")
