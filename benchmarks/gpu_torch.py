"""transformers' BertForMaskedLM on one device, trained as people do, and how fast the device multiplies at best.

Scaled dot-product attention, bfloat16 by autocast, fused AdamW, the gradient clipped. Its own loss scores every
position, masked or not; the other way, its encoder and its head are called in turn, and the head sees the masked places
alone. In packed rows the texts see each other, as they do in its own examples, which run texts together for training.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

import numpy as np

from benchmarks import gpu_batches, gpu_timing
from benchmarks.contender import peak_bytes, versions
from benchmarks.step import CLIP_NORM, EPSILON, LEARNING_RATE, WEIGHT_DECAY
from benchmarks.turns import Found, Prepared
from trainer.config import ModelConfig

IGNORED = -100
"""The label of a place that is not to be scored."""


def transformers(
    *,
    config: Mapping[str, Any],
    batches: str,
    length: int,
    rows: Sequence[str],
    sequences: int,
    device: str,
    seconds: float,
    everywhere: bool,
    compiled: bool,
    dtype: str = "mixed_bfloat16",
    weights: str = "",
) -> Prepared:
    """Train by PyTorch, `compiled` by `torch.compile`; one figure for each kind of rows.

    The head scores every position where it is `everywhere`. Weights are random, or those of the checkpoint named.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers import BertConfig, BertForMaskedLM

    shape = ModelConfig(**config)
    given = {kind: gpu_batches.read(batches, length=length, rows=kind, sequences=sequences) for kind in rows}
    chosen = BertConfig(**{name: value for name, value in asdict(shape).items() if name != "cls_token_id"})

    def train() -> Iterator[Found]:
        where = _device(device)
        torch.manual_seed(0)
        if weights:
            model = BertForMaskedLM.from_pretrained(weights, attn_implementation="sdpa")
        else:
            model = BertForMaskedLM._from_config(chosen, attn_implementation="sdpa")
        if model.config._attn_implementation != "sdpa":
            raise RuntimeError(f"attention is {model.config._attn_implementation}, expected sdpa")
        model = model.to(where).train()
        named = [(parameter.ndim > 1, parameter) for parameter in model.parameters()]
        decaying, spared = ([parameter for decays, parameter in named if decays is wanted] for wanted in (True, False))
        optimizer = torch.optim.AdamW(
            [{"params": decaying, "weight_decay": WEIGHT_DECAY}, {"params": spared, "weight_decay": 0.0}],
            lr=LEARNING_RATE,
            eps=EPSILON,
            fused=True,
        )
        forward = _everywhere(model) if everywhere else _masked(model)
        forward = torch.compile(forward, dynamic=False) if compiled else forward
        for kind in rows:
            held = [
                {name: torch.from_numpy(array).to(where) for name, array in inputs(batch, everywhere).items()}
                for batch in given[kind]
            ]
            if where.type == "cuda":
                torch.cuda.reset_peak_memory_stats()

            def step(number: int) -> torch.Tensor:
                with torch.autocast(where.type, torch.bfloat16, enabled=dtype != "float32"):
                    loss = forward(**held[number % len(held)])  # noqa: B023
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                return loss.detach()

            found = gpu_timing.timed(
                step,
                float,  # which waits for the device
                tokens=gpu_timing.tokens_of(given[kind]),
                sequences=sequences,
                vocab_size=shape.vocab_size,
                seconds=seconds,
            )
            peak = torch.cuda.max_memory_allocated() if where.type == "cuda" else peak_bytes()
            yield {**found, "peak_bytes": peak, "rows": kind, "device": _name(where), "versions": versions()}

    return train


def inputs(batch: Mapping[str, Any], everywhere: bool) -> dict[str, Any]:
    """Return a batch as the model takes it, int64 throughout.

    >>> batch = {"input_ids": np.array([[1, 9, 2, 0]]), "masked_lm_positions": np.array([[1, 0]]),
    ...          "masked_lm_ids": np.array([[7, 0]]), "masked_lm_weights": np.array([[1.0, 0.0]])}
    >>> inputs(batch, True)["labels"].tolist(), inputs(batch, False)["labels"].tolist()
    ([[-100, 7, -100, -100]], [[7, -100]])
    """
    ids, used = batch["input_ids"], batch["masked_lm_weights"] > 0
    taken = {"input_ids": np.int64(ids), "attention_mask": np.int64(ids > 0)}
    if not everywhere:
        labels = np.where(used, np.int64(batch["masked_lm_ids"]), IGNORED)
        return {**taken, "labels": labels, "positions": np.int64(batch["masked_lm_positions"])}
    labels = np.full(ids.shape, IGNORED, np.int64)
    row, place = np.nonzero(used)
    labels[row, batch["masked_lm_positions"][row, place]] = batch["masked_lm_ids"][row, place]
    return {**taken, "labels": labels}


def ceiling(*, device: str, seconds: float, size: int) -> Prepared:
    """Multiply two square matrices of random bfloat16s, over and over: what a device can do at most, as it is."""
    import torch

    def multiply() -> Iterator[Found]:
        where = _device(device)
        left, right = (torch.randn(size, size, device=where, dtype=torch.bfloat16) for _ in range(2))
        product = left @ right

        def run(times: int) -> float:
            began = time.perf_counter()
            for _ in range(times):
                torch.matmul(left, right, out=product)
            float(product[0, 0])  # which waits for the device
            return time.perf_counter() - began

        run(3)
        times = max(1, round(seconds / gpu_timing.WINDOWS / (run(10) / 10)))
        took = median(run(times) for _ in range(gpu_timing.WINDOWS))
        yield {"flops": 2 * size**3 * times / took, "size": size, "device": _name(where), "versions": versions()}

    return multiply


def _everywhere(model: Any) -> Any:
    """Return the model as a function to its own loss; a module of its own, so that both ways are called alike."""
    import torch

    class Everywhere(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, **batch: torch.Tensor) -> torch.Tensor:
            return self.model(**batch).loss

    return Everywhere()


def _masked(model: Any) -> Any:
    """Return the loss at the masked places, `positions` int64 [B, P], whose hidden states alone go to the head."""
    import torch

    class Masked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(
            self,
            input_ids: torch.Tensor,
            attention_mask: torch.Tensor,
            labels: torch.Tensor,
            positions: torch.Tensor,
        ) -> torch.Tensor:
            hidden = self.model.bert(input_ids=input_ids, attention_mask=attention_mask)[0]  # [B, L, H]
            picked = torch.gather(hidden, 1, positions[..., None].expand(-1, -1, hidden.shape[-1]))  # [B, P, H]
            logits = self.model.cls(picked)  # [B, P, V]
            return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)

    return Masked()


def _device(device: str) -> Any:
    """Return the device of PyTorch's that is meant.

    Raises:
        RuntimeError: it is not there.
    """
    import torch

    if device == "gpu" and not torch.cuda.is_available():
        raise RuntimeError("PyTorch found no gpu")
    return torch.device("cuda" if device == "gpu" else "cpu")


def _name(where: Any) -> str:
    import torch

    return torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu"
