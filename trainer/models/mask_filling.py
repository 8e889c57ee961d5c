"""Fills the [MASK]s of a text."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from records.errors import RemaskError
from records.tokenizer.artifact import TokenizerArtifact

if TYPE_CHECKING:
    import keras
    import tensorflow as tf
    from numpy.typing import NDArray

    Batch = dict[str, NDArray[np.int32]]


class Probe(NamedTuple):
    """A text with a [MASK] that is filled again and again."""

    text: str
    answer: str = ""  # what stood there, of a text out of the data


class NotFinite(RemaskError):
    """What a model computes is no number."""


@dataclass(frozen=True)
class Candidate:
    """A token for a [MASK], and how probable the model thinks it is."""

    token: str
    probability: float


@dataclass(frozen=True)
class Filled:
    """A text and what the model would put in it."""

    text: str
    masks: tuple[tuple[Candidate, ...], ...]  # for each [MASK] the candidates, the most probable first
    sentence: str  # the text with the first candidate in each place
    answer: str = ""  # what stood there, where that is known


def encode(text: str, artifact: TokenizerArtifact, *, longest: int) -> tuple[list[int], list[int]]:
    """Return the ids of `[CLS] text [SEP]`, and where among them the [MASK]s are.

    Only [MASK] is special: any other special token that is written in the text is plain text, as in the records.

    Raises:
        RemaskError: no [MASK], or more ids than the model has positions.
    """
    mask = artifact.mask_token
    if mask not in text:
        raise RemaskError(f"text: no {mask} in {text!r}; write {mask} where a word is to be filled in")
    tokenizer = artifact.tokenizer()
    ids = [artifact.cls_id]
    for number, piece in enumerate(text.split(mask)):
        ids += [artifact.mask_id] * (number > 0) + tokenizer.encode(piece, add_special_tokens=False).ids
    ids.append(artifact.sep_id)
    if len(ids) > longest:
        raise RemaskError(
            f"text: {len(ids)} tokens, the model takes at most {longest} with [CLS] and [SEP]; shorten the text"
        )
    return ids, [place for place, id_ in enumerate(ids) if id_ == artifact.mask_id]


def fill(model: "keras.Model", text: str, artifact: TokenizerArtifact, *, top_k: int) -> Filled:
    """Return the `top_k` most probable tokens for each [MASK] of a text.

    Raises:
        RemaskError: no [MASK] in the text, or it is too long for the model.
    """
    batch = batch_of([encode(text, artifact, longest=model.config.max_position_embeddings)])
    logits = np.asarray(model(batch, training=False), np.float32)
    return chosen(text, logits[0], artifact, top_k=top_k)


class Filler:
    """Fills the same texts again and again, where the model is trained. It is traced once.

    Args:
        strategy: made the model.
        model: `trainer.models.model.BertMaskedLM`.
        probes: the texts.
        artifact: the tokenizer.
        top_k: candidates of each [MASK].

    Raises:
        RemaskError: as `fill`.
    """

    def __init__(
        self,
        strategy: "tf.distribute.Strategy",
        model: "keras.Model",
        probes: Sequence[Probe],
        artifact: TokenizerArtifact,
        *,
        top_k: int,
    ) -> None:
        import tensorflow as tf

        self._strategy, self._model = strategy, model
        encoded = [encode(probe.text, artifact, longest=model.config.max_position_embeddings) for probe in probes]
        self._probes, self._artifact, self._top_k = probes, artifact, top_k
        self._masks, self._batch = [len(places) for _, places in encoded], batch_of(encoded) if encoded else {}
        self._logits = tf.function(self._on_all_replicas)

    def __call__(self) -> list[Filled]:
        """Fill all texts."""
        if not self._probes:
            return []
        logits = np.asarray(self._logits(), np.float32)
        return [
            replace(chosen(text, scores[:masks], self._artifact, top_k=self._top_k), answer=answer)
            for (text, answer), scores, masks in zip(self._probes, logits, self._masks, strict=True)
        ]

    def _on_all_replicas(self) -> "tf.Tensor":
        """Return logits `[texts, masks, V]`. Each replica computes the same: a TPU takes its work in no other way."""
        logits = self._strategy.run(lambda: self._model(self._batch, training=False))
        return self._strategy.experimental_local_results(logits)[0]


def batch_of(encoded: Sequence[tuple[Sequence[int], Sequence[int]]]) -> "Batch":
    """Return texts that `encode` has encoded as one batch, the shorter ones filled up with zeros.

    >>> batch_of([([2, 4, 3], [1]), ([2, 4, 4, 3], [1, 2])])["masked_lm_positions"].tolist()
    [[1, 0], [1, 2]]
    """
    ids, places = zip(*encoded, strict=True)
    return {"input_ids": _filled_up(ids), "masked_lm_positions": _filled_up(places)}


def chosen(text: str, logits: "NDArray[np.float32]", artifact: TokenizerArtifact, *, top_k: int) -> Filled:
    """Return a text with the most probable tokens, from the logits of its [MASK]s, float32 `[masks, V]`.

    Raises:
        NotFinite: the logits are no finite numbers, so there is no most probable one.
    """
    if not np.isfinite(logits).all():
        raise NotFinite(
            f"text: what the model computes for {text!r} is no finite number, though its weights are; they are broken: "
            f"take an earlier checkpoint of that model"
        )
    tokenizer = artifact.tokenizer()
    masks = []
    for scores in logits:
        probabilities = _softmax(scores)
        order = np.argsort(-probabilities, kind="stable")[:top_k]
        words = [tokenizer.id_to_token(int(id_)) or f"id {id_}" for id_ in order]  # a model may have more than it
        masks.append(tuple(map(Candidate, words, map(float, probabilities[order]))))
    return Filled(text, tuple(masks), _written(text, artifact.mask_token, [mask[0].token for mask in masks]))


def _filled_up(rows: Sequence[Sequence[int]]) -> "NDArray[np.int32]":
    table = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for line, row in zip(table, rows, strict=True):
        line[: len(row)] = row
    return table


def _written(text: str, mask: str, words: Sequence[str]) -> str:
    """Return a text with words in the places of its masks; a piece that continues a word is joined to it.

    >>> _written("It was [MASK], or [MASK].", "[MASK]", ["good", "##ish"])
    'It was good, orish.'
    """
    first, *others = text.split(mask)
    for word, after in zip(words, others, strict=True):
        first = (first.rstrip() + word[2:] if word.startswith("##") else first + word) + after
    return first


def table(filled: Filled) -> str:
    """Return the lines that show a filled text.

    >>> print(table(Filled("a [MASK]", ((Candidate("film", 0.5), Candidate("dog", 0.25)),), "a film")))
    a [MASK]
      film  0.5000
      dog   0.2500
    = a film
    """
    lines = [filled.text]
    width = max(len(candidate.token) for candidates in filled.masks for candidate in candidates)
    for number, candidates in enumerate(filled.masks, start=1):
        if len(filled.masks) > 1:
            lines.append(f"  mask {number}")
        lines += [f"  {candidate.token:<{width}}  {candidate.probability:.4f}" for candidate in candidates]
    return "\n".join([*lines, f"= {filled.sentence}"])


def line(filled: Filled, *, top_k: int = 3) -> str:
    r"""Return one line that shows a filled text, and the most probable tokens of each [MASK].

    >>> filled = Filled("a [MASK]", ((Candidate("film", 0.5), Candidate("dog", 0.25)),), "a film", answer="cat")
    >>> print(line(filled), line(filled, top_k=1), sep="\n")
    a [MASK] (cat) -> film 0.50, dog 0.25
    a [MASK] (cat) -> film 0.50
    """
    best = (mask[:top_k] for mask in filled.masks)
    shown = " | ".join(", ".join(f"{each.token} {each.probability:.2f}" for each in mask) for mask in best)
    return f"{filled.text}{f' ({filled.answer})' if filled.answer else ''} -> {shown}"


def _softmax(scores: Any) -> Any:
    shifted = np.exp(scores - scores.max())
    return shifted / shifted.sum()
