"""A tokenizer as the bytes of its two files, and what those say."""

import functools
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from records import storage, typed_json
from records.errors import RemaskError
from records.tokenizer.special import PAD_ID, ROLES
from records.typed_json import Count

if TYPE_CHECKING:
    import numpy
    import tokenizers

TOKENIZER_JSON = "tokenizer.json"
TOKENIZER_CONFIG_JSON = "tokenizer_config.json"
VOCAB_TXT = "vocab.txt"
_UNUSED = re.compile(r"\[unused\d+\]")
COPY = "copy it again, or use a word-piece tokenizer such as bert-base-uncased's"

_STRUCTURAL = ("pad_token", "cls_token", "sep_token", "mask_token")


@dataclass(frozen=True)
class _Added:
    """What `tokenizer.json` says of a token beside the vocabulary."""

    content: str
    id: Count
    special: bool


@dataclass(frozen=True)
class _Model:
    """What `tokenizer.json` says of words."""

    vocab: Mapping[str, Count]
    continuing_subword_prefix: str | None = None


@dataclass(frozen=True)
class _Description:
    """Those parts of `tokenizer.json` that are read here; all of it is for `tokenizers` to read."""

    model: _Model
    added_tokens: tuple[_Added, ...]


@dataclass(frozen=True)
class TokenizerConfig:
    """Those parts of `tokenizer_config.json` that are read here.

    Raises:
        ValueError: a token is neither a text nor an object with one as its `content`.
    """

    pad_token: Any = None
    unk_token: Any = None
    cls_token: Any = None
    sep_token: Any = None
    mask_token: Any = None
    do_lower_case: bool | None = None
    tokenize_chinese_chars: bool | None = None
    strip_accents: bool | None = None
    model_max_length: float | None = None  # HuggingFace writes 1e30 for no limit, in full

    def __post_init__(self) -> None:
        for role in ROLES:
            token = getattr(self, role)
            text = token.get("content") if isinstance(token, dict) else token
            if not isinstance(text, str) and token is not None:
                raise ValueError(f"found {json.dumps(token)[:60]} for {role}, expected a text")

    @classmethod
    def read(cls, name: str, content: bytes) -> "TokenizerConfig":
        """Read what the config of a tokenizer says."""
        return typed_json.read(cls, content, name=described(name, TOKENIZER_CONFIG_JSON), advice=COPY, others=True)

    @property
    def written(self) -> dict[str, str]:
        """How the special tokens are written; BERT's way where it does not say."""
        named = {role: getattr(self, role) or usual for role, usual in ROLES.items()}
        return {role: token["content"] if isinstance(token, dict) else token for role, token in named.items()}


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
        added = {token.content: token.id for token in self._description.added_tokens}
        return {**self._description.model.vocab, **added}

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
        return self._config.written["mask_token"]

    @property
    def max_length(self) -> float | None:
        """The positions of the model that it belongs to; None where nothing says how many."""
        return self._config.model_max_length or None

    @property
    def structural(self) -> dict[str, int]:
        """The tokens that give a sequence its form, and their ids; a text must never be given one."""
        ids = (self.pad_id, self.cls_id, self.sep_id, self.mask_id)
        return dict(zip((self._config.written[role] for role in _STRUCTURAL), ids, strict=True))

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

        prefix = self._description.model.continuing_subword_prefix or ""
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
    def _description(self) -> _Description:
        name = described(self.name, TOKENIZER_JSON)
        return typed_json.read(_Description, self.tokenizer_json, name=name, advice=COPY, others=True)

    @functools.cached_property
    def _specials(self) -> dict[str, int]:
        return {token.content: token.id for token in self._description.added_tokens if token.special}

    @functools.cached_property
    def _config(self) -> TokenizerConfig:
        return TokenizerConfig.read(self.name, self.tokenizer_config_json)

    def _role_id(self, role: str) -> int | None:
        return self.vocabulary.get(self._config.written[role])

    def _required(self, role: str) -> int:
        found = self._role_id(role)
        assert found is not None, role  # checked in __post_init__
        return found


def described(name: str, file: str) -> str:
    """Return how a file of a tokenizer is called in a message."""
    return f"tokenizer {name}: its {file}"
