import csv
import re
from dataclasses import asdict

import numpy as np
import pytest

from benchmarks import gpu_batches
from benchmarks.config import GpuCarryOptions
from records.errors import RemaskError
from tests.conftest import WORDS


@pytest.fixture(scope="module")
def made(tmp_path_factory, toy_tokenizer):
    """Return a file of batches of 24 short texts, 64 tokens of each kind, and their ids."""
    folder = tmp_path_factory.mktemp("batches")
    toy_tokenizer.save(str(folder / "tokenizer"))
    texts = [" ".join(WORDS[(first + place) % 20] for place in range(6 + first % 3)) for first in range(24)]
    with open(folder / "texts.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in texts)])
    out = str(folder / "made")
    options = GpuCarryOptions(
        csv=str(folder / "texts.csv"), tokenizer=str(folder / "tokenizer"), length=(32,), tokens=128, out=out
    )
    gpu_batches.make(options)
    vocabulary = toy_tokenizer.vocabulary
    ids = {tuple(vocabulary[word] for word in text.split()) for text in texts}
    return f"{out}/batches.npz", ids


def unmasked(batch):
    """Return the ids of a batch as they were before they were masked."""
    ids = batch["input_ids"].copy()
    row, place = np.nonzero(batch["masked_lm_weights"])
    ids[row, batch["masked_lm_positions"][row, place]] = batch["masked_lm_ids"][row, place]
    return ids


def segments(ids, toy_tokenizer):
    """Return what stands in each row between [CLS] and [SEP]."""
    text = [" ".join(map(str, row[row != 0])) for row in ids]
    pattern = rf"\b{toy_tokenizer.cls_id} (.*?) {toy_tokenizer.sep_id}\b"
    return [[tuple(map(int, each.split())) for each in re.findall(pattern, row)] for row in text]


def test_batches_are_records_masked(made, toy_tokenizer):
    path, texts = made
    for rows in ("padded", "packed"):
        first, second = gpu_batches.read(path, length=32, rows=rows, sequences=2)
        for batch in (first, second):
            assert {name: (array.shape, array.dtype) for name, array in batch.items()} == {
                "input_ids": ((2, 32), np.int32),
                "masked_lm_positions": ((2, 5), np.int32),
                "masked_lm_ids": ((2, 5), np.int32),
                "masked_lm_weights": ((2, 5), np.float32),
            }
            found = segments(unmasked(batch), toy_tokenizer)
            assert {one for row in found for one in row} <= texts
            assert all((len(row) > 1) == (rows == "packed") for row in found)
        assert not np.array_equal(first["input_ids"], second["input_ids"])


def test_it_says_what_it_is_made_of(made, toy_tokenizer):
    assert asdict(gpu_batches.describe(made[0])) == {
        "text": "texts.csv",
        "vocab_size": 31,
        "cls_token_id": toy_tokenizer.cls_id,
        "synthetic": False,
    }
    assert gpu_batches.describe("").synthetic


def test_of_fewer_sequences_than_a_batch_holds_some_come_again(made):
    (batch,) = gpu_batches.read(made[0], length=32, rows="padded", sequences=5)
    assert np.array_equal(batch["input_ids"][4], batch["input_ids"][0])
    assert len({tuple(row) for row in batch["input_ids"].tolist()}) == 4


def test_a_length_that_is_not_there_is_refused(made):
    with pytest.raises(
        RemaskError, match=r"it has no padded sequences of 64; .*make bench-gpu-carry CSV=.*--length 64 128 512"
    ):
        gpu_batches.read(made[0], length=64, rows="padded", sequences=1)


@pytest.mark.parametrize("content", [b"", b"PK\3\4 and no more", b"text"])
def test_what_is_no_such_file_is_refused(tmp_path, content):
    path = tmp_path / "batches.npz"
    path.write_bytes(content)
    with pytest.raises(RemaskError, match=r"batches\.npz: no batches there .*make bench-gpu-carry CSV=FILE"):
        gpu_batches.describe(str(path))


def test_another_archive_of_arrays_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(RemaskError, match=r"other\.npz: no batches there"):
        gpu_batches.describe(str(tmp_path / "other.npz"))


def test_at_random_rows_are_as_they_are_called():
    (padded,) = gpu_batches.read("", length=128, rows="padded", sequences=64)
    (packed,) = gpu_batches.read("", length=128, rows="packed", sequences=64)
    filled = [np.mean(batch["input_ids"] > 0) for batch in (padded, packed)]
    assert filled[0] < 0.95 < filled[1]
    assert np.all(np.sum(padded["input_ids"] == 101, 1) == 1)
    assert np.mean(np.sum(packed["input_ids"] == 101, 1)) > 1
