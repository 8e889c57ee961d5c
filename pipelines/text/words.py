"""Token ids by way of the words of a text: each different word is tokenized once, and looked up from then on.

WordPiece sees one word at a time, and what BERT's normalizer and pre-tokenizer make of a character depends on nothing
beyond the next ASCII white space or punctuation. So the ids of a text are those of its pieces between these, one after
the other, and HuggingFace's own tokenizer need only be asked for a piece that is new. Such a piece is called a word
here, also where characters beyond ASCII make the tokenizer cut it further: it is asked for whatever is not ASCII.

All is numpy over the bytes of many texts at once. A word of up to eight bytes is a number, and a hash table finds all
of a batch in a few steps; the few that are longer go through a dict.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tokenizers
from numpy.typing import NDArray

from pipelines.text.ranges import ranges

MAX_BYTES = 32 << 20
"""A memory that takes more starts anew. The 125,000 different words of 75,000 film reviews take half of it."""

_SHORT = 8  # bytes of a word that make a number
_MASKS = np.array([(1 << 8 * count) - 1 for count in range(_SHORT + 1)], "<u8")  # the first `count` bytes of eight
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio: Fibonacci hashing, by the highest bits of a product
_WORD_BYTES = 128  # what a word takes in memory beside its bytes and its ids, about

_WHITE_SPACE, _GAP = b"\t\n\r ", 0
_CONTROLS = bytes({*range(0x20), 0x7F} - {*_WHITE_SPACE})  # the normalizer drops them
_PUNCTUATION = re.compile(rb"[!-/:-@\[-`{-~]")


class Encoded(NamedTuple):
    """Token ids of D texts, one after the other."""

    ids: NDArray[np.int32]  # [T]
    length: NDArray[np.int64]  # [D] how many of them each text has


def suits(tokenizer_json: Mapping[str, Any]) -> bool:
    """Return whether words are all that the ids depend on, and are cut as they are here.

    So it is for BERT's normalizer and pre-tokenizer with a WordPiece vocabulary, whichever it is. An added token that
    is not special is found in the middle of words; a special one, written in a text, is plain text to remask.

    >>> bert = {"normalizer": {"type": "BertNormalizer", "clean_text": True}, "added_tokens": []}
    >>> bert |= {"pre_tokenizer": {"type": "BertPreTokenizer"}, "model": {"type": "WordPiece"}}
    >>> suits(bert), suits(bert | {"pre_tokenizer": None})
    (True, False)
    """
    normalizer, pre_tokenizer = tokenizer_json["normalizer"] or {}, tokenizer_json["pre_tokenizer"] or {}
    return (
        normalizer.get("type") == "BertNormalizer"
        and normalizer["clean_text"] is True
        and pre_tokenizer.get("type") == "BertPreTokenizer"
        and tokenizer_json["model"]["type"] == "WordPiece"
        and all(token["special"] for token in tokenizer_json["added_tokens"])
    )


class WordEncoder:
    """Encodes texts, in one thread, with a tokenizer that `suits`.

    Args:
        tokenizer: neither pads nor cuts, and takes special tokens written in a text for plain text.
        lowercase: whether its normalizer makes letters small.
        max_bytes: what the memory of words may take, those of the last batch aside.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer, *, lowercase: bool, max_bytes: int = MAX_BYTES) -> None:
        self._tokenizer, self._model_alone = tokenizer, tokenizers.Tokenizer(tokenizer.model)
        self._spelling, self._max_bytes = _spelling(lowercase=lowercase), max_bytes
        self._forget()

    def _forget(self) -> None:
        self._short, self._long = _Table(), dict[bytes, int]()  # words to their numbers
        self._ids, self._first, self._counts = np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._bytes = 0

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Return the ids of texts, without special tokens."""
        if self._bytes > self._max_bytes:
            self._forget()
        spelled = [text.encode().translate(self._spelling, _CONTROLS) for text in texts]
        # A gap before each text, and after the last one as many as a look at the bytes of a word may go too far.
        content = b"\0".join((b"", *spelled, bytes(_SHORT)))
        starts = _word_starts(content)
        words = self._numbers(content, starts)
        counts = self._counts[words]
        ids = self._ids[ranges(self._first[words], counts)]
        text_ends = np.cumsum([len(text) + 1 for text in spelled], dtype=np.int64)
        ends = np.append(0, np.cumsum(counts))[np.searchsorted(starts, text_ends)]
        return Encoded(ids, np.diff(ends, prepend=0))

    def _numbers(self, content: bytes, starts: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the number of each word; those that are new are given one."""
        places = np.frombuffer(content, np.uint8)
        eights = np.ndarray(len(content) - _SHORT + 1, "<u8", content, strides=(1,))  # eight bytes from each place
        room = np.diff(starts, append=len(content))  # up to the next word: the word itself, and then gaps
        keys = eights[starts] & _MASKS[np.minimum(room, _SHORT)]
        long = np.flatnonzero(room > _SHORT)
        long = long[places[starts[long] + _SHORT] != _GAP]
        keys[long] = 0
        numbers = self._short.find(keys)
        new = np.flatnonzero((numbers < 0) & (keys != 0))
        if len(new):
            distinct, which = np.unique(keys[new], return_inverse=True)
            given = self._learn(distinct.view(f"S{_SHORT}").tolist())
            self._short.add(distinct, given)
            numbers[new] = given[which]
        numbers[long] = self._long_numbers(content, starts[long].tolist(), (starts[long] + room[long]).tolist())
        return numbers

    def _long_numbers(self, content: bytes, starts: list[int], stops: list[int]) -> list[int]:
        words = [content[start:stop].rstrip(b"\0") for start, stop in zip(starts, stops, strict=True)]
        if new := list(set(words).difference(self._long)):
            self._long.update(zip(new, self._learn(new).tolist(), strict=True))
        return [self._long[word] for word in words]

    def _learn(self, words: Sequence[bytes]) -> NDArray[np.int32]:
        """Ask for the ids of new words, and return the numbers that they are given."""
        # Nothing is left to normalize in a word of ASCII, and that is most of what a tokenizer does.
        plain = np.array([word.isascii() for word in words])
        numbers = np.empty(len(words), np.int32)
        for tokenizer, asked in ((self._model_alone, np.flatnonzero(plain)), (self._tokenizer, np.flatnonzero(~plain))):
            texts = [words[number].decode() for number in asked.tolist()]
            answer = tokenizer.encode(texts, is_pretokenized=True, add_special_tokens=False)
            counts = np.bincount(np.array(answer.word_ids, np.int64), minlength=len(asked))
            numbers[asked] = np.arange(len(self._first), len(self._first) + len(asked))
            self._first = np.append(self._first, len(self._ids) + np.cumsum(counts) - counts)
            self._counts = np.append(self._counts, counts)
            self._ids = np.append(self._ids, np.array(answer.ids, np.int32))
            self._bytes += 4 * len(answer.ids)
        self._bytes += sum(map(len, words)) + len(words) * _WORD_BYTES
        return numbers


class _Table:
    """Numbers of short words, by their bytes: a hash table with open addressing, for many words at once.

    A word is a key, a number other than zero; 0 marks a free slot.
    """

    def __init__(self) -> None:
        self._clear(bits=12)

    def find(self, keys: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Return the number of each key, -1 where it has none."""
        return self._numbers[self._slots(keys)]

    def add(self, keys: NDArray[np.uint64], numbers: NDArray[np.int32]) -> None:
        """Add keys, each once, that are not there yet."""
        held = self._keys != 0
        if (held.sum() + len(keys)) * 2 > len(self._keys):  # from there on free slots are far
            keys, numbers = np.append(self._keys[held], keys), np.append(self._numbers[held], numbers)
            self._clear(bits=len(keys).bit_length() + 2)
        while len(keys):
            slots = self._slots(keys)
            self._keys[slots], self._numbers[slots] = keys, numbers  # of those that want one slot the last gets it
            left = self._keys[slots] != keys
            keys, numbers = keys[left], numbers[left]

    def _clear(self, bits: int) -> None:
        self._bits = bits
        self._keys, self._numbers = np.zeros(1 << bits, "<u8"), np.full(1 << bits, -1, np.int32)

    def _slots(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return where each key is, or else the free slot where it would be."""
        slots = ((keys * _SPREAD) >> np.uint64(64 - self._bits)).view(np.int64)
        wrong = np.flatnonzero(self._keys[slots] != keys)
        while True:
            held = self._keys[slots[wrong]]
            wrong = wrong[(held != keys[wrong]) & (held != 0)]
            if not len(wrong):
                return slots
            slots[wrong] = (slots[wrong] + 1) & (len(self._keys) - 1)


def _spelling(*, lowercase: bool) -> bytes:
    """Return what each byte becomes, as `bytes.translate` wants it: white space a gap, letters small."""
    table = bytes(range(256))
    if lowercase:
        table = table.lower()
    return table.translate(bytes(_GAP if byte in _WHITE_SPACE else byte for byte in range(256)))


_KINDS = bytes(0 if byte == _GAP else 2 if _PUNCTUATION.match(bytes((byte,))) else 1 for byte in range(256))
"""0 a gap, 1 a byte within a word, 2 punctuation, which is a word by itself."""


def _word_starts(content: bytes) -> NDArray[np.int64]:
    r"""Return where words start in spelled texts, the first byte of which is a gap.

    >>> _word_starts(b"\0it's\0\0here").tolist()
    [1, 3, 4, 7]
    """
    kinds = np.frombuffer(content.translate(_KINDS), np.uint8)
    within = (kinds == 1).view(np.uint8)
    return np.flatnonzero(kinds[1:] > within[:-1]) + 1
