"""The tokenizer of a data set: one artefact, written beside the shards, hashed into the manifest, read by everyone.

Whatever the tokenizer was called when the records were made, readers only ever use these bytes: neither the network nor
the package that made the records is needed to know what an id means.
"""

import functools
import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from records import storage
from records.errors import RemaskError
from records.schema import PAD_ID

if TYPE_CHECKING:
    import numpy
    import tokenizers

TOKENIZER_JSON = "tokenizer.json"
TOKENIZER_CONFIG_JSON = "tokenizer_config.json"
ROLES = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
"""What a special token is for, and how BERT writes it where a tokenizer's config does not say."""
_UNUSED = re.compile(r"\[unused\d+\]")


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
    def vocabulary(self) -> dict[str, int]:
        """Every token and its id, added tokens included."""
        ids = dict(self._description["model"]["vocab"])
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
        config = json.loads(self.tokenizer_config_json)
        named = {role: config.get(role) or usual for role, usual in ROLES.items()}
        return {role: token["content"] if isinstance(token, dict) else token for role, token in named.items()}

    def _role_id(self, role: str) -> int | None:
        return self.vocabulary.get(self._roles[role])

    def _required(self, role: str) -> int:
        found = self._role_id(role)
        assert found is not None, role  # checked in __post_init__
        return found


def load(name_or_folder: str) -> TokenizerArtifact:
    """Load a tokenizer from a folder, or by its name on the HuggingFace hub.

    Raises:
        RemaskError: there is no such tokenizer, or it cannot serve a masked language model.
    """
    folder = name_or_folder
    if os.path.isfile(storage.join(folder, TOKENIZER_JSON)):
        config = storage.join(folder, TOKENIZER_CONFIG_JSON)
        content = storage.read_bytes(config) if storage.exists(config) else b"{}\n"
        return _checked(name_or_folder, storage.read_bytes(storage.join(folder, TOKENIZER_JSON)), content)
    return _converted(name_or_folder)


def _checked(name: str, tokenizer_json: bytes, tokenizer_config_json: bytes) -> TokenizerArtifact:
    try:
        description, config = json.loads(tokenizer_json), json.loads(tokenizer_config_json)
        description["model"]["vocab"].items(), description["added_tokens"], config.items()
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RemaskError(
            f"tokenizer {name}: its {TOKENIZER_JSON} is damaged or not a word-piece tokenizer's"
        ) from None
    return TokenizerArtifact(name, tokenizer_json, tokenizer_config_json)


def _converted(name: str) -> TokenizerArtifact:
    """Let transformers fetch, or build from an older layout, what then becomes a `tokenizer.json`."""
    import tempfile

    import huggingface_hub
    import transformers

    huggingface_hub.utils.logging.set_verbosity_error()  # it would announce each retry
    if os.path.isdir(name) and not any(os.path.isfile(storage.join(name, f)) for f in ("vocab.txt", "config.json")):
        raise RemaskError(f"tokenizer {name}: the folder holds no {TOKENIZER_JSON} and no vocab.txt")
    try:
        made = transformers.AutoTokenizer.from_pretrained(name)
        with tempfile.TemporaryDirectory() as folder:
            made.save_pretrained(folder)
            files = [storage.read_bytes(storage.join(folder, f)) for f in (TOKENIZER_JSON, TOKENIZER_CONFIG_JSON)]
    except Exception as error:  # the hub, the disk and three packages speak here, each with exceptions of its own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RemaskError(
            f"tokenizer {name}: neither a folder with a {TOKENIZER_JSON} nor a name that the HuggingFace hub gives us "
            f"({reason}). Give a folder, a hub name such as bert-base-uncased, or train:8000 to make one from the text"
        ) from error
    return _checked(name, *files)
