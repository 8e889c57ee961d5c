"""Documents have an identity, and that alone decides where each one goes."""

import hashlib

DOCUMENT_ID_BYTES = 16


def document_id(text: str) -> bytes:
    """Return 128 bits that identify a clean text, the same on every machine and in every run.

    Texts that are equal share it: that is how duplicates are found, and why a text can never stand in both splits.

    >>> document_id("A film.").hex()
    '5897438c6a2df4bb9ec58360e892776a'
    """
    return hashlib.blake2b(text.encode(), digest_size=DOCUMENT_ID_BYTES).digest()


def split_of(document_id: bytes, *, validation_fraction: float) -> str:
    r"""Return the split of a document. Half of the id decides; the other half, independent of it, orders the shards.

    >>> split_of(bytes(16), validation_fraction=0.05), split_of(b"\xff" * 16, validation_fraction=0.05)
    ('validation', 'train')
    """
    share = int.from_bytes(document_id[8:], "little") / 2**64
    return "validation" if share < validation_fraction else "train"
