import gzip
import io

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from records.errors import RemaskError
from records.format import tfrecord
from tests.said import must_name

PAYLOADS = st.lists(st.binary(max_size=300), max_size=20)
THREE = [b"first", b"second one", b""]


def written(payloads: list[bytes], *, compress: bool = False) -> bytes:
    file = io.BytesIO()
    tfrecord.write(file, map(tfrecord.framed, payloads), compress=compress)
    return file.getvalue()


def read(content: bytes, *, compress: bool = False) -> list[bytes]:
    return list(tfrecord.read(io.BytesIO(content), name="a.tfrecord", compress=compress))


def refusal(content: bytes, *, compress: bool = False) -> str:
    with pytest.raises(RemaskError) as caught:
        read(content, compress=compress)
    return str(caught.value)


@settings(max_examples=50)
@given(PAYLOADS)
def test_file_is_that_of_tensorflow(tmp_path_factory, payloads):
    path = str(tmp_path_factory.mktemp("tfrecord") / "by_tensorflow")
    with tf.io.TFRecordWriter(path) as writer:
        for payload in payloads:
            writer.write(payload)
    with open(path, "rb") as file:
        assert file.read() == written(payloads)


@given(PAYLOADS, st.booleans())
def test_what_is_written_is_what_is_read(payloads, compress):
    assert read(written(payloads, compress=compress), compress=compress) == payloads


@pytest.mark.parametrize("compression", ["", "GZIP"])
def test_tensorflow_reads_it(tmp_path, compression):
    (tmp_path / "file").write_bytes(written(THREE, compress=bool(compression)))
    assert [each.numpy() for each in tf.data.TFRecordDataset(str(tmp_path / "file"), compression)] == THREE


def test_compressed_files_are_the_same_each_time_and_hold_what_others_hold():
    assert written(THREE, compress=True) == written(THREE, compress=True)
    assert gzip.decompress(written(THREE, compress=True)) == written(THREE)


def test_each_damaged_byte_is_found_and_its_record_named():
    content = written(THREE)
    starts = [0, 16 + 5, 2 * 16 + 5 + 10, len(content)]
    for place in range(len(content)):
        record = max(number for number, start in enumerate(starts) if start <= place)
        part = place - starts[record]
        damaged = bytes((*content[:place], content[place] ^ 0x10, *content[place + 1 :]))
        what = "length" if part < 12 else "content"
        assert refusal(damaged) == f"a.tfrecord, record {record}: the CRC of its {what} is wrong"


def test_each_cut_is_found_and_its_record_named():
    content = written(THREE)
    borders = [0, 16 + 5, 2 * 16 + 5 + 10, len(content)]
    for end in range(len(content)):
        if end in borders:  # then what is left is a whole file, and only the manifest knows that it was longer
            assert len(read(content[:end])) == borders.index(end)
            continue
        record = max(number for number, start in enumerate(borders) if start <= end)
        part = "the record's header" if end - borders[record] < 12 else "the record"
        assert refusal(content[:end]) == f"a.tfrecord, record {record}: the file ends inside {part}"


def test_each_damaged_byte_of_a_compressed_file_is_found():
    content = written([b"some words that compress, that compress, that compress"] * 5, compress=True)
    header = {4, 5, 6, 7, 8, 9}  # time, level and system, which say nothing about the content
    for place in set(range(len(content))) - header:
        damaged = bytes((*content[:place], content[place] ^ 0x55, *content[place + 1 :]))
        assert refusal(damaged, compress=True).startswith("a.tfrecord, record ")
    for end in range(1, len(content)):
        assert refusal(content[:end], compress=True).startswith("a.tfrecord, record ")


def test_damage_of_a_compressed_file_reads_well():
    content = written(THREE, compress=True)
    must_name(
        refusal(content[:-9], compress=True),
        "a.tfrecord, record 3:",
        "compressed file is damaged",
        "(Compressed file ended before the end-of-stream marker was reached)",
    )
    must_name(
        refusal(written(THREE), compress=True),
        "a.tfrecord, record 0:",
        "compressed file is damaged",
        "(Not a gzipped file (b'\\x05\\x00'))",
    )
