import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from records.format import tfrecord
from records.format.example import encode
from records.format.frame import Frame, Sum64
from records.format.reader import sum64

BERT = 30_522


@pytest.mark.parametrize(
    ("vocab_size", "id_bytes"), [(1, 1), (128, 1), (129, 2), (16_384, 2), (16_385, 3), (BERT, 3), (2**21 + 1, 4)]
)
def test_bytes_of_an_id(vocab_size, id_bytes):
    assert Frame(8, vocab_size).id_bytes == id_bytes


@pytest.mark.parametrize("length", [1, 3, 8, 128, 512])
def test_the_template_is_a_record_of_zeros(length):
    frame = Frame(length, BERT)
    payload = frame.template[frame.payload].tobytes()
    assert frame.template.tobytes() == tfrecord.framed(payload)
    read = tf.train.Example.FromString(payload).features.feature
    assert read["input_ids"].int64_list.value == [0] * length
    assert read["example_id"].int64_list.value == [0]
    assert frame.template[frame.input_ids].tobytes() == b"\x80\x80\x00" * length
    assert frame.template[frame.example_id].tobytes() == b"\x80" * 8 + b"\x00"


def made(frame: Frame, count: int, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    ids = draw.integers(0, 2**63, count)
    return encode(draw.integers(0, frame.vocab_size, (count, frame.max_seq_length)), ids, frame)


def checksum(*parts: np.ndarray, frame: Frame) -> str:
    total = Sum64(frame)
    for rows in parts:
        total.add(rows)
    return total.hexdigest()


@settings(max_examples=30)
@given(st.integers(1, 60), st.sampled_from([100, 5_000, BERT, 2**22]), st.integers(0, 9))
def test_tensorflow_finds_the_same_checksum(length, vocab_size, count):
    frame = Frame(length, vocab_size)
    rows = made(frame, count)
    assert f"{int(sum64(tf.constant(rows), frame)):016x}" == checksum(rows, frame=frame)


def test_the_order_of_records_does_not_matter_nor_how_they_are_added():
    frame = Frame(7, BERT)
    rows = made(frame, 10)
    assert checksum(rows, frame=frame) == checksum(rows[::-1], frame=frame)
    assert checksum(rows, frame=frame) == checksum(rows[:3], rows[3:], frame=frame)


def test_each_flipped_bit_changes_the_checksum():
    frame = Frame(5, BERT)
    rows = made(frame, 3)
    expected = checksum(rows, frame=frame)
    for place in range(rows.size):
        for bit in range(8):
            changed = rows.copy()
            changed.flat[place] ^= 1 << bit
            assert checksum(changed, frame=frame) != expected


def test_changes_of_two_records_do_not_cancel():
    """The same bit set in one record and cleared in another: a plain sum of weighted words would not see it."""
    frame = Frame(5, BERT)
    rows = np.repeat(made(frame, 1), 2, axis=0)
    place = frame.input_ids.start
    rows[0, place], rows[1, place] = 0x80, 0x81
    swapped = rows.copy()
    swapped[0, place], swapped[1, place] = 0x81, 0x80
    assert checksum(swapped, frame=frame) == checksum(rows, frame=frame)  # it is the same two records
    rows[1, place + 3 : place + 6] ^= 1  # of which one differs in another place, too
    changed = rows.copy()
    changed[0, place] ^= 1
    changed[1, place] ^= 1
    assert checksum(changed, frame=frame) != checksum(rows, frame=frame)


def test_a_record_lost_or_doubled_changes_the_checksum():
    frame = Frame(5, BERT)
    rows = made(frame, 4)
    expected = checksum(rows, frame=frame)
    assert checksum(rows[:3], frame=frame) != expected
    assert checksum(rows, rows[:1], frame=frame) != expected
