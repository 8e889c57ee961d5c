"""The options of training and its neighbours, and the shape of a model. Only the standard library: help is instant."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from records.command_line import option
from records.errors import RemaskError


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a BERT, under the names of HuggingFace's `config.json`.

    Raises:
        RemaskError: a shape that cannot be built, or an architecture that is not the one `trainer.model` implements.
    """

    vocab_size: int
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    cls_token_id: int = 101

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "int" or field.type is int:
                if value < (0 if field.name == "cls_token_id" else 1):
                    raise RemaskError(f"model: {field.name} is {value}, expected a positive number")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not 0 <= getattr(self, name) < 1:
                raise RemaskError(f"model: {name} is {getattr(self, name)}, expected 0 <= {name} < 1")
        if self.hidden_size % self.num_attention_heads:
            raise RemaskError(
                f"model: hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )

    @classmethod
    def from_huggingface(cls, config: Mapping[str, Any], *, cls_token_id: int) -> "ModelConfig":
        """Return the shape that a HuggingFace `config.json` describes.

        Keys that say nothing about shape are left alone; those that would change the arithmetic must have the value
        that `trainer.model` implements.
        """
        expected = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
        for key, value in expected.items():
            if config.get(key, value) != value:
                raise RemaskError(f"model: {key} is {config[key]!r}, expected {value!r}: only BERT itself is implemented")
        if config.get("is_decoder"):
            raise RemaskError("model: is_decoder is true, expected an encoder")
        if "vocab_size" not in config:
            raise RemaskError("model: config.json has no vocab_size, so it does not describe a BERT")
        names = {field.name for field in dataclasses.fields(cls)} - {"cls_token_id"}
        return cls(cls_token_id=cls_token_id, **{name: config[name] for name in names if name in config})
