"""Documents have an identity, and that alone decides where each one goes."""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

DOCUMENT_ID_BYTES = 16


def document_ids(texts: Iterable[str]) -> NDArray[np.uint8]:
    """Return 128 bits for each clean text that identify it, the same on every machine and in every run, `[D, 16]`.

    Texts that are equal share them: that is how duplicates are found, and why a text can never stand in both splits.

    >>> document_ids(["A film."]).tobytes().hex()
    '5897438c6a2df4bb9ec58360e892776a'
    """
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=DOCUMENT_ID_BYTES).digest() for text in texts)
    return np.frombuffer(digests, np.uint8).reshape(-1, DOCUMENT_ID_BYTES)


def held_out(document_ids: NDArray[np.uint8], *, validation_fraction: float) -> NDArray[np.bool_]:
    r"""Return which documents belong to the validation split, `[D]`; the others belong to train.

    Half of the id decides; the other half, independent of it, orders the shards.

    >>> held_out(np.array([[0] * 16, [255] * 16], np.uint8), validation_fraction=0.05).tolist()
    [True, False]
    """
    return document_ids.view("<u8")[:, 1] / 2.0**64 < validation_fraction
