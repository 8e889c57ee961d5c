import io

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from records.format import tfrecord
from records.format.example import decode, encode
from records.format.frame import Frame
from records.format.reader import parse

BERT = 30_522
EDGES = [0, 1, 127, 128, 16_383, 16_384, BERT - 1]  # each border between varints of one, two and three bytes
TOKEN = st.one_of(st.integers(0, BERT - 1), st.sampled_from(EDGES))
ID_EDGES = sorted({value for bits in range(0, 64, 7) for value in (2**bits - 1, 2**bits)} - {2**63})
EXAMPLE_ID = st.one_of(st.integers(0, 2**63 - 1), st.sampled_from(ID_EDGES), st.just(2**63 - 1))
SEQUENCES = st.integers(1, 40).flatmap(
    lambda length: st.lists(st.tuples(st.lists(TOKEN, min_size=length, max_size=length), EXAMPLE_ID), min_size=1)
)


def columns(sequences: list[tuple[list[int], int]]) -> tuple[np.ndarray, np.ndarray, Frame]:
    rows, ids = (np.array(column, np.int64) for column in zip(*sequences, strict=True))
    return rows, ids, Frame(rows.shape[1], BERT)


def payloads(rows: np.ndarray, ids: np.ndarray, frame: Frame) -> list[bytes]:
    return [record.tobytes() for record in encode(rows, ids, frame)[:, frame.payload]]


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


@settings(max_examples=100)
@given(SEQUENCES)
def test_protobuf_reads_a_record(sequences):
    rows, ids, frame = columns(sequences)
    for payload, row, id_ in zip(payloads(rows, ids, frame), rows.tolist(), ids.tolist(), strict=True):
        # What it reads it writes again in its own way: with the shortest varints.
        assert tf.train.Example.FromString(payload).SerializeToString(deterministic=True) == by_tensorflow(row, id_)


@settings(max_examples=50)
@given(SEQUENCES)
def test_tensorflow_parses_records_one_by_one_and_together(sequences):
    rows, ids, frame = columns(sequences)
    spec = {name: tf.io.FixedLenFeature([n], tf.int64) for name, n in (("input_ids", rows.shape[1]), ("example_id", 1))}
    made = payloads(rows, ids, frame)
    together = tf.io.parse_example(made, spec)
    np.testing.assert_array_equal(together["input_ids"], rows)
    np.testing.assert_array_equal(together["example_id"][:, 0], ids)
    alone = tf.io.parse_single_example(made[-1], spec)
    np.testing.assert_array_equal(alone["input_ids"], rows[-1])
    np.testing.assert_array_equal(alone["example_id"], ids[-1:])


def test_any_reader_of_tfrecords_reads_the_file_and_finds_its_crcs_right(tmp_path):
    rows, ids, frame = columns([([101, BERT - 1, 102, 0], 2**40), ([101, 7, 102, 0], 5)])
    path = tmp_path / "shard"
    path.write_bytes(encode(rows, ids, frame).tobytes())
    expected = payloads(rows, ids, frame)
    assert list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator()) == expected
    assert list(tfrecord.read(io.BytesIO(path.read_bytes()), name="shard")) == expected
    assert path.read_bytes() == b"".join(map(tfrecord.framed, expected))


@settings(max_examples=30)
@given(SEQUENCES)
def test_what_is_written_is_what_is_read(sequences):
    rows, ids, frame = columns(sequences)
    input_ids, example_id = parse(tf.constant(encode(rows, ids, frame)), frame)
    assert (input_ids.dtype, example_id.dtype) == (tf.int32, tf.int64)
    np.testing.assert_array_equal(input_ids, rows)
    np.testing.assert_array_equal(example_id, ids)


@pytest.mark.parametrize("vocab_size", [2, 128, 129, 16_384, 16_385, 65_536, 65_537, 2**21, 2**21 + 1, 2**28])
def test_vocabularies_of_any_size(vocab_size):
    """Ids take one to four bytes; up to 65,536 words they are put together from 16-bit numbers."""
    rows, ids = np.array([[0, vocab_size - 1, vocab_size // 2, 1]]), np.array([2**63 - 1])
    frame = Frame(4, vocab_size)
    made = encode(rows, ids, frame)
    np.testing.assert_array_equal(parse(tf.constant(made), frame)[0], rows)
    assert tf.train.Example.FromString(payloads(rows, ids, frame)[0]) == tf.train.Example.FromString(
        by_tensorflow(rows[0].tolist(), 2**63 - 1)
    )
    assert decode(payloads(rows, ids, frame), frame)[0].tolist() == rows.tolist()


@pytest.mark.parametrize("length", [1, 2, 17, 127, 128, 512, 8190, 65_536])
def test_sequences_of_any_length(length):
    frame = Frame(length, BERT)
    rows, ids = np.full((2, length), BERT - 1), np.array([2**63 - 1, 0])
    made = payloads(rows, ids, frame)
    assert tf.train.Example.FromString(made[0]).SerializeToString(deterministic=True) == by_tensorflow(
        [BERT - 1] * length, 2**63 - 1
    )


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64])
def test_dtype_makes_no_difference(dtype):
    rows, ids, frame = columns([([101, BERT - 1, 102, 0], 7)])
    found = encode(rows.astype(dtype), ids.astype(np.uint64), frame)
    np.testing.assert_array_equal(found, encode(rows, ids, frame), strict=True)


def test_no_sequences_are_no_records():
    assert encode(np.zeros((0, 8), np.int32), np.zeros(0, np.int64), Frame(8, BERT)).shape == (0, Frame(8, BERT).size)
    input_ids, example_id = decode([], Frame(8, BERT))
    assert (input_ids.shape, example_id.shape) == ((0, 8), (0,))


@pytest.mark.parametrize(("token", "id_"), [(-1, 5), (2**21, 5), (7, -1)])
def test_a_number_without_room_is_refused(token, id_):
    with pytest.raises(ValueError, match=r"^numbers from .* to .* in [39] bytes$"):
        encode(np.array([[101, token, 102, 0]]), np.array([id_]), Frame(4, BERT))


@settings(max_examples=100)
@given(SEQUENCES)
def test_what_is_encoded_is_decoded(sequences):
    rows, ids, frame = columns(sequences)
    input_ids, example_id = decode(payloads(rows, ids, frame), frame)
    np.testing.assert_array_equal(input_ids, rows, strict=True)
    np.testing.assert_array_equal(example_id, ids, strict=True)


FRAME = Frame(4, BERT)
GOOD = payloads(np.array([[101, 30_521, 102, 0]]), np.array([2**40]), FRAME)[0]
REFUSED = "not an Example with 4 input_ids and one example_id"


@pytest.mark.parametrize("length", [3, 5])
def test_another_length_is_refused(length):
    with pytest.raises(ValueError, match=f"not an Example with {length} input_ids and one example_id"):
        decode([GOOD, GOOD], Frame(length, BERT))


def test_lengths_that_are_right_only_together_are_refused():
    short, long = (
        payloads(np.ones((1, length), int), np.array([1]), Frame(length, BERT))[0] for length in (3, 5)
    )  # fmt: skip
    with pytest.raises(ValueError, match=REFUSED):
        decode([short, long], FRAME)


def test_the_same_example_in_another_layout_is_refused():
    with pytest.raises(ValueError, match="laid out as ours are"):
        decode([by_tensorflow([101, 30_521, 102, 0], 2**40)], FRAME)


def test_each_cut_is_refused():
    for end in range(len(GOOD)):
        with pytest.raises(ValueError, match=REFUSED):
            decode([GOOD[:end]], FRAME)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_changes_a_number(place, change):
    payload = GOOD[:place] + bytes([GOOD[place] ^ change]) + GOOD[place + 1 :]
    try:
        input_ids, example_id = decode([payload], FRAME)
    except ValueError:
        return
    assert input_ids.shape == (1, 4)
    assert (input_ids.tolist(), example_id.tolist()) != ([[101, 30_521, 102, 0]], [2**40])


@given(st.binary(max_size=80))
def test_what_is_no_example_is_refused(payload):
    with pytest.raises(ValueError, match=REFUSED):
        decode([payload], FRAME)
