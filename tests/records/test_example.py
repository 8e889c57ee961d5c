import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from records.example import decode, encode
from records.reader import parse

# Each boundary of a varint of one, two, ... nine bytes lies among these.
EDGES = sorted({value for bits in range(0, 64, 7) for value in (2**bits - 1, 2**bits)} - {2**63})
TOKEN = st.one_of(st.integers(0, 2**31 - 1), st.sampled_from([value for value in EDGES if value < 2**31]))
EXAMPLE_ID = st.one_of(st.integers(0, 2**63 - 1), st.sampled_from(EDGES), st.just(2**63 - 1))
SEQUENCES = st.integers(1, 40).flatmap(
    lambda length: st.lists(st.tuples(st.lists(TOKEN, min_size=length, max_size=length), EXAMPLE_ID), min_size=1)
)


def by_tensorflow(input_ids: list[int], example_id: int) -> bytes:
    features = {"input_ids": input_ids, "example_id": [example_id]}
    example = tf.train.Example(
        features=tf.train.Features(
            feature={
                name: tf.train.Feature(int64_list=tf.train.Int64List(value=values)) for name, values in features.items()
            }
        )
    )
    return example.SerializeToString(deterministic=True)


@settings(max_examples=200, deadline=None)
@given(SEQUENCES)
def test_bytes_are_those_of_tensorflow(sequences):
    rows, ids = zip(*sequences, strict=True)
    made = encode(np.array(rows, np.int64), np.array(ids, np.int64))
    assert made == [by_tensorflow(row, id_) for row, id_ in sequences]


@pytest.mark.parametrize("length", [1, 50, 111, 127, 128, 129, 512, 8190, 8192, 16_384, 65_536])
@pytest.mark.parametrize("id_", [5, 30_521])  # one byte a token, and three
def test_lengths_of_one_two_and_three_bytes(length, id_):
    [made] = encode(np.full((1, length), id_), np.array([2**63 - 1]))
    assert made == by_tensorflow([id_] * length, 2**63 - 1)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64])
def test_dtype_makes_no_difference(dtype):
    ids = np.array([[101, 30_521, 102, 0]])
    assert encode(ids.astype(dtype), np.array([7])) == encode(ids, np.array([7], np.uint64))


def test_no_sequences_are_no_examples():
    assert encode(np.zeros((0, 8), np.int32), np.zeros(0, np.int64)) == []


@settings(max_examples=30, deadline=None)
@given(SEQUENCES)
def test_what_is_written_is_what_is_read(sequences):
    rows, ids = (np.array(column, np.int64) for column in zip(*sequences, strict=True))
    input_ids, example_id = parse(tf.constant(encode(rows, ids)), max_seq_length=rows.shape[1])
    assert (input_ids.dtype, example_id.dtype) == (tf.int32, tf.int64)
    np.testing.assert_array_equal(input_ids, rows)
    np.testing.assert_array_equal(example_id, ids)


def test_a_feature_beyond_any_sequence_is_refused():
    with pytest.raises(ValueError, match="a feature of 2097152 bytes is beyond any sequence"):
        encode(np.zeros((1, 0x200000), np.int64), np.array([0]))


@settings(max_examples=100, deadline=None)
@given(SEQUENCES)
def test_what_is_encoded_is_decoded(sequences):
    rows, ids = (np.array(column, np.int64) for column in zip(*sequences, strict=True))
    input_ids, example_id = decode(encode(rows, ids), max_seq_length=rows.shape[1])
    np.testing.assert_array_equal(input_ids, rows, strict=True)
    np.testing.assert_array_equal(example_id, ids, strict=True)


def test_nothing_is_decoded_to_nothing():
    input_ids, example_id = decode([], max_seq_length=8)
    assert (input_ids.shape, example_id.shape) == ((0, 8), (0,))


def test_features_are_decoded_in_any_order():
    one, other = (tf.train.Example.FromString(encode(np.array([[4, 300]]), np.array([9]))[0]) for _ in range(2))
    del one.features.feature["input_ids"]
    del other.features.feature["example_id"]
    payload = other.SerializeToString() + one.SerializeToString()  # protobuf merges messages that are put together
    input_ids, example_id = decode([payload], max_seq_length=2)
    assert (input_ids.tolist(), example_id.tolist()) == ([[4, 300]], [9])


REFUSED = "not an Example with 4 input_ids and one example_id"
GOOD = encode(np.array([[101, 30_521, 102, 0]]), np.array([2**40]))[0]


@pytest.mark.parametrize("length", [3, 5])
def test_another_length_is_refused(length):
    with pytest.raises(ValueError, match=f"not an Example with {length} input_ids and one example_id"):
        decode([GOOD, GOOD], max_seq_length=length)


def test_lengths_that_are_right_only_together_are_refused():
    short, long = (encode(np.ones((1, length), int), np.array([1]))[0] for length in (3, 5))
    with pytest.raises(ValueError, match=REFUSED):
        decode([short, long], max_seq_length=4)


def test_a_number_that_ends_in_the_next_payload_is_refused():
    whole = encode(np.array([[1, 2, 3, 4]]), np.array([1]))[0]
    longer = encode(np.array([[1, 2, 3, 4, 5]]), np.array([1]))[0]
    with pytest.raises(ValueError, match=REFUSED):
        decode([longer[:-1] + b"\x85", whole], max_seq_length=4)


def test_negative_numbers_are_refused():
    with pytest.raises(ValueError, match=REFUSED):
        decode([by_tensorflow([1, 2, -3, 4], 1)], max_seq_length=4)


def test_each_cut_is_refused():
    for end in range(len(GOOD)):
        with pytest.raises(ValueError, match=REFUSED):
            decode([GOOD[:end]], max_seq_length=4)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_changes_a_number(place, change):
    payload = GOOD[:place] + bytes([GOOD[place] ^ change]) + GOOD[place + 1 :]
    try:
        input_ids, example_id = decode([payload], max_seq_length=4)
    except ValueError:
        return
    assert input_ids.shape == (1, 4)
    assert (input_ids.tolist(), example_id.tolist()) != ([[101, 30_521, 102, 0]], [2**40])


@given(st.binary(max_size=80))
def test_what_is_no_example_is_refused(payload):
    with pytest.raises(ValueError, match=REFUSED):
        decode([payload], max_seq_length=4)
