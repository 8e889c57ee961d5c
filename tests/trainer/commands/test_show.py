import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from records.errors import RemaskError
from records.format import manifest, reader
from tests.records import made
from tests.records.made import CLS, FIRST_WORD, MASK, PAD, SEP, Records
from trainer.commands import show
from trainer.config import ShowOptions
from trainer.input.rendering import rendered

A, B, C = FIRST_WORD, FIRST_WORD + 1, FIRST_WORD + 2  # w0, w1, w2
ROWS = [
    [CLS, A, B, C, A, B, SEP, PAD],
    [CLS, B, 8, SEP, CLS, C, SEP, PAD],  # 8 is ##s
    [CLS, C, C, C, C, C, C, SEP],
]


@pytest.fixture
def folder(tmp_path) -> Path:
    shards = [Records(np.array(rows), np.arange(len(rows)) + first) for rows, first in ((ROWS[:2], 7), (ROWS[2:], 9))]
    held_out = Records(shards[1].input_ids, shards[1].example_id + 90)
    return Path(made.write(str(tmp_path), {"train": shards, "validation": [held_out]}))


def shown(capsys, folder: Path, **options: object) -> list[str]:
    assert show.main(ShowOptions(data=str(folder), **options)) == 0
    return capsys.readouterr().out.splitlines()


def test_the_first_sequences_across_shards(folder, capsys):
    expected = [
        "example 7: 7 of 8 tokens, 1 segment",
        "  [CLS] w0 w1 w2 w0 w1 [SEP]",
        "example 8: 7 of 8 tokens, 2 segments",
        "  [CLS] w1 ##s [SEP] [CLS] w2 [SEP]",
        "example 9: 8 of 8 tokens, 1 segment",
        "  [CLS] w2 w2 w2 w2 w2 w2 [SEP]",
    ]
    assert shown(capsys, folder) == expected
    assert shown(capsys, folder, n=1) == expected[:2]
    assert shown(capsys, folder, n=2) == expected[:4]
    assert shown(capsys, folder, n=10**30) == expected
    assert shown(capsys, folder, split="validation") == ["example 99: 8 of 8 tokens, 1 segment", expected[5]]


def test_text_that_a_program_made_is_said_to_be_so(folder, capsys):
    found = manifest.load(str(folder))
    made.save(str(folder), dataclasses.replace(found, data=dataclasses.replace(found.data, synthetic=True)))
    for split in ("train", "validation"):
        lines = shown(capsys, folder, n=1, split=split)
        assert lines[0] == "text: synthetic film reviews (made by remask, not real)"
        assert lines[1].startswith("example ")


def test_compressed_shards(tmp_path, capsys):
    folder = made.data_set(tmp_path, compression="gzip")
    assert len(shown(capsys, tmp_path, n=9)) == 18
    assert reader.open_data_set(folder).compression == "GZIP"


def test_masks_of_three_epochs(folder, capsys):
    lines = shown(capsys, folder, n=1, masks=True, mask_rate=0.6)
    assert lines[1] == "  [CLS] w0 w1 w2 w0 w1 [SEP]"
    epochs = lines[2:5]
    for number, line in enumerate(epochs):
        assert line.startswith(f"  epoch {number}: [CLS] ")
        assert line.count("⟨") == 3
        # Behind each chosen token stands the one to find; with that in its place the text is the text.
        text = line.partition(": ")[2]
        assert re.sub(r"\S+?⟨(\S+)⟩", r"\1", text) == "[CLS] w0 w1 w2 w0 w1 [SEP]"
    assert len({epoch.partition(": ")[2] for epoch in epochs}) == 3
    assert lines[5:] == ["what stands there⟨the word to find⟩; masked, random, kept"]


def test_masks_depend_on_the_seed(folder, capsys):
    one, other = (shown(capsys, folder, n=3, masks=True, seed=seed) for seed in (0, 1))
    assert one != other
    assert one == shown(capsys, folder, n=3, masks=True)


def test_whole_words(folder, capsys):
    lines = shown(capsys, folder, n=2, masks=True, whole_word=True, mask_rate=0.7)
    pieces = [line.split(": ")[1] for line in lines if "epoch" in line and "##s" in line]
    assert all(("⟨w1⟩" in text) == ("⟨##s⟩" in text) for text in pieces)


def row(masked: dict[int, tuple[int, int]]) -> dict[str, np.ndarray]:
    """Return a row of a masked batch, from position -> (what is to be found, what stands there)."""
    unused = 2
    return {
        "masked_lm_positions": np.array([*masked, *[0] * unused]),
        "masked_lm_ids": np.array([*(found for found, _ in masked.values()), *[0] * unused]),
        "masked_lm_weights": np.array([1.0] * len(masked) + [0.0] * unused),
        "input_ids": np.array([masked.get(place, (0, id_))[1] for place, id_ in enumerate(ROWS[0])]),
    }


def test_what_became_of_each_token_is_shown(folder):
    data_set = reader.open_data_set(str(folder))
    masked = row({4: (A, MASK), 1: (A, C), 3: (C, C)})
    assert rendered(data_set, masked["input_ids"], masked) == "[CLS] w2⟨w0⟩ w1 w2⟨w2⟩ [MASK]⟨w0⟩ w1 [SEP]"
    assert rendered(data_set, masked["input_ids"], masked, colour=True) == (
        "[CLS] \x1b[33mw2⟨w0⟩\x1b[0m w1 \x1b[32mw2⟨w2⟩\x1b[0m \x1b[31m[MASK]⟨w0⟩\x1b[0m w1 [SEP]"
    )
    assert rendered(data_set, np.array(ROWS[0])) == "[CLS] w0 w1 w2 w0 w1 [SEP]"


def test_no_colours_unless_it_is_a_terminal_that_wants_them(folder, capsys, monkeypatch):
    assert "\x1b" not in "".join(shown(capsys, folder, masks=True))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert "\x1b[31m" in "".join(shown(capsys, folder, masks=True))
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in "".join(shown(capsys, folder, masks=True))


def test_an_empty_split(tmp_path):
    made.data_set(tmp_path, validation=())
    with pytest.raises(RemaskError) as caught:
        show.main(ShowOptions(data=str(tmp_path), split="validation"))
    assert str(caught.value).startswith(f"{tmp_path}: nothing is held out: of 1 documents ")
    assert f"'make show DATA={tmp_path} SPLIT=train'" in str(caught.value)


def test_no_data_set(tmp_path):
    with pytest.raises(RemaskError, match="no such folder"):
        show.main(ShowOptions(data=str(tmp_path / "none")))


def test_a_damaged_shard(folder):
    path = next(folder.glob("train-00000*"))
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)
    with pytest.raises(RemaskError) as caught:
        show.main(ShowOptions(data=str(folder)))
    assert str(caught.value) == f"{path}, record 0: the CRC of its content is wrong"
