"""BERT's masks, drawn on the fly as a pure function of (seed, epoch, example id).

Of each sequence exactly round(rate * maskable) tokens are chosen; of these, independently, 80 % become [MASK], 10 % a
random ordinary word, 10 % stay (Devlin et al. 2018, arXiv:1810.04805, section 3.1, and `create_pretraining_data.py` of
google-research/bert). Special tokens and padding are never chosen; special tokens and `[unusedN]` are never drawn as
the random word.

Randomness comes from `trainer.input.randomness`, a hash over [batch, position]. So the masks do not depend on batch
size, order, parallelism or the number of hosts, they are new in every epoch, and a run that resumes draws what it would
have drawn.
"""

import math
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from records.errors import RemaskError
from records.tokenizer.artifact import TokenizerArtifact
from trainer.input import randomness

_CHOOSE, _REPLACE = 0, 1 << 16  # where the counters of each kind of random number start


@dataclass(frozen=True)
class Masking:
    """How much is masked, and how. Eighty-ten-ten at 15 % unless told otherwise.

    Whole words that no longer fit the budget are passed over, so where it is small short ones are chosen more often: of
    IMDB's words of one and of four pieces 13.9 % and 3.7 % at a length of 32, 15.2 % and 13.1 % at 128, 15.0 % and
    14.4 % at 512 (bert-base-uncased's tokenizer, packed).

    Raises:
        RemaskError: a rate outside 0 to 1, or replacement shares beyond 1.
    """

    rate: float = 0.15
    mask_fraction: float = 0.8
    random_fraction: float = 0.1
    whole_word: bool = False

    def __post_init__(self) -> None:
        for name in ("rate", "mask_fraction", "random_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise RemaskError(f"masking: {name} is {getattr(self, name)}, expected 0 to 1")
        if self.mask_fraction + self.random_fraction > 1 + 1e-9:
            raise RemaskError(
                f"masking: mask_fraction {self.mask_fraction} and random_fraction {self.random_fraction} exceed 1"
            )


@dataclass(frozen=True)
class Vocabulary:
    """What masking must know of a tokenizer."""

    mask_id: int
    special: NDArray[np.bool_]  # [vocab_size]
    continuation: NDArray[np.bool_]  # [vocab_size]: pieces such as ##ing
    ordinary: NDArray[np.int32]  # [K]: ids that may be drawn as the random word

    @classmethod
    def of(cls, artifact: TokenizerArtifact) -> "Vocabulary":
        """Return the vocabulary of a tokenizer."""
        special, continuation = np.zeros((2, artifact.vocab_size), bool)
        special[[artifact.pad_id, *artifact.special_ids]] = True
        continuation[artifact.continuation_ids] = True
        return cls(artifact.mask_id, special, continuation, artifact.ordinary_ids)


def max_predictions(max_seq_length: int, rate: float) -> int:
    """Return P, the static number of places for masked tokens in a sequence.

    >>> max_predictions(128, 0.15)
    20
    """
    return max(1, math.ceil(rate * max_seq_length))


def mask_tokens(
    input_ids: tf.Tensor,
    example_id: tf.Tensor,
    *,
    seed: int,
    epoch: int | tf.Tensor,
    vocabulary: Vocabulary,
    masking: Masking = Masking(),
) -> dict[str, tf.Tensor]:
    """Mask a batch.

    Args:
        input_ids: int32 `[B, L]`, zero padded; L is static.
        example_id: int64 `[B]`, non-negative.
        seed: the run's seed.
        epoch: one number, or int32 `[B]` where a batch spans epochs.
        vocabulary: of the tokenizer that made the ids.
        masking: how much, and how.

    Returns:
        `input_ids` int32 `[B, L]` with masks applied; `masked_lm_positions` int32 `[B, P]`; `masked_lm_ids` int32
        `[B, P]`, the original tokens; `masked_lm_weights` float32 `[B, P]`, 1 for a chosen token and 0 for an unused
        place (whose position and id are 0). P is `max_predictions(L, rate)`.

    Rates of 1 make the outcome exact:

    >>> toy = Vocabulary(3, np.arange(9) < 4, np.arange(9) > 8, np.array([4, 5, 6, 7, 8], np.int32))
    >>> batch = mask_tokens(tf.constant([[1, 5, 6, 2, 0]]), tf.constant([7], tf.int64), seed=0, epoch=0,
    ...                     vocabulary=toy, masking=Masking(rate=1.0, mask_fraction=1.0, random_fraction=0.0))
    >>> batch["input_ids"].numpy().tolist(), sorted(batch["masked_lm_ids"].numpy()[0].tolist())
    ([[1, 3, 3, 2, 0]], [0, 0, 0, 5, 6])
    """
    length, places = input_ids.shape[1], max_predictions(input_ids.shape[1], masking.rate)
    keys = randomness.keys("mask", seed, epoch=epoch, example_id=example_id)
    maskable = ~_among(input_ids, vocabulary.special)  # [B, L]
    budget = _budget(maskable, length, masking.rate)  # [B]
    if masking.whole_word:
        continuation = maskable & tf.gather(tf.constant(vocabulary.continuation), input_ids)
        flat, used = _choose_words(keys, maskable, continuation, budget, places)
    else:
        flat, used = _choose_tokens(keys, maskable, budget, places)
    first = length * tf.range(tf.shape(flat)[0])[:, None]  # [B, 1]
    flat = tf.where(used, flat, first)  # [B, P]
    originals = tf.gather(tf.reshape(input_ids, [-1]), flat)
    # Adding a difference, rather than storing a token, lets unused places all point at position 0 and change nothing.
    difference = tf.where(used, _replaced(keys, originals, vocabulary, masking) - originals, 0)
    # A sum over segments of one token each: a scatter, at a third of the cost of TensorFlow's operation of that name.
    differences = tf.math.unsorted_segment_sum(difference, flat, tf.size(input_ids))
    return {
        "input_ids": input_ids + tf.reshape(differences, tf.shape(input_ids)),
        "masked_lm_positions": flat - first,
        "masked_lm_ids": tf.where(used, originals, 0),
        "masked_lm_weights": tf.cast(used, tf.float32),
    }


def _among(ids: tf.Tensor, members: NDArray[np.bool_]) -> tf.Tensor:
    """Return which ids are members, by comparing with each run of members: they are few, and a look-up costs more."""
    found = tf.zeros_like(ids, tf.bool)
    for first, end in np.flatnonzero(np.diff(members, prepend=False, append=False)).reshape(-1, 2):
        found |= (ids >= first) & (ids < end)
    return found


def _budget(maskable: tf.Tensor, length: int, rate: float) -> tf.Tensor:
    """Return how many tokens of each sequence are to be chosen, `[B]`: round(rate * maskable), at least one of any.

    A table over all possible counts, so that the rounding is Python's and the same on every device.
    """
    counts = [min(count, max(1, round(rate * count))) if rate else 0 for count in range(length + 1)]
    return tf.gather(tf.constant(counts, tf.int32), tf.reduce_sum(tf.cast(maskable, tf.int32), 1))


def _choose_tokens(keys: tf.Tensor, maskable: tf.Tensor, budget: tf.Tensor, places: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Return which tokens are chosen, int32 `[B, places]`, and which of these places are in use.

    Tokens are counted through the whole batch: token t of row b is b * L + t. What stands at an unused place is any.
    """
    count = tf.reduce_sum(tf.cast(maskable, tf.int32), 1)  # [B]
    rank = _distinct(keys, count, budget, places)  # [B, places], among the maskable tokens of the row
    used = tf.sequence_mask(budget, places)
    before = tf.cumsum(count, exclusive=True)[:, None]  # [B, 1], maskable tokens of earlier rows
    known = tf.concat([tf.where(tf.reshape(maskable, [-1]))[:, 0], [0]], 0)  # where they are, and one for none at all
    return tf.cast(tf.gather(known, tf.where(used, before + rank, 0)), tf.int32), used


def _distinct(keys: tf.Tensor, count: tf.Tensor, budget: tf.Tensor, places: int) -> tf.Tensor:
    """Draw `budget` distinct numbers below `count` for each row, any such set as likely as any other.

    It is Floyd's algorithm (Bentley and Floyd 1987, "A sample of brilliance"): the i-th number is drawn from one more
    than the one before could be, and if it is there already, it is the greatest it could be. Its time grows with the
    square of the places, but it never looks at the tokens: at a length of 128 that takes a third of what it takes to
    find the highest of random scores.

    Args:
        keys: uint64 `[B]`.
        count: int32 `[B]`.
        budget: int32 `[B]`, at most `count` and `places`.
        places: numbers to return for each row, of which the first `budget` count.

    Returns:
        int32 `[B, places]`.
    """
    bits = randomness.bits(keys, _CHOOSE + np.arange(places))
    greatest = (count - budget)[:, None] + tf.range(places)  # [B, places]
    drawn = randomness.below(tf.cast(greatest + 1, tf.uint64), bits)
    rows = tf.transpose(drawn)  # numbers of the same place side by side
    distinct = rows[:1]
    for place, largest in enumerate(tf.unstack(tf.transpose(greatest))[1:], start=1):
        repeated = tf.reduce_any(distinct == rows[place], 0)
        distinct = tf.concat([distinct, tf.where(repeated, largest, rows[place])[None]], 0)
    return tf.transpose(distinct)


def _choose_words(
    keys: tf.Tensor, maskable: tf.Tensor, continuation: tf.Tensor, budget: tf.Tensor, places: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Like `_choose_tokens`, for whole words: the pieces of a word stand or fall together.

    Words are tried in random order and taken while they fit the budget; one that does not fit is passed over, as in
    `create_pretraining_data.py`. So fewer than the budget may be chosen, never more; only where no word fits at all is
    the first taken that fits the places there are.
    """
    batch, length = tf.shape(maskable)[0], maskable.shape[1]
    follows = tf.pad(maskable[:, :-1], [[0, 0], [1, 0]])  # the token before is maskable
    starts = maskable & ~(continuation & follows)
    word = tf.cumsum(tf.cast(starts, tf.int32), axis=1) - 1  # [B, L], number of the word within its sequence
    word = tf.where(maskable, word, length)  # the rest go to a slot of their own
    rows = tf.broadcast_to(tf.range(batch)[:, None], tf.shape(word))
    ones = tf.ones_like(word)
    sizes = tf.tensor_scatter_nd_add(tf.zeros([batch, length + 1], tf.int32), tf.stack([rows, word], -1), ones)
    order = tf.argsort(_scores(keys, length))
    taken = _take_while_it_fits(tf.gather(sizes[:, :length], order, batch_dims=1), budget, places)  # in that order
    slots = tf.stack([rows, order], -1)
    taken_words = tf.tensor_scatter_nd_update(tf.zeros([batch, length + 1], tf.bool), slots, taken)
    chosen = tf.gather(taken_words, word, batch_dims=1)  # [B, L]
    top = tf.math.top_k(
        tf.where(chosen, length - tf.range(length), 0), places
    ).values  # [B, places], first tokens first
    return length * tf.range(batch)[:, None] + length - top, top > 0


def _scores(keys: tf.Tensor, length: int) -> tf.Tensor:
    """Return a random number for each position, int32 `[B, length]`, no two of a row alike.

    The position stands in the low bits: so all devices agree on which is higher.
    """
    bits = randomness.halves(randomness.bits(keys, _CHOOSE + np.arange(-(-length // 2))))[:, :length]
    low = (1 << (length - 1).bit_length()) - 1
    return tf.bitwise.bitwise_and(bits, ~low) | np.arange(length, dtype=np.int32)


def _take_while_it_fits(sizes: tf.Tensor, budget: tf.Tensor, places: int) -> tf.Tensor:
    """Return which words are taken, bool `[B, W]`, given their sizes in the order in which they are tried.

    Each turn takes all words up to the first that does not fit, and drops those that no longer can: the outcome is that
    of trying one after the other, in as many turns as the budget shrinks past a word.
    """

    def turn(open_: tf.Tensor, taken: tf.Tensor, left: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        tried = open_ & (sizes <= left[:, None])
        now = tried & (tf.cumsum(tf.where(tried, sizes, 0), axis=1) <= left[:, None])
        left = left - tf.reduce_sum(tf.where(now, sizes, 0), 1)
        return tried & ~now & (sizes <= left[:, None]), taken | now, left

    words = sizes > 0
    nothing = tf.zeros_like(words)
    _, taken, _ = tf.while_loop(lambda open_, *_: tf.reduce_any(open_), turn, (words, nothing, budget))
    small_enough = words & (sizes <= places)
    first = small_enough & (tf.cumsum(tf.cast(small_enough, tf.int32), axis=1) == 1)
    none_fits = (budget > 0) & ~tf.reduce_any(taken, 1)
    return taken | (first & none_fits[:, None])


def _replaced(keys: tf.Tensor, originals: tf.Tensor, vocabulary: Vocabulary, masking: Masking) -> tf.Tensor:
    """Return what stands at the chosen places, `[B, P]`: mostly [MASK], now and then a random or the same word."""
    bits = randomness.bits(keys, _REPLACE + np.arange(originals.shape[1]))
    uniform = randomness.upper(bits)
    random_word = tf.gather(tf.constant(vocabulary.ordinary), randomness.below(len(vocabulary.ordinary), bits))
    masked, changed = (
        round(share * 2**32) for share in (masking.mask_fraction, masking.mask_fraction + masking.random_fraction)
    )
    return tf.where(uniform < masked, vocabulary.mask_id, tf.where(uniform < changed, random_word, originals))
