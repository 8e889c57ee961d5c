import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.models.loss import cross_entropy, rank, sums

LOGITS = tf.constant([[[2.0, 1.0, 0.0], [0.0, 5.0, 0.0]], [[1.0, 1.0, 1.0], [9.0, 9.0, 0.0]]])  # [2, 2, 3]
IDS = tf.constant([[0, 2], [1, 0]])


def test_cross_entropy_is_summed_over_the_weights():
    weights = tf.constant([[1.0, 1.0], [1.0, 0.0]])
    logs = np.log(np.exp(LOGITS.numpy()).sum(-1))
    expected = (logs[0, 0] - 2) + logs[0, 1] + (logs[1, 0] - 1)
    np.testing.assert_allclose(cross_entropy(LOGITS, IDS, weights), expected, rtol=1e-6)


def test_cross_entropy_of_bfloat16_logits_is_computed_in_float32():
    logits = tf.cast(LOGITS, tf.bfloat16)  # these values are exact in bfloat16
    assert cross_entropy(logits, IDS, tf.ones([2, 2])) == cross_entropy(LOGITS, IDS, tf.ones([2, 2]))


@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
def test_cross_entropy_and_its_gradient_are_those_of_tensorflow(scale):
    logits = scale * tf.random.stateless_normal([3, 4, 50], [1, 2])
    ids, weights = tf.reshape(tf.range(12) * 4, [3, 4]), tf.constant([[1.0, 1.0, 0.0, 1.0]] * 3)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        ours = 0.5 * cross_entropy(logits, ids, weights)  # the half shows that what comes from above is heeded
        theirs = 0.5 * tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(ids, logits) * weights)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(ours, logits), tape.gradient(theirs, logits), atol=1e-6)


def test_gradient_has_the_dtype_of_the_logits():
    logits = tf.cast(LOGITS, tf.bfloat16)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = cross_entropy(logits, IDS, tf.ones([2, 2]))
    assert (loss.dtype, tape.gradient(loss, logits).dtype) == (tf.float32, tf.bfloat16)


def test_a_model_that_says_nothing_is_not_right():
    found = sums(tf.zeros([1, 6, 100]), tf.range(6)[None] + 3, tf.ones([1, 6]))
    assert [float(value) for value in (found.weight, found.correct, found.top5)] == [6, 0, 2]  # ids 3 and 4 of 3..8


def test_what_is_no_number_is_not_right():
    nan = float("nan")
    scores = tf.constant([[[nan] * 9, [nan, *[1.0] * 8], [5.0, *[nan] * 8]]])
    found = sums(scores, tf.constant([[3, 0, 0]]), tf.ones([1, 3]))
    assert [float(value) for value in (found.weight, found.correct, found.top5)] == [3, 0, 0]
    assert np.isnan(found.loss)
    assert rank(scores, tf.constant([[3, 0, 0]])).numpy().tolist() == [[9, 9, 8]]


def test_sums_of_parts_are_the_sums_of_the_whole():
    logits = tf.random.stateless_normal([4, 3, 11], [1, 2])
    ids, weights = tf.reshape(tf.range(12) % 11, [4, 3]), tf.cast(tf.reshape(tf.range(12) % 4 > 0, [4, 3]), tf.float32)
    whole = np.array(sums(logits, ids, weights))
    parts = np.array(sums(logits[:1], ids[:1], weights[:1])) + np.array(sums(logits[1:], ids[1:], weights[1:]))
    np.testing.assert_allclose(parts, whole, rtol=1e-6)


@settings(max_examples=25)
@given(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), min_size=7, max_size=7), st.integers(0, 6))
def test_rank_is_the_place_in_top_k(scores, token):
    order = tf.math.top_k(tf.constant(scores), 7).indices.numpy().tolist()
    assert int(rank(tf.constant([[scores]]), tf.constant([[token]]))[0, 0]) == order.index(token)
