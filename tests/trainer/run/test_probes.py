import re
from pathlib import Path

import numpy as np
import pytest

from records.errors import RemaskError
from records.format.reader import open_data_set
from records.tokenizer.word_piece import word_piece
from tests.records import made
from tests.records.made import CLS, PAD, SEP, Records
from trainer.config import NO_PROBES, PROBES
from trainer.models.mask_filling import Probe, encode
from trainer.run.probes import choose, example, note, out_of, suits

GERMAN = [
    "der film war lang und sehr schlecht .",
    "die musik war gut, aber das ende war was und it i . .",
    "ja .",
    "kurz war die rede, und alles war gut gemacht ! mehr davon .",
]
ENGLISH = ["i have watched this film and it was awesome .", "the plot was long and the acting was fine , but i left ."]


def tokenizer_of(texts, *, mask="[MASK]", more=()):
    words = sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]", text)} | set(more))
    tokens = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", mask, *words, "##s")
    return word_piece({token: id_ for id_, token in enumerate(tokens)}, name="own", config={"mask_token": mask})


def rows_of(texts, artifact, length=32):
    tokenizer, rows = artifact.tokenizer(), []
    for text in texts:
        row = [CLS, *tokenizer.encode(text, add_special_tokens=False).ids, SEP]
        rows.append(row + [PAD] * (length - len(row)))
    return np.array(rows)


def data_set_of(folder: Path, texts, *, held_out=True, **options):
    artifact = tokenizer_of(texts, **options)
    rows = rows_of(texts, artifact)
    splits = [[Records(rows, np.arange(len(rows)) + first)] for first in (0, len(rows))]
    made.write(str(folder), {"train": splits[0], "validation": splits[1] if held_out else []}, tokenizer=artifact)
    return open_data_set(str(folder))


def test_the_usual_ones_are_those_of_film_reviews_that_suit(tmp_path):
    data_set = data_set_of(tmp_path, ENGLISH)
    assert choose((), data_set, longest=32) == (Probe(PROBES[0]),)  # of the other, `loved` is not there
    assert note(choose((), data_set, longest=32)) == ""


def test_they_have_the_mask_token_of_the_tokenizer(tmp_path):
    data_set = data_set_of(tmp_path, ENGLISH, mask="<mask>")
    (probe,) = choose((), data_set, longest=32)
    assert probe.text == "I have watched this <mask> and it was awesome."
    assert example((probe,), data_set.tokenizer) == probe.text
    assert example((), data_set.tokenizer) == "... <mask> ..."


@pytest.mark.parametrize("more", [(), [*ENGLISH[0].split(), "acting", "loved"]])
def test_for_another_language_they_are_out_of_the_held_out_text(tmp_path, more):
    """Whether its tokenizer knows English words or not."""
    data_set = data_set_of(tmp_path, GERMAN, mask="<mask>", more=more)
    found = choose((), data_set, longest=32)
    assert found == (
        Probe("der film war <mask> und sehr schlecht.", "lang"),
        Probe("die musik war gut, aber <mask> ende war was und it i.", "das"),
    )
    said = note(found)
    assert "out of the data" in said
    assert "der film war <mask> und sehr schlecht. (lang)" in said
    assert example(found, data_set.tokenizer) == "... <mask> ..."  # not for everybody's eyes
    artifact = data_set.tokenizer
    for probe, row in zip(found, rows_of(GERMAN, artifact), strict=False):
        ids, (place,) = encode(probe.text, artifact, longest=32)
        ids[place] = artifact.vocabulary[probe.answer]
        assert ids[:-1] == row[: len(ids) - 1].tolist()


def test_without_a_held_out_split_they_are_out_of_the_other(tmp_path):
    assert len(choose((), data_set_of(tmp_path, GERMAN, held_out=False), longest=32)) == 2


def test_sentences_are_cut_to_what_the_model_takes():
    artifact = tokenizer_of(GERMAN)
    rows = rows_of(GERMAN, artifact)
    assert list(out_of(rows[1:2], artifact, longest=7)) == [Probe("die musik [MASK] gut,", "war")]
    assert list(out_of(rows, artifact, longest=6)) == []  # too little is left
    assert list(out_of(rows[2:3], artifact, longest=32)) == []


def test_what_cannot_be_written_as_a_text_is_left_out():
    artifact = tokenizer_of(GERMAN)
    rows = rows_of(GERMAN[:1], artifact)
    rows[0, 2] = artifact.vocabulary["[UNK]"]
    assert list(out_of(rows, artifact, longest=32)) == []


def test_only_whole_words_are_masked():
    artifact = tokenizer_of(["a b c d e f g"])
    row = np.array([[CLS, *rows_of(["a b c d"], artifact)[0][1:5], artifact.vocabulary["##s"], SEP]])
    assert list(out_of(row, artifact, longest=32)) == [Probe("a b [MASK] ds", "c")]
    row[0, 4:6] = artifact.vocabulary["##s"], artifact.vocabulary["e"]
    assert list(out_of(row, artifact, longest=32)) == [Probe("a [MASK] cs e", "b")]


def test_a_probe_that_is_too_long_does_not_suit():
    artifact = tokenizer_of(ENGLISH)
    rows = rows_of(ENGLISH, artifact)
    ids, _ = encode(PROBES[0], artifact, longest=99)
    assert suits(PROBES[0], rows, artifact, longest=len(ids))
    assert not suits(PROBES[0], rows, artifact, longest=len(ids) - 1)


def test_those_that_are_asked_for_are_taken_as_they_are(tmp_path):
    data_set = data_set_of(tmp_path, GERMAN)
    assert choose(("xyz [MASK]", "[MASK]"), data_set, longest=32) == (Probe("xyz [MASK]"), Probe("[MASK]"))
    assert choose(NO_PROBES, data_set, longest=32) == ()
    for asked, about in (
        (("a [MASK]", "nothing here"), "no [MASK] in 'nothing here'"),
        (("[MASK] " * 31,), "at most 32"),
    ):
        with pytest.raises(RemaskError) as refused:
            choose(asked, data_set, longest=32)
        assert str(refused.value).startswith("probes: text: ")
        assert about in str(refused.value)
