"""Loads a tokenizer from a folder, a bucket or the HuggingFace hub."""

import os

from records import storage, typed_json
from records.errors import RemaskError
from records.storage import hub
from records.tokenizer.artifact import (
    COPY,
    TOKENIZER_CONFIG_JSON,
    TOKENIZER_JSON,
    VOCAB_TXT,
    TokenizerArtifact,
    described,
)
from records.tokenizer.special import ROLES
from records.tokenizer.word_piece import word_piece


def load(name_or_folder: str) -> TokenizerArtifact:
    """Load a tokenizer from a folder, or by its name on the HuggingFace hub.

    It is a `tokenizer.json`, or a `vocab.txt` of BERT's, as older models have it.

    Raises:
        RemaskError: there is no such tokenizer, or it cannot serve a masked language model.
    """
    name, folder = name_or_folder, name_or_folder
    if not os.path.isdir(folder) and not storage.is_remote(folder):
        try:
            folder = hub.fetch(
                name, (TOKENIZER_JSON, TOKENIZER_CONFIG_JSON, VOCAB_TXT), needs=((TOKENIZER_JSON, VOCAB_TXT),)
            )
        except RemaskError as error:
            raise RemaskError(
                f"tokenizer {name}: {error}. Give a folder with a {TOKENIZER_JSON}, a hub name such as "
                f"bert-base-uncased, or train:8000 to make one from the text"
            ) from None
    config = _read(folder, TOKENIZER_CONFIG_JSON) or b"{}\n"
    if description := _read(folder, TOKENIZER_JSON):
        return _checked(name, description, config)
    if vocabulary := _read(folder, VOCAB_TXT):
        return word_piece(
            _numbered(vocabulary),
            name=name,
            config=typed_json.parse(config, name=described(name, TOKENIZER_CONFIG_JSON), advice=COPY),
        )
    raise RemaskError(f"tokenizer {name}: neither {TOKENIZER_JSON} nor {VOCAB_TXT} is there")


def _read(folder: str, file: str) -> bytes:
    """Return the content of a file, nothing where there is none."""
    path = storage.join(folder, file)
    return storage.read_bytes(path) if storage.exists(path) else b""


def _numbered(vocab_txt: bytes) -> dict[str, int]:
    """Return the ids of a vocabulary of one token a line, counted from 0."""
    lines = vocab_txt.decode("utf-8", "replace").replace("\r\n", "\n").removesuffix("\n").split("\n")
    return {token: number for number, token in enumerate(lines)}


def _checked(name: str, tokenizer_json: bytes, tokenizer_config_json: bytes) -> TokenizerArtifact:
    """Return an artefact whose every part can be read."""
    try:
        made = TokenizerArtifact(name, tokenizer_json, tokenizer_config_json)
        read = {token: made.tokenizer().encode(token, add_special_tokens=False).ids for token in made.structural}
    except RemaskError:
        raise
    except Exception as error:  # `tokenizers` raises nothing more exact
        raise RemaskError(
            f"tokenizer {name}: its {TOKENIZER_JSON} is damaged, or not a word-piece tokenizer's ({error})"
        ) from None
    for token, ids in read.items():
        if made.structural[token] in ids and token != ROLES["unk_token"]:
            raise RemaskError(
                f"tokenizer {name}: a text that says {token} would be given that special token, and tear its sequence "
                f"apart; use a tokenizer that cuts words at brackets, as BERT's does"
            )
    return made
