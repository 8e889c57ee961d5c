"""Steps of training on one GPU, by way of Keras's JAX backend: `python -m benchmarks step-gpu`.

It needs neither TensorFlow, nor data, nor a network: `benchmarks/gpu.txt` is all there is to install. The model and the
loss are those of `trainer`, and the step is what `trainer.step` does: dropout, the gradient summed, divided by the
masked tokens and clipped at a global norm, AdamW.
"""

import os
import re
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np

from benchmarks.config import StepGpuBenchOptions
from benchmarks.flops import FORMULA, train_flops
from benchmarks.step import CLIP_NORM, EPSILON, LEARNING_RATE, WEIGHT_DECAY, WORDS, make_batch
from records.errors import RemaskError
from trainer.config import SCRATCH, ModelConfig

WARM_UP = 3
"""Steps before those that are timed: the first compiles."""

TOKENS = (8192, 32768, 65536)
"""Tokens a step, where no batch size is given."""

PEAKS = {
    r"H200|H100(?!.*PCIe)|GH200": 989e12,
    r"H100.*PCIe": 756e12,
    r"A100": 312e12,
    r"L4\b": 121e12,
}
"""Dense bfloat16 FLOP/s by the name that a device goes by, from NVIDIA's data sheets (half of what they give "with
sparsity")."""

State = Sequence[Any]
Step = Callable[[State, State, dict[str, Any], Any], tuple[State, State, Any]]


def main(options: StepGpuBenchOptions) -> None:
    """Print a line of figures for each length and batch size.

    Raises:
        RemaskError: JAX is not installed.
    """
    os.environ["KERAS_BACKEND"] = "jax"  # before Keras is imported
    try:
        import jax
    except ModuleNotFoundError as error:
        raise RemaskError(
            f"step-gpu: {error}; it needs what benchmarks/gpu.txt names: python3 -m venv .venv-gpu && "
            f".venv-gpu/bin/pip install -r benchmarks/gpu.txt, then make bench-step-gpu PYTHON=.venv-gpu/bin/python"
        ) from error

    device = jax.devices()[0]
    highest = options.peak_tflops * 1e12 or peak(device.device_kind)
    config = ModelConfig(vocab_size=WORDS, **SCRATCH[options.model])
    print(f"{device.device_kind}, {f'{highest / 1e12:,.0f} TFLOP/s' if highest else 'peak unknown: no MFU'}")
    print(f"BERT {options.model}, {options.dtype}, jax {jax.__version__}; {FORMULA}")
    print(
        f"{'length':>6}  {'batch':>6}  {'ms a step':>9}  {'sequences/s':>11}  {'tokens/s':>11}  {'MFU':>6}  {'loss':>7}"
    )
    for length in options.length:
        for sequences in options.batch or [max(1, tokens // length) for tokens in TOKENS]:
            try:
                seconds, loss = _timed(config, options, sequences=sequences, length=length)
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                print(f"{length:>6}  {sequences:>6}  does not fit the device's memory", flush=True)
                continue
            predictions = make_batch("full", sequences=1, length=length)["masked_lm_ids"].shape[1]
            flops = sequences * train_flops(config, length=length, predictions=predictions)
            used = f"{flops / seconds / highest:.1%}" if highest else "-"
            print(
                f"{length:>6}  {sequences:>6}  {seconds * 1e3:>9.1f}  {sequences / seconds:>11,.1f}  "
                f"{sequences * length / seconds:>11,.0f}  {used:>6}  {loss:>7.4f}",
                flush=True,
            )


def peak(device_kind: str) -> float:
    """Return the most dense bfloat16 FLOP/s of a device, 0 where it is not known.

    >>> peak("NVIDIA H200"), peak("NVIDIA H100 PCIe"), peak("NVIDIA L40S"), peak("cpu")
    (989000000000000.0, 756000000000000.0, 0.0, 0.0)
    """
    return next((flops for name, flops in PEAKS.items() if re.search(name, device_kind)), 0.0)


def _timed(config: ModelConfig, options: StepGpuBenchOptions, *, sequences: int, length: int) -> tuple[float, float]:
    """Return the median seconds of a step, and the loss of the last one."""
    import jax

    from trainer.model import BertMaskedLM

    model = BertMaskedLM(config, seed=0, dtype=options.dtype)
    step, state = make_step(model)
    weights: State = [variable.value for variable in model.trainable_variables]
    batch = jax.device_put(make_batch("full", sequences=sequences, length=length))
    seconds, loss = [], None
    for number in range(WARM_UP + options.steps):
        began = time.perf_counter()
        weights, state, loss = step(weights, state, batch, np.int32(number))
        jax.block_until_ready((weights, state, loss))
        seconds.append(time.perf_counter() - began)
    return median(seconds[WARM_UP:]), float(loss)  # type: ignore[arg-type]


def make_step(model: Any) -> tuple[Step, State]:
    """Return the compiled step, (weights, state, batch, number) -> (weights, state, loss), and the optimizer's state.

    Weights and state are donated: the next ones take their place in memory.
    """
    import jax
    import keras
    from jax import numpy as jnp

    from trainer.loss import cross_entropy

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
