"""Our step of training on one device, by way of Keras's JAX backend: the model and the loss are those of `trainer`.

The arithmetic is that of `trainer.engines.step`: dropout, the gradient summed, divided by the masked tokens, clipped at
a norm, and AdamW as BERT has it, its epsilon added before the bias is corrected. It is one compiled program.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import gpu_batches, gpu_timing
from benchmarks.contender import peak_bytes, versions
from benchmarks.step import CLIP_NORM, EPSILON, LEARNING_RATE, WEIGHT_DECAY
from benchmarks.turns import Found, Prepared
from trainer.config import ModelConfig

State = Sequence[Any]
Step = Callable[[State, State, dict[str, Any], Any], tuple[State, State, Any]]


def remask(
    *,
    config: Mapping[str, Any],
    batches: str,
    length: int,
    rows: Sequence[str],
    sequences: int,
    device: str,
    seconds: float,
    dtype: str = "mixed_bfloat16",
    weights: str = "",
) -> Prepared:
    """Train by JAX; one figure for each kind of rows, which share the compiled step, their shapes being the same.

    Weights are random, or those of the checkpoint named.
    """
    os.environ["KERAS_BACKEND"] = "jax"  # before Keras is imported
    import jax

    from trainer.models.model import BertMaskedLM

    shape = ModelConfig(**config)
    given = {kind: gpu_batches.read(batches, length=length, rows=kind, sequences=sequences) for kind in rows}

    def train() -> Iterator[Found]:
        chosen = jax.devices()[0]
        if chosen.platform != device:
            raise RuntimeError(f"JAX found no {device}: it has {chosen.platform}")
        model = BertMaskedLM(shape, seed=0, dtype=dtype)
        if weights:
            from trainer.models.bridge import read_checkpoint

            read_checkpoint(model, weights)
        compiled, state = make_step(model)
        values: State = [variable.value for variable in model.trainable_variables]
        for kind in rows:
            held = [jax.device_put(batch) for batch in given[kind]]

            def step(number: int) -> Any:
                nonlocal values, state
                values, state, loss = compiled(values, state, held[number % len(held)], np.int32(number))  # noqa: B023
                return loss

            found = gpu_timing.timed(
                step,
                float,
                tokens=gpu_timing.tokens_of(given[kind]),
                sequences=sequences,
                vocab_size=shape.vocab_size,
                seconds=seconds,
            )
            statistics = chosen.memory_stats() or {}
            memory = {"peak_bytes": statistics.get("peak_bytes_in_use") or peak_bytes()}
            yield {**found, **memory, "rows": kind, "device": chosen.device_kind, "versions": versions()}

    return train


def make_step(model: Any) -> tuple[Step, State]:
    """Return the compiled step, (weights, state, batch, number) -> (weights, state, loss), and the optimizer's state.

    Weights and state are donated: the next ones take their place in memory.
    """
    import jax
    import keras
    from jax import numpy as jnp

    from trainer.models.loss import cross_entropy

    optimizer = keras.optimizers.AdamW(LEARNING_RATE, weight_decay=WEIGHT_DECAY, epsilon=EPSILON)
    optimizer.exclude_from_weight_decay(
        var_list=[variable for variable in model.trainable_variables if len(variable.shape) < 2]
    )
    optimizer.build(model.trainable_variables)

    def loss_of(weights: State, batch: dict[str, Any], seed: Any) -> Any:
        logits, _ = model.stateless_call(weights, [], batch, training=True, seed=seed)
        return cross_entropy(logits, batch["masked_lm_ids"], batch["masked_lm_weights"])

    def step(weights: State, state: State, batch: dict[str, Any], number: Any) -> tuple[State, State, Any]:
        loss, gradients = jax.value_and_grad(loss_of)(weights, batch, jnp.stack([jnp.int32(0), number]))
        masked = jnp.maximum(jnp.sum(batch["masked_lm_weights"]), 1.0)
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(gradient)) for gradient in gradients)) / masked
        scale = jnp.minimum(1.0, CLIP_NORM / norm) / masked
        weights, state = optimizer.stateless_apply(state, [gradient * scale for gradient in gradients], weights)
        return weights, state, loss / masked

    return jax.jit(step, donate_argnums=(0, 1)), [variable.value for variable in optimizer.variables]
