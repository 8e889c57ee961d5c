"""Which sentences show what a model has learnt: those that were asked for, or some that suit the data."""

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from records.errors import RemaskError
from records.format.reader import DataSet
from records.tokenizer.artifact import TokenizerArtifact
from records.tokenizer.special import ROLES
from trainer.config import NO_PROBES, PROBES
from trainer.input.rendering import first
from trainer.models.mask_filling import Probe, encode

_SEQUENCES = 2000
"""So many are looked at to know the words of a data set."""

_TELLING = 5
"""Letters of a word that says something of its text's language and subject: `awesome` does, `and` does not."""

_SHORTEST, _LONGEST = 5, 24
"""Tokens of a sentence that is taken out of the data."""

_ENDS = frozenset(".!?\u3002\uff01\uff1f\u0964\u061f")
"""What ends a sentence, in the larger of the world's scripts."""


def choose(asked: Sequence[str], data_set: DataSet, *, longest: int) -> tuple[Probe, ...]:
    """Return the probes of a run: those asked for, the usual ones where they suit the data, else two out of the data.

    Args:
        asked: the option `probes`: nothing to choose here, `NO_PROBES` for none.
        data_set: of the run.
        longest: tokens that the model takes.

    Raises:
        RemaskError: one that was asked for has no mask token, or is too long.
    """
    if tuple(asked) == NO_PROBES:
        return ()
    for text in asked:
        try:
            encode(text, data_set.tokenizer, longest=longest)
        except RemaskError as error:
            raise RemaskError(f"probes: {error}") from None
    if asked:
        return tuple(map(Probe, asked))
    split = "validation" if data_set.manifest.examples("validation") else "train"
    rows = np.array([row for row, _ in first(data_set, split, _SEQUENCES)])
    artifact = data_set.tokenizer
    usual = (text.replace(ROLES["mask_token"], artifact.mask_token) for text in PROBES)
    if fitting := tuple(Probe(text) for text in usual if suits(text, rows, artifact, longest=longest)):
        return fitting
    return tuple(islice(out_of(rows, artifact, longest=longest), len(PROBES)))


def example(probes: Sequence[Probe], artifact: TokenizerArtifact) -> str:
    """Return a text to try the model with that may be shown to anybody: nothing out of the data.

    With the tokenizer's own mask token in it, so that it can be filled as it stands.
    """
    return next((probe.text for probe in probes if not probe.answer), f"... {artifact.mask_token} ...")


def note(probes: Sequence[Probe]) -> str:
    """Return what is to be known of probes that nobody has written; "" of others."""
    if not any(probe.answer for probe in probes):
        return ""
    shown = "; ".join(f"{probe.text} ({probe.answer})" for probe in probes)
    return f"out of the data, for the usual ones are not in its words: {shown}"


def suits(text: str, rows: NDArray[np.integer], artifact: TokenizerArtifact, *, longest: int) -> bool:
    """Say whether a text is in the words of some sequences [N, L]: whether those that say something occur there.

    Stop words do not count: there are data sets without them, and other languages that have some of them, too.
    """
    known = set(np.unique(rows).tolist()) - set(artifact.special_ids)  # no [UNK] among them
    words = (word.strip(".") for word in text.replace(artifact.mask_token, " ").split())
    telling = " ".join(word for word in words if len(word) >= _TELLING)
    ids = set(artifact.tokenizer().encode(telling, add_special_tokens=False).ids)
    try:
        encode(text, artifact, longest=longest)
    except RemaskError:
        return False
    return bool(ids) and ids <= known


def out_of(rows: NDArray[np.integer], artifact: TokenizerArtifact, *, longest: int) -> Iterator[Probe]:
    """Yield a sentence of each of some sequences [N, L], with a word of it masked, where it has one to be masked.

    A text that would be encoded as other ids than those it was decoded from is left out.
    """
    for row in rows:
        ids = _sentence(row, artifact, longest=longest)
        for place in _words(ids, artifact):
            probe = _masked(ids, place, artifact, longest=longest)
            if probe:
                yield probe
                break


def _sentence(row: NDArray[np.integer], artifact: TokenizerArtifact, *, longest: int) -> list[int]:
    """Return the first ids of a sequence, without [CLS], to the end of a sentence if there is one."""
    ids = row[1:].tolist()
    inside = ids[: ids.index(artifact.sep_id)][: min(_LONGEST, longest - 2)]
    ends = {artifact.vocabulary.get(end) for end in _ENDS}
    end = next((place for place in range(_SHORTEST - 1, len(inside)) if inside[place] in ends), len(inside) - 1)
    return inside[: end + 1]


def _words(ids: Sequence[int], artifact: TokenizerArtifact) -> list[int]:
    """Return the places of whole words, that in the middle first; none of a sentence that is too short."""
    if len(ids) < _SHORTEST:
        return []
    tokenizer, pieces = artifact.tokenizer(), set(artifact.continuation_ids.tolist())
    whole = [
        place
        for place, id_ in enumerate(ids)
        if not pieces & {id_, *ids[place + 1 : place + 2]} and tokenizer.decode([id_]).strip().isalpha()
    ]
    return sorted(whole, key=lambda place: abs(2 * place - len(ids) + 1))


def _masked(ids: Sequence[int], place: int, artifact: TokenizerArtifact, *, longest: int) -> Probe | None:
    """Return a sentence with a word masked; None where no text of it is encoded as these very ids."""
    tokenizer, mask = artifact.tokenizer(), artifact.mask_token
    before, after = tokenizer.decode(ids[:place]), tokenizer.decode(ids[place + 1 :])
    wanted = [artifact.cls_id, *ids[:place], artifact.mask_id, *ids[place + 1 :], artifact.sep_id]
    close = "" if after[:1] in _ENDS | {","} else " "
    for text in (f"{before} {mask}{close}{after}", f"{before}{mask}{after}"):
        if encode(text.strip(), artifact, longest=longest)[0] == wanted:
            return Probe(text.strip(), tokenizer.decode([ids[place]]).strip())
    return None
