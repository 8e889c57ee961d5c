"""How fast a device takes steps: what all contenders on a GPU are measured by.

A device is given steps ahead of what it has done, so a clock says something only where it is waited for. It is, at both
ends of a window of several steps; within a window nothing waits, as in training. What counts is the median of windows.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.turns import Found

WARM_UP = 3
"""Steps before those that are timed, after the first one, which compiles."""

WINDOWS = 5

NEAR = 1.5
"""How far the first loss may be from that of a model that knows nothing, in nats."""


def timed(
    step: Callable[[int], Any],
    loss_of: Callable[[Any], float],
    *,
    tokens: Sequence[int],
    sequences: int,
    vocab_size: int,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Found:
    """Take steps, and return how long they took.

    Args:
        step: begins step i, on batch i % len(tokens), and returns something of it.
        loss_of: waits for that step, and with it for all before, and returns its loss, in nats.
        tokens: of each batch that are no padding.
        sequences: of a batch.
        vocab_size: words among which the model chooses.
        seconds: to measure for, about; at least a step a window.
        clock: gives the time in seconds.

    Returns:
        `first_step_seconds`, `first_loss`, `loss` and `windows`: steps, sequences, tokens and seconds of each.

    Raises:
        ValueError: the losses are not those of a model that learns from random weights: it did something else.
    """
    began = clock()
    first_loss = loss_of(step(0))
    first = clock() - began
    for number in range(1, 1 + WARM_UP):
        last = step(number)
    loss_of(last)
    number = 1 + WARM_UP
    began = clock()
    loss_of(step(number))
    number += 1
    steps = max(1, round(seconds / WINDOWS / (clock() - began)))
    windows = []
    for _ in range(WINDOWS):
        began = clock()
        for offset in range(steps):
            last = step(number + offset)
        loss = loss_of(last)
        took = clock() - began
        real = sum(tokens[(number + offset) % len(tokens)] for offset in range(steps))
        windows.append({"steps": steps, "sequences": steps * sequences, "tokens": real, "seconds": took})
        number += steps
    nothing = math.log(vocab_size)
    if not (abs(first_loss - nothing) < NEAR and 0 <= loss < nothing + NEAR):
        raise ValueError(
            f"the loss goes from {first_loss:.4f} to {loss:.4f}, expected {nothing:.2f} at first, and then no more: "
            f"it does not train"
        )
    return {"first_step_seconds": first, "first_loss": first_loss, "loss": loss, "windows": windows}


def tokens_of(batches: Sequence[dict[str, Any]]) -> list[int]:
    """Return how many ids of each batch are no padding.

    >>> tokens_of([{"input_ids": np.array([[5, 6, 0], [5, 0, 0]])}])
    [3]
    """
    return [int(np.count_nonzero(batch["input_ids"])) for batch in batches]
