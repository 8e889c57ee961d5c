"""Clean text becomes token ids; or a vocabulary, where the text is to have one of its own."""

import functools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from pipelines.text.words import Encoded, WordEncoder, suits
from records.errors import RemaskError
from records.tokenizer.artifact import TokenizerArtifact
from records.tokenizer.special import ROLES
from records.tokenizer.word_piece import word_piece

_ALPHABET_SHARE = 4  # at most a quarter of a vocabulary is spent on single characters, each of which takes two places


def encoder(artifact: TokenizerArtifact) -> Callable[[Sequence[str]], Encoded]:
    """Return what encodes texts with a tokenizer: by their words where that is exact, else HuggingFace's own way."""
    tokenizer, description = artifact.tokenizer(), json.loads(artifact.tokenizer_json)
    if suits(description):
        return WordEncoder(tokenizer, lowercase=description["normalizer"]["lowercase"]).encode
    return functools.partial(encode, tokenizer)


def encode(tokenizer: tokenizers.Tokenizer, texts: Sequence[str]) -> Encoded:
    """Return the ids of each text, without special tokens; none for a text that holds nothing the tokenizer keeps.

    The tokenizer uses threads of its own and holds no lock of Python's meanwhile.

    >>> toy = train(["a film, a film"], vocab_size=100, name="toy").tokenizer()
    >>> ids, length = encode(toy, ["A film!", ""])
    >>> [toy.id_to_token(id_) for id_ in ids], length.tolist()
    (['a', 'film', '[UNK]'], [3, 0])
    """
    ids = [np.array(one.ids, np.int32) for one in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
    return Encoded(np.concatenate([np.zeros(0, np.int32), *ids]), np.array([len(held) for held in ids], np.int64))


def train(texts: Iterable[str], *, vocab_size: int, name: str) -> TokenizerArtifact:
    """Make a WordPiece vocabulary from texts, with BERT's normalizer, pre-tokenizer and special tokens.

    The same words give the same tokenizer, byte for byte, in whatever order they come. The trainer of `tokenizers`
    alone would not: it numbers the characters that continue a word in the order of a hash map, and breaks ties by that
    number. So the alphabet is counted here, and given to it in full, as tokens that have their places already.

    Args:
        texts: clean; read once.
        vocab_size: tokens, the special ones included.
        name: what the manifest will call it.

    Raises:
        RemaskError: the texts have no word.
    """
    normalizer, pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = Counter(_words(texts, normalizer, pre_tokenizer))
    if not words:
        raise RemaskError(f"tokenizer {name}: there is no text to make a vocabulary from")
    alphabet = _alphabet(words, vocab_size)
    specials = list(ROLES.values())
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        show_progress=False,
        special_tokens=[*specials, *alphabet, *(f"##{character}" for character in alphabet)],
        limit_alphabet=len(alphabet),
        initial_alphabet=alphabet,
    )
    learner = tokenizers.Tokenizer(models.WordPiece(unk_token=ROLES["unk_token"]))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    learner.train_from_iterator(_repeated(words), trainer)
    return word_piece(learner.get_vocab(), name=name, config={"do_lower_case": True})


def _words(
    texts: Iterable[str], normalizer: normalizers.Normalizer, cutter: pre_tokenizers.PreTokenizer
) -> Iterator[str]:
    for text in texts:
        for word, _ in cutter.pre_tokenize_str(normalizer.normalize_str(text)):
            yield word


def _repeated(words: Counter[str]) -> Iterator[str]:
    """Yield each word as often as it was counted, in one order."""
    for word, times in sorted(words.items()):
        for start in range(0, times, 1000):
            yield f"{word} " * min(1000, times - start)


def _alphabet(words: Counter[str], vocab_size: int) -> list[str]:
    """Return the characters worth a place in the vocabulary, the most frequent where there are too many."""
    characters: Counter[str] = Counter()
    for word, times in words.items():
        for character in word:
            characters[character] += times
    frequent = sorted(characters.items(), key=lambda item: (-item[1], item[0]))
    return sorted(character for character, _ in frequent[: vocab_size // _ALPHABET_SHARE // 2])
