"""The loss of masked language modelling, as sums: what to divide them by, only who sees all replicas knows."""

from typing import NamedTuple

import tensorflow as tf


class Sums(NamedTuple):
    """Sums over the masked tokens of some sequences, float32 scalars; those of several batches or replicas add up."""

    loss: tf.Tensor  # cross-entropy, in nats
    weight: tf.Tensor  # how many masked tokens
    correct: tf.Tensor  # of these, ranked first
    top5: tf.Tensor  # of these, ranked among the first five


def cross_entropy(logits: tf.Tensor, masked_lm_ids: tf.Tensor, masked_lm_weights: tf.Tensor) -> tf.Tensor:
    """Return the cross-entropy summed over the masked tokens, a float32 scalar.

    Args:
        logits: `[B, P, V]`, of any float type; the softmax is in float32.
        masked_lm_ids: int32 `[B, P]`, the true tokens.
        masked_lm_weights: float32 `[B, P]`, 1 for a masked token and 0 for an unused place.

    >>> logits = tf.constant([[[0.0, 0.0], [9.0, 0.0]]])
    >>> print(f"{cross_entropy(logits, tf.constant([[1, 0]]), tf.constant([[1.0, 0.0]])):.4f}")  # log 2
    0.6931
    """
    each = tf.nn.sparse_softmax_cross_entropy_with_logits(masked_lm_ids, tf.cast(logits, tf.float32))  # [B, P]
    return tf.reduce_sum(each * masked_lm_weights)


def sums(logits: tf.Tensor, masked_lm_ids: tf.Tensor, masked_lm_weights: tf.Tensor) -> Sums:
    """Return what an evaluation adds up; the arguments are those of `cross_entropy`.

    >>> logits = tf.constant([[[0.1, 0.9, 0.5], [0.1, 0.9, 0.5]]])
    >>> found = sums(logits, tf.constant([[1, 2]]), tf.constant([[1.0, 1.0]]))
    >>> print(found.weight.numpy(), found.correct.numpy(), found.top5.numpy())
    2.0 1.0 2.0
    """
    before = rank(logits, masked_lm_ids)
    return Sums(
        loss=cross_entropy(logits, masked_lm_ids, masked_lm_weights),
        weight=tf.reduce_sum(masked_lm_weights),
        correct=tf.reduce_sum(tf.where(before < 1, masked_lm_weights, 0.0)),
        top5=tf.reduce_sum(tf.where(before < 5, masked_lm_weights, 0.0)),
    )


def rank(logits: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
    """Return how many tokens stand before the true one, int32 `[B, P]`, in the order in which `top_k` lists them.

    Of equal scores the lower id stands first: without that rule a model that says nothing would be right every time.

    >>> rank(tf.constant([[[3.0, 7.0, 3.0]]]), tf.constant([[2]])).numpy().tolist()
    [[2]]
    """
    true = tf.gather(logits, ids, batch_dims=2)[..., None]  # [B, P, 1]
    lower = tf.range(tf.shape(logits)[-1]) < ids[..., None]  # [B, P, V]
    return tf.reduce_sum(tf.cast((logits > true) | ((logits == true) & lower), tf.int32), axis=-1)
