"""The law of the masks, proved by statistics on 1.1 million chosen tokens, and by exact comparisons.

The statistics and their bounds are in `chance`. `law` holds a masker against all of them; that it can fail is shown by
maskers that are biased, each in one way, among them those that were published.
"""

import functools
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from records.errors import RemaskError
from tests.records import made
from tests.said import must_name
from tests.trainer import chance
from trainer.input import randomness
from trainer.input.masking import Masking, Vocabulary, mask_tokens, max_predictions

Masker = Callable[[NDArray, NDArray, int], dict[str, NDArray]]  # of input_ids, example_id and epoch

# A sequence of the statistics is [CLS], 126 words, [SEP]; its words are tokens that may be masked but never be drawn,
# so that each outcome can be told from the others. 15 % of 126 are 19.
LENGTH, WORDS, CHOSEN = 128, 126, 19
SEQUENCES = 60_000
MASK_ID, VOCAB_SIZE = 4, 1_000
ORDINARY = np.array([id_ for id_ in range(100, VOCAB_SIZE) if id_ % 7], np.int32)  # not in one piece
NOT_CHOSEN, MASKED, RANDOM, KEPT = range(4)
BUCKETS = 16


def vocabulary(*, pieces: int = 1, ordinary: NDArray[np.int32] = ORDINARY) -> Vocabulary:
    """Return a vocabulary in which 0 to 4 are special, and of 5 to 99 every `pieces`-th starts a word."""
    ids = np.arange(VOCAB_SIZE)
    return Vocabulary(MASK_ID, ids < 5, (ids >= 5) & (ids < 100) & (ids % pieces > 0), ordinary)


def masker(
    masking: Masking = Masking(), known: Vocabulary | None = None, *, seed: int = 0, graph: bool = False
) -> Masker:
    known = known or vocabulary()

    def masked(input_ids: tf.Tensor, example_id: tf.Tensor, epoch: tf.Tensor) -> dict[str, tf.Tensor]:
        return mask_tokens(input_ids, example_id, seed=seed, epoch=epoch, vocabulary=known, masking=masking)

    call = tf.function(masked) if graph else masked

    def mask(input_ids: NDArray, example_id: NDArray, epoch: int) -> dict[str, NDArray]:
        batch = call(tf.constant(input_ids, tf.int32), tf.constant(example_id, tf.int64), tf.constant(epoch))
        return {name: values.numpy() for name, values in batch.items()}

    return mask


def sequences(count: int, *, pieces: int = 1) -> NDArray[np.int32]:
    """Return `[count, LENGTH]` sequences of words of so many pieces."""
    words = np.random.default_rng(1).integers(20, 30, size=(count, WORDS // pieces, 1)) * pieces
    rows = np.full((count, LENGTH), 2, np.int32)
    rows[:, 1:-1] = (words + np.arange(pieces)).reshape(count, WORDS)
    rows[:, -1] = 3
    return rows


def outcomes(mask: Masker, input_ids: NDArray, example_id: NDArray, epoch: int) -> tuple[NDArray, NDArray]:
    """Return what became of each word, `[B, WORDS]`, and what stands there; check what must hold of any batch."""
    parts = [
        mask(input_ids[start : start + 10_000], example_id[start : start + 10_000], epoch)
        for start in range(0, len(input_ids), 10_000)
    ]
    batch = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    used = batch["masked_lm_weights"] > 0
    rows = np.nonzero(used)[0]
    chosen = np.zeros(input_ids.shape, bool)
    chosen[rows, batch["masked_lm_positions"][used]] = True
    assert chosen.sum() == used.sum(), "no position twice"
    np.testing.assert_array_equal(batch["masked_lm_ids"][used], input_ids[rows, batch["masked_lm_positions"][used]])
    np.testing.assert_array_equal(batch["input_ids"][~chosen], input_ids[~chosen])
    found = np.where(batch["input_ids"] == MASK_ID, MASKED, np.where(batch["input_ids"] == input_ids, KEPT, RANDOM))
    return np.where(chosen, found, NOT_CHOSEN)[:, 1:-1].astype(np.int8), batch["input_ids"][:, 1:-1]


def law(mask: Masker, *, count: int = SEQUENCES, pieces: int = 1) -> dict[str, float]:
    """Return the statistics of a masker, each with its z: what is impossible has an infinite one."""
    input_ids, example_id = sequences(count, pieces=pieces), np.arange(count)
    drawn, again = CHOSEN // pieces, count // 3  # words of a sequence; sequences that a second epoch is compared on
    first, stands = outcomes(mask, input_ids, example_id, 0)
    second, _ = outcomes(mask, input_ids[:again], example_id[:again], 1)
    by_word = (first > 0).reshape(count, -1, pieces)
    if (by_word.sum(1) != drawn).any() or (by_word.any(2) != by_word.all(2)).any():
        return {"count": np.inf}
    word, word_later = by_word[:, :, 0], (second > 0)[:, ::pieces]
    random, tokens = first == RANDOM, count * drawn * pieces
    index = np.full(VOCAB_SIZE, -1)
    index[ORDINARY] = np.arange(len(ORDINARY))
    drawn_words = index[stands[random]]
    if (drawn_words < 0).any():
        return {"words": np.inf}
    place = np.broadcast_to(np.arange(WORDS), first.shape)
    bucket = drawn_words * BUCKETS // len(ORDINARY)
    same_row = np.diff(np.nonzero(random)[0]) == 0
    neighbours = (first[:, 1:] > 0) & (first[:, :-1] > 0)
    both_epochs, both_examples = (first[:again] > 0) & (second > 0), (first[1:] > 0) & (first[:-1] > 0)

    def outcome_pairs(one: NDArray, other: NDArray) -> float:
        return chance.of_table(chance.table(one - 1, other - 1, shape=(3, 3)))

    return {
        "masked": chance.of_share((first == MASKED).sum(), trials=tokens, p=0.8),
        "random": chance.of_share(random.sum(), trials=tokens, p=0.1),
        "kept": chance.of_share((first == KEPT).sum(), trials=tokens, p=0.1),
        "masked in a sequence": chance.of_dispersion((first == MASKED).sum(1), trials=drawn * pieces, p=0.8),
        "positions": chance.of_draws(word),
        "words": chance.of_uniform(np.bincount(drawn_words, minlength=len(ORDINARY))),
        "position, outcome": chance.of_table(chance.table(place[first > 0], first[first > 0] - 1, shape=(WORDS, 3))),
        "position, word": chance.of_table(chance.table(place[random] * 9 // WORDS, bucket, shape=(9, BUCKETS))),
        "neighbours chosen": chance.of_runs(word, drawn=drawn),
        "neighbours' outcomes": outcome_pairs(first[:, 1:][neighbours], first[:, :-1][neighbours]),
        "neighbours' words": chance.of_table(
            chance.table(bucket[1:][same_row], bucket[:-1][same_row], shape=(BUCKETS, BUCKETS))
        ),
        "epochs chosen": chance.of_overlap(word[:again], word_later, drawn=drawn),
        "epochs' outcomes": outcome_pairs(first[:again][both_epochs], second[both_epochs]),
        "examples chosen": chance.of_overlap(word[1:], word[:-1], drawn=drawn),
        "examples' outcomes": outcome_pairs(first[1:][both_examples], first[:-1][both_examples]),
    }


def broken(found: dict[str, float]) -> dict[str, float]:
    return {name: z for name, z in found.items() if abs(z) > chance.BOUND}


def test_the_law_of_the_masks():
    found = law(masker(graph=True))
    assert len(found) == 15
    assert broken(found) == {}


@pytest.mark.parametrize("seed", [1, 2**63 - 1])
def test_the_law_holds_for_other_seeds(seed):
    assert broken(law(masker(seed=seed), count=10_000)) == {}


def test_the_law_of_whole_words():
    """With words of two pieces nine of 63 are chosen, and the tokens' outcomes are still independent."""
    found = law(masker(Masking(whole_word=True), vocabulary(pieces=2), graph=True), pieces=2)
    assert len(found) == 15
    assert broken(found) == {}


def by_hand(choose: Callable[[np.random.Generator, int], NDArray], replace: Callable[..., NDArray]) -> Masker:
    """Return a masker made of numpy's randomness: `choose` says which words, `replace` says by what."""
    draw = np.random.default_rng(0)

    def mask(input_ids: NDArray, example_id: NDArray, epoch: int) -> dict[str, NDArray]:
        positions = np.nonzero(choose(draw, len(input_ids)))[1].reshape(len(input_ids), -1) + 1
        masked = input_ids.copy()
        originals = np.take_along_axis(input_ids, positions, 1)
        np.put_along_axis(masked, positions, replace(draw, originals, positions), 1)
        weights = np.ones(positions.shape, np.float32)
        names = ("input_ids", "masked_lm_positions", "masked_lm_ids", "masked_lm_weights")
        return dict(zip(names, (masked, positions, originals, weights), strict=True))

    return mask


def any_words(draw: np.random.Generator, rows: int) -> NDArray[np.bool_]:
    return draw.permuted(np.tile(np.arange(WORDS) < CHOSEN, (rows, 1)), axis=1)


def early_words(draw: np.random.Generator, rows: int) -> NDArray[np.bool_]:
    """Return choices of which one in twenty has nothing of the last words."""
    late = any_words(draw, rows)
    return np.where(draw.random((rows, 1)) < 0.05, np.roll(np.sort(late), CHOSEN, axis=1), late)


def a_block(draw: np.random.Generator, rows: int) -> NDArray[np.bool_]:
    """Return spans, which stand at each place equally often."""
    return (np.arange(WORDS) - draw.integers(WORDS, size=(rows, 1))) % WORDS < CHOSEN


def as_bert(draw: np.random.Generator, originals: NDArray, positions: NDArray) -> NDArray:
    uniform, words = draw.random(originals.shape), draw.choice(ORDINARY, originals.shape)
    return np.where(uniform < 0.8, MASK_ID, np.where(uniform < 0.9, words, originals))


def by_quota(draw: np.random.Generator, originals: NDArray, positions: NDArray) -> NDArray:
    """Return exactly 15 masks, two random words and two that stay, in each sequence."""
    words = draw.choice(ORDINARY, originals.shape)
    kind = draw.permuted(np.tile(np.arange(CHOSEN), (len(originals), 1)), axis=1)
    return np.where(kind < 15, MASK_ID, np.where(kind < 17, words, originals))


def by_position(draw: np.random.Generator, originals: NDArray, positions: NDArray) -> NDArray:
    """Return BERT's shares, but masks a little rarer among the first words."""
    uniform, words = draw.random(originals.shape), draw.choice(ORDINARY, originals.shape)
    share = np.where(positions <= WORDS // 2, 0.79, 0.81)
    return np.where(uniform < share, MASK_ID, np.where(uniform < share / 2 + 0.5, words, originals))


def in_pairs(draw: np.random.Generator, originals: NDArray, positions: NDArray) -> NDArray:
    """Return BERT's shares, but now and then what became of the word before."""
    uniform, words = draw.random(originals.shape), draw.choice(ORDINARY, originals.shape)
    again = draw.random((len(originals), CHOSEN - 1)) < 0.05
    uniform[:, 1:] = np.where(again, uniform[:, :-1], uniform[:, 1:])
    words[:, 1:] = np.where(again, words[:, :-1], words[:, 1:])
    return np.where(uniform < 0.8, MASK_ID, np.where(uniform < 0.9, words, originals))


def test_the_law_holds_for_a_masker_of_numpy():
    assert broken(law(by_hand(any_words, as_bert), count=20_000)) == {}


BIASED: dict[str, tuple[Masker, set[str]]] = {
    # What transformers' TensorFlow collator drew before December 2024, and the article's way with BERT's vocabulary.
    "80/2/18": (masker(Masking(random_fraction=0.02)), {"random", "kept"}),
    "79/11/10": (masker(Masking(mask_fraction=0.79, random_fraction=0.11)), {"masked", "random"}),
    "special tokens are drawn": (masker(known=vocabulary(ordinary=np.arange(VOCAB_SIZE, dtype=np.int32))), {"words"}),
    "the article's range": (masker(known=vocabulary(ordinary=np.arange(3, 103, dtype=np.int32))), {"words"}),
    "some words twice": (masker(known=vocabulary(ordinary=np.append(ORDINARY, ORDINARY[:40]))), {"words"}),
    "same masks each epoch": (
        lambda ids, example_id, epoch: masker()(ids, example_id, 0),
        {"epochs chosen", "epochs' outcomes"},
    ),
    "same masks for each example": (
        lambda ids, example_id, epoch: masker()(ids, 0 * example_id, epoch),
        {"positions", "examples chosen"},
    ),
    "the last bit of the example id is lost": (
        lambda ids, example_id, epoch: masker()(ids, example_id // 2, epoch),
        {"examples chosen", "examples' outcomes"},
    ),
    "one too few": (masker(Masking(rate=0.14)), {"count"}),
    "early words": (by_hand(early_words, as_bert), {"positions"}),
    "spans": (by_hand(a_block, as_bert), {"neighbours chosen"}),
    "quotas": (by_hand(any_words, by_quota), {"masked", "masked in a sequence"}),
    "outcome by position": (by_hand(any_words, by_position), {"position, outcome"}),
    "in pairs": (by_hand(any_words, in_pairs), {"neighbours' outcomes", "neighbours' words"}),
}


@pytest.mark.parametrize("name", BIASED)
def test_a_biased_masker_is_found_out(name):
    biased, expected = BIASED[name]
    assert set(broken(law(biased, count=20_000))) >= expected


def test_torn_words_are_found_out():
    assert law(masker(known=vocabulary(pieces=2)), count=1_000, pieces=2) == {"count": np.inf}


def test_seeds_are_independent():
    input_ids, example_id = sequences(20_000), np.arange(20_000)
    one, other = (outcomes(masker(seed=seed), input_ids, example_id, 0)[0] > 0 for seed in (0, 1))
    assert abs(chance.of_overlap(one, other, drawn=CHOSEN)) < chance.BOUND


@pytest.mark.parametrize("apart", [2, 3, 10, 2**16, 2**30])
def test_epochs_far_apart_are_independent_too(apart):
    input_ids, example_id = sequences(10_000), np.arange(10_000)
    one, other = (outcomes(masker(), input_ids, example_id, epoch)[0] > 0 for epoch in (1, 1 + apart))
    assert abs(chance.of_overlap(one, other, drawn=CHOSEN)) < chance.BOUND


@pytest.mark.parametrize("bit", [1, 7, 31, 32, 33, 62])
def test_each_bit_of_the_example_id_matters(bit):
    input_ids, example_id = sequences(5_000), np.arange(5_000)
    one, other = (outcomes(masker(), input_ids, ids, 0)[0] > 0 for ids in (example_id, example_id ^ (1 << bit)))
    assert abs(chance.of_overlap(one, other, drawn=CHOSEN)) < chance.BOUND


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.15, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("length", [8, 128])
def test_the_count_is_exact_in_each_sequence(rate, length):
    """Every number of words there can be, special tokens and padding at random among them."""
    draw = np.random.default_rng(2)
    words = np.repeat(np.arange(length + 1), 3)
    input_ids = np.where(
        draw.permuted(np.arange(length) < words[:, None], axis=1),
        draw.integers(5, VOCAB_SIZE, (len(words), length)),
        draw.integers(0, 5, (len(words), length)),
    )
    batch = masker(Masking(rate=rate))(input_ids, np.arange(len(words)), 0)
    expected = [min(count, max(1, round(rate * count))) if rate else 0 for count in words]
    assert batch["masked_lm_weights"].sum(1).tolist() == expected
    used = batch["masked_lm_weights"] > 0
    assert (np.take_along_axis(input_ids, batch["masked_lm_positions"], 1)[used] >= 5).all()
    np.testing.assert_array_equal(used, np.arange(used.shape[1]) < np.array(expected)[:, None])
    for name in ("masked_lm_positions", "masked_lm_ids"):
        assert not batch[name][~used].any()
    assert batch["masked_lm_positions"].shape == (len(words), max_predictions(length, rate))
    outcomes(masker(Masking(rate=rate)), input_ids, np.arange(len(words)), 0)  # asserts the rest


def test_rounding_is_that_of_python():
    """A half goes to the even number, as in create_pretraining_data.py."""
    for count, expected in ((3, 1), (10, 2), (30, 4), (50, 8), (70, 10)):
        input_ids = np.array([[2, *[9] * count, 3]])
        assert masker()(input_ids, np.array([0]), 0)["masked_lm_weights"].sum() == expected


@pytest.mark.parametrize(
    ("length", "rate", "places"),
    [(128, 0.15, 20), (512, 0.15, 77), (8, 0.01, 1), (8, 0.0, 1), (128, 1.0, 128), (100, 0.07, 8), (20, 0.15, 3)],
)
def test_max_predictions(length, rate, places):
    assert max_predictions(length, rate) == places


def test_shapes_and_types():
    batch = mask_tokens(
        tf.constant(sequences(3)), tf.constant([1, 2, 3], tf.int64), seed=0, epoch=0, vocabulary=vocabulary()
    )
    assert {name: (values.dtype, values.shape.as_list()) for name, values in batch.items()} == {
        "input_ids": (tf.int32, [3, 128]),
        "masked_lm_positions": (tf.int32, [3, 20]),
        "masked_lm_ids": (tf.int32, [3, 20]),
        "masked_lm_weights": (tf.float32, [3, 20]),
    }


def test_shapes_are_static_in_a_graph():
    traced = tf.function(
        lambda ids, example_id: mask_tokens(ids, example_id, seed=0, epoch=0, vocabulary=vocabulary())
    ).get_concrete_function(tf.TensorSpec([7, 128], tf.int32), tf.TensorSpec([7], tf.int64))
    assert {name: spec.shape.as_list() for name, spec in traced.structured_outputs.items()} == {
        "input_ids": [7, 128],
        "masked_lm_positions": [7, 20],
        "masked_lm_ids": [7, 20],
        "masked_lm_weights": [7, 20],
    }


def test_rates_of_one_and_zero_are_exact():
    input_ids, example_id = sequences(50), np.arange(50)
    for shares, expected in (((1.0, 0.0), MASKED), ((0.0, 1.0), RANDOM), ((0.0, 0.0), KEPT)):
        found, _ = outcomes(masker(Masking(1.0, *shares)), input_ids, example_id, 0)
        assert (found == expected).all()


def test_a_sequence_of_padding_has_nothing_to_find():
    batch = masker()(np.zeros((2, 16), int), np.zeros(2, int), 0)
    assert all(not values.any() for values in batch.values())


PIECES, TOY = 2, 24


def toy_sequences(count: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return sequences of words of one to five pieces, some of them cut at their start, with padding and segments."""
    draw = np.random.default_rng(3)
    rows = draw.choice([2, 3, 1, 8, 8, 10, 12, 14, 9, 11, 13, 15], size=(count, TOY)).astype(np.int32)
    rows[np.arange(TOY) >= draw.integers(1, TOY + 1, size=(count, 1))] = 0
    return rows, draw.integers(0, 2**63 - 1, size=count)


@pytest.mark.parametrize("whole_word", [False, True])
class TestTheSame:
    """Masks depend on the example, the seed and the epoch, and on nothing else."""

    @pytest.fixture
    def known(self, whole_word):
        return {"seed": 3, "vocabulary": vocabulary(pieces=PIECES), "masking": Masking(0.3, whole_word=whole_word)}

    @pytest.fixture
    def batch(self):
        return toy_sequences(64)

    @pytest.fixture
    def expected(self, batch, known):
        return self.arrays(mask_tokens(*map(tf.constant, batch), epoch=5, **known))

    def arrays(self, batch):
        return {name: np.asarray(values) for name, values in batch.items()}

    def check(self, found, expected):
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values, strict=True)

    @pytest.mark.parametrize("size", [1, 7, 64])
    def test_whatever_the_batch_size(self, batch, known, expected, size):
        parts = [
            self.arrays(mask_tokens(*(tf.constant(part[start : start + size]) for part in batch), epoch=5, **known))
            for start in range(0, 64, size)
        ]
        self.check({name: np.concatenate([part[name] for part in parts]) for name in expected}, expected)

    def test_whatever_the_order(self, batch, known, expected):
        order = np.random.default_rng(0).permutation(64)
        found = mask_tokens(*(tf.constant(part[order]) for part in batch), epoch=5, **known)
        self.check(found, {name: values[order] for name, values in expected.items()})

    def test_whatever_the_epochs_beside_it(self, batch, known, expected):
        epoch = np.where(np.arange(64) % 3, 5, 9)
        found = self.arrays(mask_tokens(*map(tf.constant, batch), epoch=tf.constant(epoch, tf.int32), **known))
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name][epoch == 5], values[epoch == 5])
        assert (found["masked_lm_positions"][epoch == 9] != expected["masked_lm_positions"][epoch == 9]).any()

    @pytest.mark.parametrize("jit_compile", [False, True])
    def test_in_a_graph(self, batch, known, expected, jit_compile):
        traced = tf.function(lambda *batch: mask_tokens(*batch, epoch=5, **known), jit_compile=jit_compile)
        self.check(traced(*map(tf.constant, batch)), expected)

    @pytest.mark.parametrize("parallel", [None, 4])
    def test_in_a_pipeline(self, batch, known, expected, parallel):
        dataset = tf.data.Dataset.from_tensor_slices(batch).batch(5)
        masked = dataset.map(lambda *rows: mask_tokens(*rows, epoch=5, **known), num_parallel_calls=parallel)
        parts = [self.arrays(part) for part in masked]
        self.check({name: np.concatenate([part[name] for part in parts]) for name in expected}, expected)

    def test_on_another_day(self, batch, known, expected):
        tf.random.set_seed(1)
        np.random.seed(1)  # noqa: NPY002
        self.check(mask_tokens(*map(tf.constant, batch), epoch=5, **known), expected)

    def test_but_not_for_another_seed_or_epoch(self, batch, known, expected):
        for other in ({"epoch": 6}, {"epoch": 5, "seed": 4}):
            found = self.arrays(mask_tokens(*map(tf.constant, batch), **{**known, **other}))
            assert (found["masked_lm_positions"] != expected["masked_lm_positions"]).any()


def by_create_pretraining_data(
    row: list[int], known: Vocabulary, *, order: list[int], budget: int, places: int
) -> list[int]:
    """Return the positions that google-research/bert's create_pretraining_data.py chooses, trying words in this order.

    Its loop, with `order` for its shuffle. Two things differ, as `_choose_words` documents: a piece that follows no
    word starts one, and where no word fits the budget the first is taken that fits the places.
    """
    words: list[list[int]] = []
    for position, id_ in enumerate(row):
        if known.special[id_]:
            continue
        if known.continuation[id_] and words and words[-1][-1] == position - 1:
            words[-1].append(position)
        else:
            words.append([position])
    chosen: list[int] = []
    tried = [words[number] for number in order if number < len(words)]
    for word in tried:
        if len(chosen) >= budget:
            break
        if len(chosen) + len(word) > budget:
            continue
        chosen += word
    if not chosen and budget:
        chosen = next((word for word in tried if len(word) <= places), [])
    return sorted(chosen)


def order_of_words(seed: int, epoch: int, example_id: NDArray, length: int) -> NDArray[np.int64]:
    """Return for each example the order in which its words are tried: by hash, its last bits the word's number."""
    keys = randomness.keys("mask", seed, epoch=epoch, example_id=tf.constant(example_id))
    halves = randomness.bits(keys, np.arange(-(-length // 2))).numpy().view("<i4")[:, :length]
    low = (1 << (length - 1).bit_length()) - 1
    return np.argsort((halves & ~low) | np.arange(length), axis=1)


@functools.cache
def whole_word_masker(rate: float) -> Masker:
    return masker(Masking(rate, whole_word=True), vocabulary(pieces=PIECES), seed=9, graph=True)


ROW = st.lists(st.sampled_from([0, 1, 2, 8, 9, 10, 11, 13, 15]), min_size=TOY, max_size=TOY)


@settings(max_examples=100)
@given(st.lists(ROW, min_size=8, max_size=8), st.integers(0, 2**62), st.sampled_from([0.01, 0.15, 0.4, 0.8, 1.0]))
def test_whole_words_are_those_that_bert_would_choose(rows, first_id, rate):
    input_ids, example_id = np.array(rows, np.int32), first_id + np.arange(len(rows))
    known, places = vocabulary(pieces=PIECES), max_predictions(TOY, rate)
    batch = whole_word_masker(rate)(input_ids, example_id, 4)
    order = order_of_words(9, 4, example_id, TOY)
    for number, row in enumerate(rows):
        used = batch["masked_lm_weights"][number] > 0
        words = sum(id_ >= 5 for id_ in row)
        budget = min(words, max(1, round(rate * words)))
        expected = by_create_pretraining_data(row, known, order=order[number].tolist(), budget=budget, places=places)
        assert batch["masked_lm_positions"][number][used].tolist() == expected
        assert not batch["masked_lm_positions"][number][~used].any()
        assert batch["masked_lm_ids"][number][used].tolist() == [row[position] for position in expected]


@pytest.mark.parametrize(
    ("row", "rate", "sizes"),
    [
        ([2, 8, 9, 9, 8, 9, 9, 3], 0.5, {3}),  # a budget of three is one word
        ([2, 8, 9, 9, 8, 9, 9, 3], 0.4, {3}),  # a budget of two is less than any: one word all the same
        ([2, 8, 9, 9, 9, 9, 9, 3], 0.4, {0}),  # but not if there are no places for it
        ([2, 8, 9, 8, 8, 9, 8, 3], 0.5, {2, 3}),  # two short words, and then no long one
        ([2, 8, 9, 8, 9, 8, 9, 3], 0.5, {2}),  # one too few: a word is passed over, and none is left that fits
        ([2, 8, 9, 9, 8, 9, 9, 3], 1.0, {6}),
        ([2, 9, 9, 3, 2, 9, 3, 0], 1.0, {3}),  # pieces without a word before them
        ([2, 8, 8, 8, 8, 8, 8, 3], 0.0, {0}),
    ],
)
def test_budget_of_whole_words(row, rate, sizes):
    input_ids = np.tile(np.array([row]), (200, 1))
    known = vocabulary(pieces=PIECES)
    batch = masker(Masking(rate, whole_word=True), known)(input_ids, np.arange(200), 0)
    assert set(batch["masked_lm_weights"].sum(1).astype(int).tolist()) == sizes


def test_where_no_word_fits_the_first_is_taken_that_has_places():
    row, rate, known = [2, 8, 9, 9, 8, 9, 9, 3], 0.4, vocabulary(pieces=PIECES)  # of 3 each: a budget of 2, 4 places
    batch = masker(Masking(rate, whole_word=True), known)(np.tile(np.array([row]), (50, 1)), np.arange(50), 4)
    order = order_of_words(0, 4, np.arange(50), len(row))
    for number in range(50):
        chosen = by_create_pretraining_data(row, known, order=order[number].tolist(), budget=2, places=4)
        assert batch["masked_lm_positions"][number].tolist() == [*chosen, 0]


def test_masks_stay_what_they_are():
    """A run that is continued by a later version must draw what the earlier one would have drawn."""
    input_ids = np.array([[2, *range(10, 28), 3, 2, 30, 31, 3]])
    tokens, words = (
        masker(Masking(0.3, 0.4, 0.3, whole_word=whole_word), vocabulary(pieces=2))(input_ids, np.array([7]), 1)
        for whole_word in (False, True)
    )
    assert tokens["masked_lm_positions"].tolist() == [[4, 8, 14, 5, 10, 22, 0, 0]]
    assert tokens["input_ids"].tolist() == [
        [2, 10, 11, 12, 4, 4, 15, 16, 293, 18, 149, 20, 21, 22, 23, 24, 25, 26, 27, 3, 2, 30, 192, 3]
    ]
    assert words["masked_lm_positions"].tolist() == [[9, 10, 15, 16, 21, 22, 0, 0]]
    assert words["input_ids"].tolist() == [
        [2, 10, 11, 12, 13, 14, 15, 16, 17, 4, 293, 20, 21, 22, 23, 24, 4, 26, 27, 3, 2, 149, 192, 3]
    ]


def test_vocabulary_of_a_tokenizer():
    artifact = made.toy_tokenizer(words=4)
    known = Vocabulary.of(artifact)
    assert known.mask_id == 4
    assert np.flatnonzero(known.special).tolist() == [0, 1, 2, 3, 4]
    assert np.flatnonzero(known.continuation).tolist() == [8, 9, 10, 11]
    assert known.ordinary.tolist() == list(range(8, 16))
    assert len(known.special) == len(known.continuation) == artifact.vocab_size == 16


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"rate": -0.1}, ("masking:", "rate is -0.1", "expected 0 to 1")),
        ({"rate": 15}, ("masking:", "rate is 15", "expected 0 to 1")),
        ({"rate": float("nan")}, ("masking:", "rate is nan", "expected 0 to 1")),
        ({"mask_fraction": 1.1}, ("masking:", "mask_fraction is 1.1", "expected 0 to 1")),
        ({"random_fraction": -1}, ("masking:", "random_fraction is -1", "expected 0 to 1")),
        (
            {"mask_fraction": 0.8, "random_fraction": 0.3},
            ("masking:", "mask_fraction 0.8", "random_fraction 0.3", "exceed 1"),
        ),
    ],
)
def test_rates_that_cannot_be(options, parts):
    with pytest.raises(RemaskError) as caught:
        Masking(**options)
    must_name(str(caught.value), *parts)


def test_shares_may_add_up_to_one():
    Masking(mask_fraction=0.9, random_fraction=0.1)
    Masking(mask_fraction=0.7, random_fraction=0.3)
