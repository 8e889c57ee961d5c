"""The tokenizer of a data set: one artefact, written beside the shards, hashed into the manifest, read by everyone.

Whatever the tokenizer was called when the records were made, readers only ever use these bytes: neither the network nor
the package that made the records is needed to know what an id means.
"""

import functools
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from records import hub, storage
from records.errors import RemaskError
from records.schema import PAD_ID

if TYPE_CHECKING:
    import numpy
    import tokenizers

TOKENIZER_JSON = "tokenizer.json"
TOKENIZER_CONFIG_JSON = "tokenizer_config.json"
VOCAB_TXT = "vocab.txt"
ROLES = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
"""What a special token is for, and how BERT writes it where a tokenizer's config does not say."""
_UNUSED = re.compile(r"\[unused\d+\]")


_STRUCTURAL = ("pad_token", "cls_token", "sep_token", "mask_token")


@dataclass(frozen=True)
class TokenizerArtifact:
    """A HuggingFace tokenizer as the bytes of its two files, and what those say.

    Raises:
        RemaskError: there is no [MASK], [CLS] or [SEP], or padding is not id 0.
    """

    name: str
    tokenizer_json: bytes = field(repr=False)
    tokenizer_config_json: bytes = field(repr=False)

    def __post_init__(self) -> None:
        for role in ("mask_token", "cls_token", "sep_token", "pad_token"):
            if self._role_id(role) is None:
                found = ", ".join(sorted(self._specials)) or "none"
                raise RemaskError(
                    f"tokenizer {self.name}: no {role} (special tokens found: {found}); a masked language model needs "
                    f"one with [MASK], [CLS], [SEP] and [PAD], such as bert-base-uncased"
                )
        if self.pad_id != PAD_ID:
            raise RemaskError(f"tokenizer {self.name}: it pads with id {self.pad_id}, records pad with id {PAD_ID}")

    @functools.cached_property
    def sha256(self) -> str:
        """Identity of the tokenizer: the digest of `tokenizer.json`, in hexadecimal."""
        return hashlib.sha256(self.tokenizer_json).hexdigest()

    @functools.cached_property
    def config_sha256(self) -> str:
        """The digest of `tokenizer_config.json`, in hexadecimal."""
        return hashlib.sha256(self.tokenizer_config_json).hexdigest()

    @functools.cached_property
    def vocabulary(self) -> dict[str, int]:
        """Every token and its id, added tokens included."""
        ids = dict(self._description["model"]["vocab"].items())
        ids.update((token["content"], token["id"]) for token in self._description["added_tokens"])
        return ids

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return max(self.vocabulary.values()) + 1

    @property
    def pad_id(self) -> int:
        """Id of [PAD]."""
        return self._required("pad_token")

    @property
    def cls_id(self) -> int:
        """Id of [CLS], which starts each segment and stands nowhere else."""
        return self._required("cls_token")

    @property
    def sep_id(self) -> int:
        """Id of [SEP], which ends each segment."""
        return self._required("sep_token")

    @property
    def mask_id(self) -> int:
        """Id of [MASK]."""
        return self._required("mask_token")

    @property
    def mask_token(self) -> str:
        """How [MASK] is written in a text."""
        return self._roles["mask_token"]

    @property
    def structural(self) -> dict[str, int]:
        """The tokens that give a sequence its form, and their ids; a text must never be given one."""
        ids = (self.pad_id, self.cls_id, self.sep_id, self.mask_id)
        return dict(zip((self._roles[role] for role in _STRUCTURAL), ids, strict=True))

    @functools.cached_property
    def special_ids(self) -> tuple[int, ...]:
        """Ids that are never masked, [UNK] among them, in ascending order."""
        roles = (self._role_id(role) for role in ROLES)
        return tuple(sorted({*self._specials.values(), *(id_ for id_ in roles if id_ is not None)}))

    @functools.cached_property
    def ordinary_ids(self) -> "numpy.ndarray":
        """Ids that may stand in for a masked word, int32 `[K]`: neither special tokens nor `[unusedN]`."""
        import numpy

        special = set(self.special_ids)
        ids = [id_ for token, id_ in self.vocabulary.items() if id_ not in special and not _UNUSED.fullmatch(token)]
        return numpy.array(sorted(ids), numpy.int32)

    @functools.cached_property
    def continuation_ids(self) -> "numpy.ndarray":
        """Ids that continue a word (`##ing`), int32 `[K]`; empty for tokenizers that do not mark them so."""
        import numpy

        prefix = self._description["model"].get("continuing_subword_prefix") or ""
        ids = [id_ for token, id_ in self.vocabulary.items() if prefix and token.startswith(prefix) and token != prefix]
        return numpy.array(sorted(set(ids) - set(self.special_ids)), numpy.int32)

    def tokenizer(self) -> "tokenizers.Tokenizer":
        """Return a tokenizer that neither pads nor cuts, and takes special tokens written in a text for plain text.

        The last matters: a review that says "[CLS]" must not start a segment.
        """
        import tokenizers

        made = tokenizers.Tokenizer.from_buffer(self.tokenizer_json)
        made.no_padding()
        made.no_truncation()
        made.encode_special_tokens = True
        return made

    def save(self, folder: str) -> None:
        """Write both files, as HuggingFace names them."""
        storage.write_bytes(storage.join(folder, TOKENIZER_JSON), self.tokenizer_json)
        storage.write_bytes(storage.join(folder, TOKENIZER_CONFIG_JSON), self.tokenizer_config_json)

    @functools.cached_property
    def _description(self) -> dict[str, Any]:
        return json.loads(self.tokenizer_json)

    @functools.cached_property
    def _specials(self) -> dict[str, int]:
        return {token["content"]: token["id"] for token in self._description["added_tokens"] if token["special"]}

    @functools.cached_property
    def _roles(self) -> dict[str, str]:
        return _written(json.loads(self.tokenizer_config_json))

    def _role_id(self, role: str) -> int | None:
        return self.vocabulary.get(self._roles[role])

    def _required(self, role: str) -> int:
        found = self._role_id(role)
        assert found is not None, role  # checked in __post_init__
        return found


def load(name_or_folder: str) -> TokenizerArtifact:
    """Load a tokenizer from a folder, or by its name on the HuggingFace hub.

    It is a `tokenizer.json`, or a `vocab.txt` of BERT's, as older models have it.

    Raises:
        RemaskError: there is no such tokenizer, or it cannot serve a masked language model.
    """
    name, folder = name_or_folder, name_or_folder
    if not os.path.isdir(folder) and not storage.is_remote(folder):
        try:
            folder = hub.fetch(name, (TOKENIZER_JSON, TOKENIZER_CONFIG_JSON, VOCAB_TXT))
        except RemaskError as error:
            raise RemaskError(
                f"tokenizer {name}: {error}. Give a folder with a {TOKENIZER_JSON}, a hub name such as "
                f"bert-base-uncased, or train:8000 to make one from the text"
            ) from None
    config = _read(folder, TOKENIZER_CONFIG_JSON) or b"{}\n"
    if description := _read(folder, TOKENIZER_JSON):
        return _checked(name, description, config)
    if vocabulary := _read(folder, VOCAB_TXT):
        return word_piece(_numbered(vocabulary), name=name, config=_config(name, config))
    raise RemaskError(f"tokenizer {name}: neither {TOKENIZER_JSON} nor {VOCAB_TXT} is there")


def word_piece(vocabulary: Mapping[str, int], *, name: str, config: Mapping[str, Any]) -> TokenizerArtifact:
    """Make BERT's tokenizer from its vocabulary, as the `BertTokenizer` of transformers is made.

    Args:
        vocabulary: ids of tokens, the special ones included.
        name: what the manifest will call it.
        config: what `tokenizer_config.json` is to say; keys of `BertTokenizer` that are not there have its defaults.

    Raises:
        RemaskError: special tokens are missing.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    roles = _written(config)
    made = Tokenizer(models.WordPiece(dict(vocabulary), unk_token=roles["unk_token"]))
    made.normalizer = normalizers.BertNormalizer(
        lowercase=config.get("do_lower_case", True),
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
    )
    made.pre_tokenizer, made.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    made.add_special_tokens([token for token in roles.values() if token in vocabulary])
    cls, sep = roles["cls_token"], roles["sep_token"]
    if cls in vocabulary and sep in vocabulary:
        made.post_processor = processors.TemplateProcessing(
            single=f"{cls}:0 $A:0 {sep}:0",
            pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
            special_tokens=[(token, vocabulary[token]) for token in (cls, sep)],
        )
    said = {**config, **roles, "tokenizer_class": "BertTokenizer"}
    return TokenizerArtifact(
        name, made.to_str(pretty=False).encode(), (json.dumps(said, indent=1, sort_keys=True) + "\n").encode()
    )


def _read(folder: str, file: str) -> bytes:
    """Return the content of a file, nothing where there is none."""
    path = storage.join(folder, file)
    return storage.read_bytes(path) if storage.exists(path) else b""


def _numbered(vocab_txt: bytes) -> dict[str, int]:
    """Return the ids of a vocabulary of one token a line, counted from 0."""
    lines = vocab_txt.decode("utf-8", "replace").replace("\r\n", "\n").removesuffix("\n").split("\n")
    return {token: number for number, token in enumerate(lines)}


def _written(config: Mapping[str, Any]) -> dict[str, str]:
    """Return how a config says that the special tokens are written; BERT's way where it does not say."""
    named = {role: config.get(role) or usual for role, usual in ROLES.items()}
    return {role: token["content"] if isinstance(token, dict) else token for role, token in named.items()}


def _config(name: str, content: bytes) -> dict[str, Any]:
    try:
        config = json.loads(content)
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise RemaskError(f"tokenizer {name}: its {TOKENIZER_CONFIG_JSON} is damaged, it is no JSON object")
    return config


def _checked(name: str, tokenizer_json: bytes, tokenizer_config_json: bytes) -> TokenizerArtifact:
    """Return an artefact whose every part can be read."""
    _config(name, tokenizer_config_json)
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
