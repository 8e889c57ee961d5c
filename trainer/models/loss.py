"""The loss of masked language modelling, as sums: what to divide them by, only who sees all replicas knows."""

from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops

Tensor = Any  # of whichever backend Keras runs on


class Sums(NamedTuple):
    """Sums over the masked tokens of some sequences, float32 scalars; those of several batches or replicas add up."""

    loss: Tensor  # cross-entropy, in nats
    weight: Tensor  # how many masked tokens
    correct: Tensor  # of these, ranked first
    top5: Tensor  # of these, ranked among the first five


def cross_entropy(logits: Tensor, masked_lm_ids: Tensor, masked_lm_weights: Tensor) -> Tensor:
    """Return the cross-entropy summed over the masked tokens, a float32 scalar.

    Args:
        logits: `[B, P, V]`, of any float type; the softmax is in float32.
        masked_lm_ids: int32 `[B, P]`, the true tokens.
        masked_lm_weights: float32 `[B, P]`, 1 for a masked token and 0 for an unused place.

    >>> logits = ops.array([[[0.0, 0.0], [9.0, 0.0]]])
    >>> print(f"{cross_entropy(logits, ops.array([[1, 0]]), ops.array([[1.0, 0.0]])):.4f}")  # log 2
    0.6931
    """
    return ops.sum(_nats(logits, masked_lm_ids) * masked_lm_weights)


def _nats(logits: Tensor, ids: Tensor) -> Tensor:
    """Return the cross-entropy at each place, float32 `[B, P]`.

    Values of `[B, P, V]` are the largest of a step, so the gradient is spelled out: the softmax is all that is kept for
    it. (TensorFlow's own operation, which computes both at once, takes 150 ms on a CPU core where this takes 60.)
    """

    @ops.custom_gradient
    def nats(logits: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        wide = ops.cast(logits, "float32")
        shares = ops.softmax(wide, axis=-1)
        # The logarithm of the sum of all exponentials, by way of the largest: its share is no less than 1 / V.
        total = ops.max(wide, axis=-1) - ops.log(ops.max(shares, axis=-1))  # [B, P]
        true = ops.take_along_axis(wide, ids[..., None], axis=-1)[..., 0]  # [B, P]

        def gradient(upstream: Tensor) -> Tensor:
            slope = (shares - ops.one_hot(ids, logits.shape[-1], dtype="float32")) * upstream[..., None]  # [B, P, V]
            return ops.cast(slope, logits.dtype)

        return total - true, gradient

    return nats(logits)


def sums(logits: Tensor, masked_lm_ids: Tensor, masked_lm_weights: Tensor) -> Sums:
    """Return what an evaluation adds up; the arguments are those of `cross_entropy`.

    >>> logits = ops.array([[[0.1, 0.9, 0.5], [0.1, 0.9, 0.5]]])
    >>> found = sums(logits, ops.array([[1, 2]]), ops.array([[1.0, 1.0]]))
    >>> print(found.weight.numpy(), found.correct.numpy(), found.top5.numpy())
    2.0 1.0 2.0
    """
    before = rank(logits, masked_lm_ids)
    return Sums(
        loss=cross_entropy(logits, masked_lm_ids, masked_lm_weights),
        weight=ops.sum(masked_lm_weights),
        correct=ops.sum(ops.where(before < 1, masked_lm_weights, 0.0)),
        top5=ops.sum(ops.where(before < 5, masked_lm_weights, 0.0)),
    )


def rank(logits: Tensor, ids: Tensor) -> Tensor:
    """Return how many tokens stand before the true one, int32 `[B, P]`, in the order in which `top_k` lists them.

    Of equal scores the lower id stands first: without that rule a model that says nothing would be right every time.
    So would one that says NaN, which is above nothing, if each token that is not behind the true one did not count.

    >>> rank(ops.array([[[3.0, 7.0, 3.0]]]), ops.array([[2]])).numpy().tolist()
    [[2]]
    """
    true = ops.take_along_axis(logits, ids[..., None], axis=-1)  # [B, P, 1]
    no_lower = ops.arange(logits.shape[-1], dtype=ids.dtype) >= ids[..., None]  # [B, P, V], the true one included
    behind = (logits < true) | (ops.equal(logits, true) & no_lower)
    return ops.sum(ops.cast(ops.logical_not(behind), "int32"), axis=-1)
