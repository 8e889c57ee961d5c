import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.shards.sequences import fill, places, sequences, windows

CLS, SEP = 1, 2
LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=30)


def ids_of(count):
    return np.array([list(number.to_bytes(16, "big")) for number in range(count)], np.uint8)


def laid_out(lengths, *, max_seq_length, long_text):
    """Return the sequences of documents whose tokens are all different: 10, 11, 12, ..."""
    lengths = np.array(lengths)
    cut = windows(lengths, max_seq_length=max_seq_length, long_text=long_text)
    made = sequences(cut, ids_of(len(lengths)), max_seq_length=max_seq_length, long_text=long_text)
    tokens, offsets = np.arange(10, 10 + lengths.sum()), np.cumsum(lengths) - lengths
    return made, fill(made, cut, tokens, offsets, max_seq_length=max_seq_length, cls_id=CLS, sep_id=SEP)


def segments(row):
    """Return the contents of a sequence's segments, and check its form: [CLS] .. [SEP] ..., then zeros only."""
    found, rest = [], row.tolist()
    while rest and rest[0]:
        assert rest[0] == CLS
        end = rest.index(SEP)
        found.append(rest[1:end])
        rest = rest[end + 1 :]
    assert not any(rest)
    return found


def test_truncate_keeps_the_first_window_of_each_document():
    _, rows = laid_out([2, 9], max_seq_length=6, long_text="truncate")
    assert sorted(rows.tolist()) == [[1, 10, 11, 2, 0, 0], [1, 12, 13, 14, 15, 2]]


def test_window_makes_a_sequence_of_each():
    _, rows = laid_out([2, 9], max_seq_length=6, long_text="window")
    assert sorted(rows.tolist()) == [
        [1, 10, 11, 2, 0, 0],
        [1, 12, 13, 14, 15, 2],
        [1, 16, 17, 18, 19, 2],
        [1, 20, 2, 0, 0, 0],
    ]


def test_pack_fills_sequences_with_what_fits_best():
    _, rows = laid_out([4, 1, 2, 6], max_seq_length=8, long_text="pack")
    assert sorted(rows.tolist()) == [
        [1, 10, 11, 12, 13, 2, 0, 0],
        [1, 15, 16, 2, 1, 14, 2, 0],
        [1, 17, 18, 19, 20, 21, 22, 2],
    ]


@pytest.mark.parametrize("long_text", ["window", "pack"])
@given(lengths=LENGTHS, max_seq_length=st.integers(3, 20))
def test_nothing_is_lost_and_nothing_doubled(long_text, lengths, max_seq_length):
    made, rows = laid_out(lengths, max_seq_length=max_seq_length, long_text=long_text)
    words = [word for row in rows for segment in segments(row) for word in segment]
    assert sorted(words) == list(range(10, 10 + sum(lengths)))
    assert len(rows) == len(made.example_id) == len(made.first) - 1


@given(lengths=LENGTHS, max_seq_length=st.integers(3, 20))
def test_a_segment_holds_consecutive_words_of_one_document(lengths, max_seq_length):
    document = np.repeat(np.arange(len(lengths)), lengths)
    _, rows = laid_out(lengths, max_seq_length=max_seq_length, long_text="pack")
    for row in rows:
        for segment in segments(row):
            assert segment == list(range(segment[0], segment[0] + len(segment)))
            assert len({document[word - 10] for word in segment}) == 1


@given(lengths=LENGTHS, max_seq_length=st.integers(3, 20), long_text=st.sampled_from(["pack", "window", "truncate"]))
def test_sequences_stand_in_the_order_of_their_ids_and_ids_are_63_bits(lengths, max_seq_length, long_text):
    made, _ = laid_out(lengths, max_seq_length=max_seq_length, long_text=long_text)
    assert (np.diff(made.example_id) > 0).all()
    assert (made.example_id >= 0).all()


@given(lengths=LENGTHS, max_seq_length=st.integers(3, 20), long_text=st.sampled_from(["window", "truncate"]))
def test_places_are_those_that_documents_take(lengths, max_seq_length, long_text):
    taken = places(np.array(lengths), max_seq_length=max_seq_length, long_text=long_text)
    cut = windows(np.array(lengths), max_seq_length=max_seq_length, long_text=long_text)
    assert taken.tolist() == (max_seq_length * np.bincount(cut.document)).tolist()


@given(lengths=LENGTHS, max_seq_length=st.integers(3, 20))
def test_packed_documents_take_at_most_twice_their_places(lengths, max_seq_length):
    planned = places(np.array(lengths), max_seq_length=max_seq_length, long_text="pack").sum()
    _, rows = laid_out(lengths, max_seq_length=max_seq_length, long_text="pack")
    assert planned == np.count_nonzero(rows)
    assert planned <= rows.size <= max(max_seq_length, 2 * planned)


@given(lengths=LENGTHS, max_seq_length=st.integers(3, 20))
def test_no_two_packed_sequences_would_have_fitted_into_one(lengths, max_seq_length):
    # Best fit never opens a bin for what has room elsewhere, so of all bins at most one is half empty or more.
    _, rows = laid_out(lengths, max_seq_length=max_seq_length, long_text="pack")
    used = (rows != 0).sum(1)
    assert (used * 2 <= max_seq_length).sum() <= 1


def test_padding_of_packed_reviews_is_below_two_percent():
    lengths = np.random.default_rng(0).lognormal(5.4, 0.7, 5000).astype(int) + 1  # about as long as film reviews
    for max_seq_length in (128, 512):
        _, rows = laid_out(lengths, max_seq_length=max_seq_length, long_text="pack")
        assert (rows == 0).mean() < 0.02


def test_an_example_id_names_what_the_sequence_holds():
    lengths = [5, 3, 7]
    cut = windows(np.array(lengths), max_seq_length=16, long_text="window")
    made = sequences(cut, ids_of(3), max_seq_length=16, long_text="window")
    alone = [
        sequences(
            windows(np.array([length]), max_seq_length=16, long_text="window"),
            id_[None],
            max_seq_length=16,
            long_text="window",
        ).example_id[0]
        for length, id_ in zip(lengths, ids_of(3), strict=True)
    ]
    assert sorted(made.example_id) == sorted(alone)
