import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from records.example import encode
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
