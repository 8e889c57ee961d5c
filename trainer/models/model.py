"""BERT for masked language modelling, in `keras.ops` alone, so that the one file runs on TensorFlow and on JAX.

The model of Devlin et al. 2018 (arXiv:1810.04805): post-layer-norm, exact gelu, learned positions, a decoder tied to
the word embeddings; every layer is named after its HuggingFace counterpart. Two things are ours. The head sees only the
masked positions, a seventh of them all. And a sequence may hold several segments `[CLS] .. [SEP]`, which never see each
other: what a segment gives does not depend on what it is packed with.

Shapes in the comments: B sequences of L ids, P masked positions, V words, width H = N heads of D.
"""

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import layers, ops

from trainer.config import ModelConfig

Tensor = Any  # of whichever backend Keras runs on

NEVER = -1e9
"""Added to a score, makes its softmax zero in float32; being finite, it makes no NaN."""


class BertMaskedLM(keras.Model):
    """Scores every word of the vocabulary at the masked positions of a batch.

    All weights exist once it is constructed, so construct it in the scope of the strategy.

    Args:
        config: the shape of the model.
        seed: of the initial weights.
        dtype: "float32" or "mixed_bfloat16"; softmax and layer norm are in float32 in either.
    """

    def __init__(self, config: ModelConfig, *, seed: int, dtype: str = "float32") -> None:
        super().__init__(name="bert_masked_lm", dtype=dtype)
        self.config = config
        seeds = random.Random(seed)

        def normal() -> keras.initializers.Initializer:
            """Return the next matrix's initializer: a seed of its own for each, in the order of construction."""
            return keras.initializers.TruncatedNormal(stddev=config.initializer_range, seed=seeds.getrandbits(31))

        def embedding(rows: int, name: str) -> layers.Embedding:
            return layers.Embedding(rows, config.hidden_size, embeddings_initializer=normal(), name=name, dtype=dtype)

        self.word_embeddings = embedding(config.vocab_size, "word_embeddings")
        self.position_embeddings = embedding(config.max_position_embeddings, "position_embeddings")
        self.token_type_embeddings = embedding(config.type_vocab_size, "token_type_embeddings")
        self.embeddings_norm = _layer_norm(config, "embeddings_LayerNorm", dtype)
        self.encoder_layers = [
            EncoderLayer(config, normal, name=f"encoder_layer_{number}", dtype=dtype)
            for number in range(config.num_hidden_layers)
        ]
        self.transform = layers.Dense(
            config.hidden_size, kernel_initializer=normal(), name="transform_dense", dtype=dtype
        )
        self.transform_norm = _layer_norm(config, "transform_LayerNorm", dtype)
        self.build()

    def build(self, input_shape: Any = None) -> None:
        """Create all weights; their shapes depend on the config alone."""
        for layer in (self.word_embeddings, self.position_embeddings, self.token_type_embeddings):
            layer.build((None, None))
        for layer in (self.embeddings_norm, *self.encoder_layers, self.transform, self.transform_norm):
            layer.build((None, None, self.config.hidden_size))
        self.decoder_bias = self.add_weight(shape=(self.config.vocab_size,), initializer="zeros", name="decoder_bias")
        self.built = True

    def call(self, inputs: dict[str, Tensor], training: bool = False, seed: Tensor | None = None) -> Tensor:
        """Return the logits, `[B, P, V]` in the compute dtype: cast them to float32 before a softmax.

        Args:
            inputs: `input_ids` int32 [B, L] and `masked_lm_positions` int32 [B, P].
            training: whether to drop values out.
            seed: int32 [2], different in each step and on each replica; all masks of dropout follow from it.

        Raises:
            ValueError: `training` with a positive rate of dropout and no `seed`; L beyond the position embeddings.
        """
        hidden = self.encode(inputs["input_ids"], training=training, seed=seed)  # [B, L, H]
        return self.decode(_pick(hidden, inputs["masked_lm_positions"]))  # [B, P, V]

    def encode(self, input_ids: Tensor, *, training: bool = False, seed: Tensor | None = None) -> Tensor:
        """Return the hidden states of `input_ids` [B, L], `[B, L, H]`; those at padding mean nothing.

        Arguments and errors are those of `call`.
        """
        length, longest = input_ids.shape[1], self.config.max_position_embeddings
        if length > longest:
            raise ValueError(f"input_ids is {length} long, the model has {longest} position embeddings")
        seeds = self._dropout_seeds(training, seed)
        segment_ids, positions = segments(input_ids, cls_token_id=self.config.cls_token_id)  # [B, L] each
        together = ops.equal(segment_ids[:, None, :, None], segment_ids[:, None, None, :])  # [B, 1, L, L]
        x = self.word_embeddings(input_ids)  # [B, L, H]
        x = x + _pick(ops.cast(self.position_embeddings.embeddings[:length], x.dtype), positions)  # [B, L, H]
        x = x + ops.cast(self.token_type_embeddings.embeddings[0], x.dtype)  # segments are no pairs: type 0 throughout
        x = dropout(layer_norm(self.embeddings_norm, x), self.config.hidden_dropout_prob, seed=seeds[0])
        for number, layer in enumerate(self.encoder_layers):
            x = layer(x, together, seeds=seeds[1 + 3 * number : 4 + 3 * number])  # [B, L, H]
        return x

    def decode(self, hidden: Tensor) -> Tensor:
        """Return the logits `[B, P, V]` of hidden states `[B, P, H]`."""
        x = layer_norm(self.transform_norm, gelu(self.transform(hidden)))  # [B, P, H]
        words = ops.transpose(ops.cast(self.word_embeddings.embeddings, x.dtype))  # [H, V]
        return ops.matmul(x, words) + ops.cast(self.decoder_bias, x.dtype)  # [B, P, V]

    def _dropout_seeds(self, training: bool, seed: Tensor | None) -> list[Tensor | None]:
        """Return the seed, [2], of each site of dropout: the embeddings, then three a layer. None drops nothing."""
        sites = 1 + 3 * len(self.encoder_layers)
        if not training or not (self.config.hidden_dropout_prob or self.config.attention_probs_dropout_prob):
            return [None] * sites
        if seed is None:
            raise ValueError("training with dropout needs a seed: int32 [2], another in each step and on each replica")
        drawn = keras.random.randint((sites, 2), -(2**31), 2**31 - 1, dtype="int32", seed=_GivenSeed(seed))
        return ops.unstack(drawn, sites)


class EncoderLayer(layers.Layer):
    """Lets the ids of a segment see each other, then each think for itself. `[B, L, H]` in and out."""

    def __init__(
        self, config: ModelConfig, normal: Callable[[], keras.initializers.Initializer], *, name: str, dtype: str
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.config = config

        def dense(width: int, name: str) -> layers.Dense:
            return layers.Dense(width, kernel_initializer=normal(), name=name, dtype=dtype)

        self.attention = dense(3 * config.hidden_size, "attention_query_key_value")
        self.attention_output = dense(config.hidden_size, "attention_output_dense")
        self.attention_norm = _layer_norm(config, "attention_output_LayerNorm", dtype)
        self.intermediate = dense(config.intermediate_size, "intermediate_dense")
        self.output_dense = dense(config.hidden_size, "output_dense")
        self.output_norm = _layer_norm(config, "output_LayerNorm", dtype)

    def build(self, input_shape: Any) -> None:
        """Create the weights of all six layers."""
        for layer in (self.attention, self.attention_output, self.attention_norm, self.intermediate, self.output_norm):
            layer.build(input_shape)
        self.output_dense.build((None, None, self.config.intermediate_size))
        self.built = True

    def call(self, x: Tensor, together: Tensor, *, seeds: Sequence[Tensor | None]) -> Tensor:
        """Return the next hidden states; `together` [B, 1, L, L] says who sees whom, `seeds` are three, for dropout."""
        attention_seed, context_seed, output_seed = seeds
        rate = self.config.hidden_dropout_prob
        context = self.attention_output(self._attend(x, together, attention_seed))  # [B, L, H]
        x = layer_norm(self.attention_norm, x + dropout(context, rate, seed=context_seed))  # [B, L, H]
        inner = gelu(self.intermediate(x))  # [B, L, intermediate_size]
        return layer_norm(self.output_norm, x + dropout(self.output_dense(inner), rate, seed=output_seed))  # [B, L, H]

    def _attend(self, x: Tensor, together: Tensor, seed: Tensor | None) -> Tensor:
        length, width, heads = x.shape[1], self.config.hidden_size, self.config.num_attention_heads
        kernel, bias = (ops.cast(part, x.dtype) for part in (self.attention.kernel, self.attention.bias))
        # The weights are taken apart, not what they give: that is larger, and copying it is a 20th of a TPU's step.
        query, key, value = (
            ops.reshape(ops.matmul(x, columns) + offset, (-1, length, heads, width // heads))  # [B, L, N, D]
            for columns, offset in zip(ops.split(kernel, 3, axis=-1), ops.split(bias, 3), strict=True)
        )
        scores = ops.einsum("blnd,bmnd->bnlm", query * (width // heads) ** -0.5, key)  # [B, N, L, L]
        weights = softmax(scores, ops.where(together, 0.0, NEVER))  # [B, N, L, L]
        weights = dropout(weights, self.config.attention_probs_dropout_prob, seed=seed)
        context = ops.einsum("bnlm,bmnd->blnd", weights, value)  # [B, L, N, D]
        return ops.reshape(context, (-1, length, width))  # [B, L, H]


def segments(input_ids: Tensor, *, cls_token_id: int) -> tuple[Tensor, Tensor]:
    r"""Return the segment and the position of each id, int32 [B, L] both, from the ids alone.

    A segment is the running count of [CLS], and padding (id 0) is segment 0; positions begin anew in each.

    >>> segment_ids, positions = segments([[101, 7, 102, 101, 8, 9, 102, 0, 0]], cls_token_id=101)
    >>> print(ops.convert_to_numpy(segment_ids), ops.convert_to_numpy(positions), sep="\n")
    [[1 1 1 2 2 2 2 0 0]]
    [[0 1 2 0 1 2 3 0 1]]
    """
    ids = ops.convert_to_tensor(input_ids, "int32")  # [B, L]
    count = ops.cumsum(ops.cast(ops.equal(ids, cls_token_id), "int32"), axis=1)  # [B, L]
    segment_ids = ops.where(ops.equal(ids, 0), 0, count)  # [B, L]
    together = ops.cast(ops.equal(segment_ids[:, :, None], segment_ids[:, None, :]), "int32")  # [B, L, L]
    return segment_ids, ops.sum(ops.tril(together, -1), axis=-1)  # a position is how many came before in the segment


def _pick(rows: Tensor, indices: Tensor) -> Tensor:
    """Return the rows, of [B, L, H] or [L, H], that `indices` [B, P] name: `[B, P, H]`.

    A product with 0 and 1 is exact where factors are not rounded first, as GPUs (TF32) and TPUs (bfloat16) do with
    every product of float32s. Its gradient is a product again: that of a gather is a scatter, slow on accelerators; in
    TensorFlow it is sparse, too, and Keras's Adam squares the parts of a row before it adds them.
    """
    return ops.matmul(ops.one_hot(indices, rows.shape[-2], dtype=rows.dtype), rows)


def dropout(x: Tensor, rate: float, *, seed: Tensor | None) -> Tensor:
    """Zero each value of `x` with probability `rate` and scale the rest to the same mean; None drops nothing.

    Keras's own layer draws from a generator whose state is mirrored, so that all replicas drop the same values. And its
    `random.dropout` reckons in the dtype of `x`: in bfloat16 a rate of 0.1 becomes 13/128, and the mean shrinks.

    >>> sorted(set(ops.convert_to_numpy(dropout(ops.ones((8, 8)), 0.5, seed=[1, 2])).ravel().tolist()))
    [0.0, 2.0]
    """
    if seed is None or not rate:
        return x
    kept = keras.random.uniform(ops.shape(x), dtype="float32", seed=_GivenSeed(seed)) >= rate
    return ops.where(kept, ops.cast(ops.cast(x, "float32") / (1 - rate), x.dtype), ops.zeros_like(x))


def softmax(scores: Tensor, bias: Tensor) -> Tensor:
    """Return the softmax of `scores + bias` over the last axis, computed in float32, in the dtype of the scores.

    The gradient is spelled out, so that the weights are kept for it in that dtype, and not also in float32.
    """

    @ops.custom_gradient
    def of(scores: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        weights = ops.cast(ops.softmax(ops.cast(scores, "float32") + bias, axis=-1), scores.dtype)

        def gradient(upstream: Tensor) -> Tensor:
            wide = ops.cast(weights, "float32")
            share = wide * ops.cast(upstream, "float32")
            return ops.cast(share - wide * ops.sum(share, axis=-1, keepdims=True), scores.dtype)

        return weights, gradient

    return of(scores)


@ops.custom_gradient
def gelu(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return x times the share of the normal distribution that lies below x: the exact gelu, computed in float32.

    Its slope is computed with it and is all that is kept for the gradient: one value for each of `x`, not four. (A call
    gives the first of what is returned below; the second is for whoever differentiates.)

    >>> print(ops.convert_to_numpy(gelu(ops.array([-1.0, 0.0, 1.0]))).round(4))
    [-0.1587  0.      0.8413]
    """
    wide = ops.cast(x, "float32")
    below = 0.5 * (1.0 + ops.erf(wide * 0.5**0.5))
    density = ops.exp(-0.5 * wide * wide) * (2 * math.pi) ** -0.5
    slope = ops.cast(below + wide * density, x.dtype)
    return ops.cast(wide * below, x.dtype), lambda upstream: upstream * slope


def layer_norm(layer: layers.LayerNormalization, x: Tensor) -> Tensor:
    """Return what the layer makes of `x` [.., H], computed in float32.

    The gradient is spelled out, as the papers give it: the normed values are all that is kept for it, where the layer's
    own keeps every step on the way to them.
    """

    @ops.custom_gradient
    def norm(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        centred = x - ops.mean(x, axis=-1, keepdims=True)  # [.., H]
        scale = ops.rsqrt(ops.mean(ops.square(centred), axis=-1, keepdims=True) + layer.epsilon)  # [.., 1]
        normed = centred * scale  # [.., H]

        def gradient(upstream: Tensor) -> Tensor:
            along = normed * ops.mean(upstream * normed, axis=-1, keepdims=True)  # [.., H]
            return (upstream - ops.mean(upstream, axis=-1, keepdims=True) - along) * scale

        return normed, gradient

    return ops.cast(norm(ops.cast(x, "float32")) * layer.gamma + layer.beta, x.dtype)


class _GivenSeed(keras.random.SeedGenerator):
    """A seed that is a tensor, which `keras.random` takes only from a generator. Without state, so pure."""

    def __init__(self, seed: Tensor) -> None:
        # JAX's keys are uint32; TensorFlow's seeds int32, which Keras would fold others into.
        self.seed = ops.cast(seed, "uint32" if keras.backend.backend() == "jax" else "int32")

    def next(self, ordered: bool = True) -> Tensor:
        return self.seed


def _layer_norm(config: ModelConfig, name: str, dtype: str) -> layers.LayerNormalization:
    return layers.LayerNormalization(epsilon=config.layer_norm_eps, name=name, dtype=dtype)
