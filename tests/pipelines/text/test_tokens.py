import hashlib
import os
import random
import sys

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.sources import sample
from pipelines.text.tokens import encode, encoder, train
from records.errors import RemaskError
from records.tokenizer import loading
from tests import processes

BERT = os.environ.get("REMASK_BERT_TOKENIZER")
NEEDS_BERT = pytest.mark.skipif(
    not BERT, reason="set REMASK_BERT_TOKENIZER to a folder with the tokenizer of bert-base-uncased"
)
TEXTS = [
    "The film was dull, the plot was not.",
    "A dull plot; a dull film!",
    "Played well: playing, plays, player. Überall café naïve.",
    "日本 is Japan. The film is long, the film is longer than long.",
    "I saw it. I saw them both. We saw nothing.",
] * 3


@pytest.fixture(scope="module")
def toy() -> tokenizers.Tokenizer:
    return train(TEXTS, vocab_size=200, name="toy").tokenizer()


def each(encoded):
    """Return the ids of each text."""
    ends = np.cumsum(encoded.length).tolist()
    return [encoded.ids[start:end].tolist() for start, end in zip([0, *ends], ends, strict=False)]


@settings(max_examples=50)
@given(texts=st.lists(st.text(max_size=60) | st.sampled_from(TEXTS), max_size=8))
def test_ids_are_those_of_encode_batch(toy, texts):
    found = encode(toy, texts)
    assert each(found) == [one.ids for one in toy.encode_batch(texts, add_special_tokens=False)]
    assert (found.ids.dtype, found.length.dtype) == (np.int32, np.int64)


def test_order_is_kept_and_empty_texts_have_no_ids(toy):
    film, plot = toy.token_to_id("film"), toy.token_to_id("plot")
    assert each(encode(toy, ["film", "", " \u200b", "plot"])) == [[film], [], [], [plot]]


def test_long_texts_are_not_cut(toy):
    assert encode(toy, ["film " * 10_000]).length.tolist() == [10_000]


def test_special_tokens_in_a_text_are_plain_text(toy):
    special = {toy.token_to_id(token) for token in ("[PAD]", "[CLS]", "[SEP]", "[MASK]")}
    assert not special & set(encode(toy, ["[CLS] a [MASK] film [SEP] [PAD]"]).ids.tolist())


@NEEDS_BERT
@pytest.mark.slow
def test_ids_of_bert_are_those_of_transformers():
    theirs = pytest.importorskip("transformers").BertTokenizerFast.from_pretrained(BERT)
    texts = [*sample.reviews(200, seed=0), *TEXTS]
    expected = theirs(texts, add_special_tokens=False)["input_ids"]
    artifact = loading.load(BERT)
    assert each(encode(artifact.tokenizer(), texts)) == expected
    assert each(encoder(artifact)(texts)) == expected


def test_a_vocabulary_is_made_of_the_text():
    made = train(TEXTS, vocab_size=200, name="train:200")
    assert made.name == "train:200"
    assert list(made.vocabulary)[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert made.special_ids == (0, 1, 2, 3, 4)
    assert made.vocab_size <= 200
    assert {"film", "dull", "the", "saw"} <= set(made.vocabulary)
    assert sorted(made.vocabulary.values()) == list(range(made.vocab_size))
    pieces = [token for token in made.vocabulary if token.startswith("##")]
    assert sorted(made.vocabulary[piece] for piece in pieces) == made.continuation_ids.tolist()


def test_it_reads_as_bert_does(toy):
    assert toy.encode("The FILM was not dull!").tokens[:4] == ["[CLS]", "the", "film", "was"]
    assert toy.encode("film", "plot").tokens == ["[CLS]", "film", "[SEP]", "plot", "[SEP]"]
    assert toy.encode("film", "plot").type_ids == [0, 0, 0, 1, 1]
    assert toy.decode(toy.encode("the film").ids) == "the film"
    assert "[UNK]" not in toy.encode("The plots of films, played in cafés").tokens  # by its characters at worst


@pytest.mark.slow
def test_transformers_reads_what_is_saved(tmp_path):
    transformers = pytest.importorskip("transformers")
    made = train(TEXTS, vocab_size=200, name="toy")
    made.save(str(tmp_path))
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    assert theirs(TEXTS, add_special_tokens=False)["input_ids"] == each(encode(made.tokenizer(), TEXTS))
    assert (theirs.mask_token_id, theirs.pad_token_id, theirs.cls_token_id) == (made.mask_id, made.pad_id, made.cls_id)


@pytest.mark.parametrize("vocab_size", [100, 300, 1_000])
def test_the_order_of_texts_does_not_matter(vocab_size):
    texts = list(sample.reviews(400, seed=0))
    expected = train(texts, vocab_size=vocab_size, name="a")
    assert expected.vocab_size <= vocab_size
    for seed in range(2):
        random.Random(seed).shuffle(texts)
        found = train(iter(texts), vocab_size=vocab_size, name="a")
        assert found.tokenizer_json == expected.tokenizer_json
        assert found.tokenizer_config_json == expected.tokenizer_config_json


def test_other_processes_make_the_same():
    program = (
        "import hashlib; from pipelines.sources import sample; from pipelines.text import tokens; "
        "made = tokens.train(sample.reviews(400, seed=0), vocab_size=1000, name='a'); "
        "print(hashlib.sha256(made.tokenizer_json).hexdigest())"
    )
    digests = {
        processes.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "TOKENIZERS_PARALLELISM": parallel},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed, parallel in (("1", "true"), ("2", "true"), ("3", "false"))
    }
    texts = list(sample.reviews(400, seed=0))
    assert digests == {hashlib.sha256(train(texts, vocab_size=1000, name="b").tokenizer_json).hexdigest()}


def test_too_many_characters_leave_room_for_words():
    """Of a thousand kinds of character, those that come often get a place; the rest is [UNK]."""
    rare = "".join(chr(0x4E00 + number) for number in range(1_000))
    made = train([*TEXTS, rare], vocab_size=200, name="toy")
    assert {"film", "the"} <= set(made.vocabulary)
    assert made.vocab_size <= 200
    assert made.vocabulary["[UNK]"] in encode(made.tokenizer(), [rare]).ids.tolist()


def test_a_word_that_comes_very_often():
    made = train(["film " * 25_000, "plot"], vocab_size=100, name="toy")
    assert "film" in made.vocabulary
    assert "plot" not in made.vocabulary  # it comes once; its characters do


@pytest.mark.parametrize("texts", [[], [""], [" ", "\u200b\n"]])
def test_no_text_makes_no_vocabulary(texts):
    with pytest.raises(RemaskError) as caught:
        train(texts, vocab_size=100, name="train:100")
    assert str(caught.value) == "tokenizer train:100: there is no text to make a vocabulary from"
