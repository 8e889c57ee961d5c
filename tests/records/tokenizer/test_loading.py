import json
import os
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from records.errors import RemaskError
from records.tokenizer import loading
from records.tokenizer.artifact import TOKENIZER_CONFIG_JSON, TOKENIZER_JSON, TokenizerArtifact
from tests.said import must_name

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PLAIN = (
    "[unused0]",
    "[unused1]",
    "##s",
    "##ing",
    "##",
    "a",
    "film",
    "play",
    "[",
    "]",
    "mask",
    "cls",
    "unused0",
    "café",
)
BERT = os.environ.get("REMASK_BERT_TOKENIZER")
NEEDS_BERT = pytest.mark.skipif(
    not BERT, reason="set REMASK_BERT_TOKENIZER to a folder with the tokenizer of bert-base-uncased"
)


def toy(tokens=(*SPECIALS, *PLAIN), *, specials=SPECIALS, shift=0) -> Tokenizer:
    """Return a tokenizer made with HuggingFace's own package."""
    made = Tokenizer(models.WordPiece({token: id_ + shift for id_, token in enumerate(tokens)}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens([token for token in specials if token in tokens])
    return made


def artifact(made: Tokenizer | None = None, config: object = None) -> TokenizerArtifact:
    return TokenizerArtifact("toy", (made or toy()).to_str().encode(), json.dumps(config or {}).encode())


def refusal(call, *arguments) -> str:
    with pytest.raises(RemaskError) as caught:
        call(*arguments)
    return str(caught.value)


def test_ids():
    made = artifact()
    assert (made.pad_id, made.cls_id, made.sep_id, made.mask_id) == (0, 2, 3, 4)
    assert made.special_ids == (0, 1, 2, 3, 4)
    assert made.mask_token == "[MASK]"
    assert made.vocab_size == 19
    assert made.vocabulary["film"] == 11


def test_neither_special_nor_unused_tokens_are_ordinary():
    assert artifact().ordinary_ids.tolist() == list(range(7, 19))
    assert artifact().ordinary_ids.dtype == "int32"


def test_pieces_that_continue_a_word():
    assert artifact().continuation_ids.tolist() == [7, 8]  # "##" alone is two characters of a text


def test_a_vocabulary_may_have_holes_and_added_tokens():
    made = toy()
    made.add_tokens(["wholly", "new"])
    made.add_special_tokens(["[CITY]"])
    found = artifact(made)
    assert found.vocab_size == 22
    assert found.special_ids == (0, 1, 2, 3, 4, 21)
    assert set(found.ordinary_ids.tolist()) >= {19, 20}


def test_special_tokens_written_otherwise():
    words = {"[PAD]": "<pad>", "[CLS]": "<s>", "[SEP]": "</s>", "[MASK]": "<mask>"}
    made = toy([words.get(token, token) for token in (*SPECIALS, *PLAIN)], specials=[*words.values(), "[UNK]"])
    config = {"pad_token": "<pad>", "cls_token": "<s>", "sep_token": "</s>", "mask_token": {"content": "<mask>"}}
    found = artifact(made, config)
    assert (found.pad_id, found.cls_id, found.sep_id, found.mask_id) == (0, 2, 3, 4)
    assert found.mask_token == "<mask>"


def test_special_tokens_that_are_not_marked_as_special_are_never_masked_all_the_same():
    assert artifact(toy(specials=())).special_ids == (0, 1, 2, 3, 4)


def test_special_tokens_in_a_text_are_plain_text():
    made = artifact().tokenizer()
    assert made.encode("a [MASK] film", add_special_tokens=False).tokens == ["a", "[", "mask", "]", "film"]
    assert made.encode("[CLS] [unused0]", add_special_tokens=False).tokens == ["[", "cls", "]", "[", "unused0", "]"]


def test_it_neither_pads_nor_cuts():
    described = toy()
    described.enable_truncation(4)
    described.enable_padding(length=8)
    made = artifact(described).tokenizer()
    assert made.encode("film " * 9, add_special_tokens=False).tokens == ["film"] * 9
    assert made.encode("film", add_special_tokens=False).tokens == ["film"]


def test_sha256_is_that_of_the_file():
    assert TokenizerArtifact("a", artifact().tokenizer_json, b"{}").sha256 == artifact().sha256
    assert artifact(toy((*SPECIALS, "x"))).sha256 != artifact().sha256


def test_no_mask():
    must_name(
        refusal(artifact, toy([token for token in (*SPECIALS, *PLAIN) if token != "[MASK]"])),
        "tokenizer toy:",
        "no mask_token",
        "found: [CLS], [PAD], [SEP], [UNK]",
        "needs",
        "[MASK], [CLS], [SEP] and [PAD]",
        "bert-base-uncased",
    )


def test_no_special_tokens_at_all():
    assert "no mask_token (special tokens found: none);" in refusal(artifact, toy(["[UNK]", "a"], specials=()))


def test_padding_that_is_not_zero():
    assert refusal(artifact, toy(shift=3)) == "tokenizer toy: it pads with id 3, records pad with id 0"


def test_load_reads_what_save_wrote(tmp_path):
    made = artifact(config={"do_lower_case": False})
    made.save(str(tmp_path))
    found = loading.load(str(tmp_path))
    assert (found.tokenizer_json, found.tokenizer_config_json) == (made.tokenizer_json, made.tokenizer_config_json)
    assert found.name == str(tmp_path)


def test_a_config_is_not_needed(tmp_path):
    (tmp_path / TOKENIZER_JSON).write_bytes(artifact().tokenizer_json)
    assert loading.load(str(tmp_path)).special_ids == (0, 1, 2, 3, 4)


def test_a_folder_without_a_tokenizer(tmp_path):
    (tmp_path / "model.safetensors").touch()
    assert refusal(loading.load, str(tmp_path)) == (
        f"tokenizer {tmp_path}: neither tokenizer.json nor vocab.txt is there"
    )


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"\xff\xff",
        b"[]",
        b"3",
        b"{}",
        b'{"model": {}}',
        b'{"model": {"vocab": {}}}',
        b'{"model": {"vocab": []}, "added_tokens": []}',
        b'{"model": {"vocab": {}}, "added_tokens": [{"content": "[PAD]", "id": 0}]}',
        Tokenizer(models.Unigram([("[PAD]", 0.0), ("[MASK]", -1.0)])).to_str().encode(),
        artifact().tokenizer_json.replace(b'"WordPiece"', b'"Unheard-of"'),
        artifact().tokenizer_json.replace(b'"film":11', b'"film":"11"'),
    ],
)
def test_a_damaged_tokenizer(tmp_path, content):
    (tmp_path / TOKENIZER_JSON).write_bytes(content)
    said = refusal(loading.load, str(tmp_path))
    assert said.startswith(f"tokenizer {tmp_path}: its tokenizer.json")
    assert "word-piece tokenizer" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        (b'"film":11', b'"film":"11"', ("model.vocab.film:", '"11"', "integer")),
        (b'"film":11', b'"film":-1', ("model.vocab.film:", "-1", "at least 0")),
        (b'"film":11', b'"film":11,"film":12', ('"film"', "twice")),
        (b'"special":true', b'"special":1', ("added_tokens[0].special:", "1")),
        (b'"content":"[PAD]"', b'"content":null', ("added_tokens[0].content:", "null", "string")),
        (b'"continuing_subword_prefix":"##"', b'"continuing_subword_prefix":3', ("continuing_subword_prefix:", "3")),
    ],
)
def test_a_damaged_part_of_a_tokenizer_is_named(tmp_path, old, new, names):
    content = artifact().tokenizer_json.replace(old, new, 1)
    assert content != artifact().tokenizer_json
    (tmp_path / TOKENIZER_JSON).write_bytes(content)
    said = refusal(loading.load, str(tmp_path))
    assert said.startswith(f"tokenizer {tmp_path}: its tokenizer.json: ")
    assert [name for name in names if name not in said] == []


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"{", ("JSON",)),
        (b"[]", ("[]", "object")),
        (b"3", ("3", "object")),
        (b"\xff", ("UTF-8",)),
        (b'{"mask_token": 3}', ("3", "mask_token", "text")),
        (b'{"mask_token": {}}', ("{}", "mask_token", "text")),
        (b'{"pad_token": ["[PAD]"]}', ("[PAD]", "pad_token", "text")),
        (b'{"cls_token": {"content": null}}', ("cls_token", "text")),
        (b'{"do_lower_case": "yes"}', ("do_lower_case:", '"yes"', "boolean")),
        (b'{"model_max_length": "512"}', ("model_max_length:", '"512"', "number")),
    ],
)
@pytest.mark.parametrize("layout", ["tokenizer.json", "vocab.txt"])
def test_a_damaged_config(tmp_path, content, names, layout):
    artifact().save(str(tmp_path))
    if layout == "vocab.txt":
        (tmp_path / TOKENIZER_JSON).unlink()
        (tmp_path / "vocab.txt").write_text("\n".join((*SPECIALS, *PLAIN)), encoding="utf-8")
    (tmp_path / TOKENIZER_CONFIG_JSON).write_bytes(content)
    said = refusal(loading.load, str(tmp_path))
    assert said.startswith(f"tokenizer {tmp_path}: its tokenizer_config.json: ")
    assert [name for name in names if name not in said] == []


@pytest.mark.parametrize(
    ("config", "length"),
    [({}, None), ({"model_max_length": None}, None), ({"model_max_length": 512}, 512), ({"model_max_length": 0}, None)],
)
def test_how_long_a_sequence_its_model_can_take(config, length):
    assert artifact(config=config).max_length == length


def test_no_limit_as_huggingface_writes_it():
    assert artifact(config={"model_max_length": int(1e30)}).max_length > 1e29


def test_tokens_that_a_config_leaves_open_are_berts():
    assert artifact(config={"mask_token": None, "do_lower_case": None}).mask_token == "[MASK]"


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("last", ["", "end"])
def test_a_folder_of_the_old_layout(tmp_path, ends, last):
    (tmp_path / "vocab.txt").write_bytes((ends.join((*SPECIALS, *PLAIN)) + (last and ends)).encode())
    found = loading.load(str(tmp_path))
    assert list(found.vocabulary) == [*SPECIALS, *PLAIN]
    assert found.special_ids == (0, 1, 2, 3, 4)
    assert found.tokenizer().encode("A FILM, playing café", add_special_tokens=False).tokens == (
        ["a", "film", "[UNK]", "play", "##ing", "[UNK]"]  # lower case loses its accents, as in BERT
    )
    assert found.tokenizer().encode("a").tokens == ["[CLS]", "a", "[SEP]"]


def test_the_old_layout_heeds_its_config(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join((*SPECIALS, *PLAIN)), encoding="utf-8")
    (tmp_path / TOKENIZER_CONFIG_JSON).write_text('{"do_lower_case": true, "strip_accents": false, "x": 1}')
    found = loading.load(str(tmp_path))
    assert found.tokenizer().encode("Café", add_special_tokens=False).tokens == ["café"]
    assert json.loads(found.tokenizer_config_json)["x"] == 1
    (tmp_path / TOKENIZER_CONFIG_JSON).write_text('{"do_lower_case": false}')
    assert loading.load(str(tmp_path)).tokenizer().encode("Film film", add_special_tokens=False).tokens == (
        ["[UNK]", "film"]
    )


def test_an_old_layout_without_mask(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\na\n")
    assert refusal(loading.load, str(tmp_path)).startswith(
        f"tokenizer {tmp_path}: no mask_token (special tokens found: [PAD], [UNK]);"
    )


def test_an_unknown_name(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    must_name(
        refusal(loading.load, "no-such/tokenizer"),
        "tokenizer no-such/tokenizer:",
        "no folder",
        "not fetched before",
        "HF_HUB_OFFLINE=1",
        "a folder with a tokenizer.json",
        "a hub name such as bert-base-uncased",
        "train:8000",
    )


@NEEDS_BERT
def test_bert():
    found = loading.load(BERT)
    assert (found.vocab_size, found.special_ids) == (30_522, (0, 100, 101, 102, 103))
    assert len(found.ordinary_ids) == 30_522 - 5 - 994  # [unused0] to [unused993]
    assert len(found.continuation_ids) == 5_828
    words = found.tokenizer().encode("The UNAFFABLE film [MASK]", add_special_tokens=False).tokens
    assert words == ["the", "una", "##ffa", "##ble", "film", "[", "mask", "]"]


@NEEDS_BERT
def test_bert_from_its_old_layout_is_the_same(tmp_path):
    (tmp_path / "vocab.txt").write_bytes((Path(BERT) / "vocab.txt").read_bytes())
    old, new = loading.load(str(tmp_path)), loading.load(BERT)
    assert json.loads(old.tokenizer_json) == json.loads(new.tokenizer_json)


def test_a_tokenizer_that_finds_special_tokens_in_plain_text_is_refused(tmp_path, toy_tokenizer):
    """Its words end at white space only, so a review that says [CLS] would start a segment."""
    description = json.loads(toy_tokenizer.tokenizer_json)
    description["pre_tokenizer"] = {"type": "WhitespaceSplit"}
    description["normalizer"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(description))
    (tmp_path / "tokenizer_config.json").write_bytes(toy_tokenizer.tokenizer_config_json)
    with pytest.raises(RemaskError) as error:
        loading.load(str(tmp_path))
    must_name(
        str(error.value),
        f"tokenizer {tmp_path}:",
        "[PAD]",
        "special token",
        "use a tokenizer that cuts words at brackets",
    )
