"""The ids by way of words are those of HuggingFace's tokenizer, for whatever text Unicode can make."""
# ruff: noqa: RUF001  characters that look like others are what this is about

import csv
import itertools
import json
import os
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers

from pipelines.text.clean import clean
from pipelines.text.tokens import encode, encoder, train
from pipelines.text.words import _SPREAD, WordEncoder, _Table, suits
from records.tokenizer import loading
from records.tokenizer.artifact import TokenizerArtifact
from records.tokenizer.special import ROLES
from records.tokenizer.word_piece import word_piece

REVIEWS, BERT = os.environ.get("REMASK_REVIEWS_CSV"), os.environ.get("REMASK_BERT_TOKENIZER")

CASES = {
    "uncased": {"do_lower_case": True},
    "cased": {"do_lower_case": False},
    "uncased with accents": {"do_lower_case": True, "strip_accents": False},
    "cased without accents, Chinese words": {
        "do_lower_case": False,
        "strip_accents": True,
        "tokenize_chinese_chars": False,
    },
}

ODD = (
    "\0\x01\t\n\v\f\r\x1b\x1c\x1d\x1e\x1f\x7f\x80\x85\x9f"  # controls, white space or not
    "\xa0\xad\u1680\u2003\u200b\u200c\u200d\u2028\u2029\u202f\u2060\u3000\ufeff\ufffd\ufffc\ufff9"  # and beyond ASCII
    "éÅñçİıIßẞſKÅﬁǅΣσςΩ\u0345\u0130ŉΐև"  # letters that change their number or kind when they become small
    "\u0301\u0300\u0327\u0338\u0323\u20dd\u0e31\u064b\u05b0\u093f\u3099\U000e0100"  # marks, of several classes
    "\u037e\u1fef\u2260\u226e\u2126≠–—‘’“”…¿«»·।。、「」・〜！？（"  # punctuation; some decomposes to ASCII
    "日本語字㐀豈\u2f00\U00020000\U0002f800\U00030000ひカｶ가각힣\u1100\u1161"  # CJK, Kana, Hangul
    "\U0001f600\U0001f468\U0001f3fd\u2640\ufe0f\U0001f1e9€$¢+<=>|~^`©®™°²½№"  # emoji and symbols
    "жЁйअकाกำ\u0627\u0644\u202e\u200f\U0001d400"  # other scripts, directions
    "\ue000\U000f0000\U0010ffff\u0378\ufdd0"  # private use, unassigned
)
ASCII = [chr(code) for code in range(128)]
WORDS = [
    *(
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "[PAD]",
        "[UNK]",
        "##s",
        "don't",
        "don\u2019t",
        "U.S.",
        "a\u0301b",
        "ΑΣ",
        "ΑΣ Σ",
        "...",
    ),
    *("x" * count for count in (7, 8, 9, 16, 63, 64, 65, 99, 100, 101, 200)),
    *("é" * count for count in (4, 5, 33, 99, 100, 101)),
    *("e\u0301" * count for count in (3, 50, 51, 100, 101)),
    "日" * 101,
    "\u200b" * 101,
    "a" + "\u0301" * 150,
    " " * 20,
    "longer than eight" + " " * 20,
]
TEXTS = st.lists(
    st.sampled_from(ASCII) | st.sampled_from(ODD) | st.sampled_from(WORDS) | st.characters(exclude_categories=["Cs"]),
    max_size=30,
).map("".join)


def spelled_out(characters, config):
    """Return a tokenizer that knows each of these characters, so that whatever is done to one of them shows."""
    normalizer = normalizers.BertNormalizer(
        lowercase=config["do_lower_case"],
        strip_accents=config.get("strip_accents"),
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
    )
    known = sorted(set(normalizer.normalize_str("".join(map(chr, range(33, 127))) + "".join(characters))) - {" "})
    tokens = [*ROLES.values(), *known, *(f"##{character}" for character in known)]
    return word_piece({token: number for number, token in enumerate(tokens)}, name="characters", config=config)


def check_same(artifact, found, texts):
    """Check ids against those of HuggingFace's way, and say which text is the first that differs."""
    expected = encode(artifact.tokenizer(), texts)
    bounds = [np.cumsum([0, *each.length]) for each in (found, expected)]
    for number, text in enumerate(texts):
        ours, theirs = (
            each.ids[at[number] : at[number + 1]].tolist() for each, at in zip((found, expected), bounds, strict=True)
        )
        assert ours == theirs, ascii(text)
    assert len(found.ids) == len(expected.ids)
    assert (found.ids.dtype, found.length.dtype) == (np.int32, np.int64)


@pytest.fixture(scope="module", params=CASES)
def artifact(request):
    return spelled_out(ODD, CASES[request.param])


@pytest.fixture(scope="module")
def lasting(artifact):
    """Return an encoder whose memory lasts from one example to the next."""
    return encoder(artifact)


@settings(max_examples=300)
@given(texts=st.lists(TEXTS, max_size=6))
def test_any_texts_have_the_ids_of_huggingface(artifact, lasting, texts):
    check_same(artifact, lasting(texts), texts)


@settings(max_examples=100)
@given(batches=st.lists(st.lists(TEXTS, max_size=4), max_size=4), max_bytes=st.integers(0, 3000))
def test_so_they_do_when_the_memory_starts_anew(artifact, batches, max_bytes):
    lowercase = json.loads(artifact.tokenizer_json)["normalizer"]["lowercase"]
    forgetful = WordEncoder(artifact.tokenizer(), lowercase=lowercase, max_bytes=max_bytes)
    for texts in batches:
        check_same(artifact, forgetful.encode(texts), texts)


def check_characters(codes, config):
    """Check characters by themselves, within words, beside themselves, punctuation, final sigma and marks."""
    characters = [chr(code) for code in codes if not 0xD800 <= code < 0xE000]
    artifact = spelled_out(characters, config)
    texts = [f"{c} a{c}B ,{c}. {c}{c} Σ{c} AΣ{c}\u0301 {c}longer{c}than eight\t{c}" for c in characters]
    check_same(artifact, encoder(artifact)(texts), texts)


@pytest.mark.parametrize("case", CASES)
def test_each_character_of_the_first_scripts(case):
    check_characters(range(0x2000), CASES[case])


@pytest.mark.parametrize("case", CASES)
def test_some_characters_of_all_others(case):
    check_characters(range(0x2000, 0x110000, 251), CASES[case])


@pytest.mark.slow
@pytest.mark.parametrize("case", ["uncased", "uncased with accents"])
@pytest.mark.parametrize("first", [*range(0, 0x40000, 0x10000), *range(0xE0000, 0x110000, 0x10000)], ids=hex)
def test_each_character_of_unicode(case, first):
    """Planes 4 to 13 have none; the test above looks into them."""
    check_characters(range(first, first + 0x10000), CASES[case])


@pytest.mark.slow
@pytest.mark.skipif(
    not (REVIEWS and BERT), reason="set REMASK_REVIEWS_CSV and REMASK_BERT_TOKENIZER, see CONTRIBUTING.md"
)
def test_real_reviews_have_the_ids_of_huggingface():
    artifact = loading.load(BERT)
    by_words = encoder(artifact)
    assert isinstance(by_words.__self__, WordEncoder)
    with open(REVIEWS, newline="", encoding="utf-8", errors="replace") as file:
        texts = (row["text"] for row in csv.DictReader(file))
        while batch := list(itertools.islice(texts, 1000)):
            check_same(artifact, by_words(batch), batch)
            cleaned = list(map(clean, batch))
            check_same(artifact, by_words(cleaned), cleaned)


def changed(**parts):
    """Return a small tokenizer of BERT's kind in which parts of tokenizer.json are others."""
    made = train(["the film, the plot"], vocab_size=100, name="small")
    description = json.loads(made.tokenizer_json)
    normalizer, added = parts.pop("normalizer", {}), parts.pop("added_token", {})
    if normalizer is None:
        description["normalizer"] = None
    else:
        description["normalizer"].update(normalizer)
    if added:
        description["added_tokens"].append({**description["added_tokens"][-1], **added})
    description.update(parts)
    return TokenizerArtifact("small", json.dumps(description).encode(), made.tokenizer_config_json)


@pytest.mark.parametrize(
    ("parts", "suitable"),
    [
        ({}, True),
        ({"normalizer": {"lowercase": False, "strip_accents": True, "handle_chinese_chars": False}}, True),
        ({"added_token": {"content": "<film>", "id": 90, "special": True}}, True),
        ({"normalizer": {"clean_text": False}}, False),
        ({"normalizer": None}, False),
        ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"}]}}, False),
        ({"pre_tokenizer": None}, False),
        ({"pre_tokenizer": {"type": "Whitespace"}}, False),
        ({"added_token": {"content": "il", "id": 90, "special": False}}, False),
        ({"added_token": {"content": "the film", "id": 90, "special": False, "normalized": True}}, False),
    ],
    ids=str,
)
def test_only_what_is_exact_goes_by_words(parts, suitable):
    artifact = changed(**parts)
    assert suits(json.loads(artifact.tokenizer_json)) is suitable
    texts = ["The FILM,\x0b the\x01 <film> plot", "film\xa0plot", "", "it [MASK] [CLS] café"]
    check_same(artifact, encoder(artifact)(texts), texts)


def test_other_models_go_huggingfaces_way():
    description = json.loads(changed().tokenizer_json)
    assert not suits({**description, "model": {"type": "BPE", "vocab": {}, "merges": []}})


def test_the_memory_is_bounded():
    by_words = WordEncoder(changed().tokenizer(), lowercase=True, max_bytes=1 << 19)
    tracemalloc.start()
    try:
        for batch in range(30):  # 60,000 words would take 7 MB
            by_words.encode([f"{batch:x}a{number:x}{'é' * (number % 5)}" for number in range(2000)])
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2 << 20  # the bound, and a batch of 2,000 words


@given(st.lists(st.lists(st.integers(1, 2**64 - 1) | st.integers(1, 40), max_size=200), max_size=5), st.booleans())
def test_a_table_is_a_dict(batches, crowded):
    """Crowded, all words want to be in the first slots."""
    shared = pow(int(_SPREAD), -1, 2**64)
    table, expected = _Table(), {}
    for batch in batches:
        keys = list({key * shared % 2**64 if crowded and key < 2**50 else key for key in batch} - {0, *expected})
        numbers = range(len(expected), len(expected) + len(keys))
        expected.update(zip(keys, numbers, strict=True))
        table.add(np.array(keys, np.uint64), np.array(numbers, np.int32))
        asked = [*expected, 2**63 + 11]
        found = table.find(np.array(asked, np.uint64)).tolist()
        assert found == [expected.get(key, -1) for key in asked]
