"""What one record holds: the writer (`records.format.example`) and the reader (`records.format.reader`) derive from it.

A record is a `tf.train.Example` of int64 lists only, since every TFRecord reader in the ecosystem knows those.
"""

from typing import NamedTuple

INPUT_IDS = "input_ids"
EXAMPLE_ID = "example_id"


class Feature(NamedTuple):
    """One int64 list of fixed length."""

    name: str
    length: int


def features(max_seq_length: int) -> tuple[Feature, ...]:
    """Return the features of a record in the order in which they are serialized (by name, as protobuf sorts a map).

    - `example_id`, one value: 63 bits that identify the sequence, the same in every run over the same text.
    - `input_ids`, `max_seq_length` values: one or more segments `[CLS] w1 .. wn [SEP]`, then zeros. Segments are
      recovered from the ids alone: a segment starts at each [CLS].

    >>> features(128)
    (Feature(name='example_id', length=1), Feature(name='input_ids', length=128))
    """
    return (Feature(EXAMPLE_ID, 1), Feature(INPUT_IDS, max_seq_length))
