"""Reads a data set. The only module of `records` that imports TensorFlow."""

from dataclasses import dataclass

import tensorflow as tf

from records import manifest, storage, tokenizer
from records.errors import RemaskError
from records.manifest import Manifest
from records.schema import EXAMPLE_ID, INPUT_IDS, features
from records.tokenizer import TOKENIZER_JSON, TokenizerArtifact


@dataclass(frozen=True)
class DataSet:
    """A folder of shards with its manifest and tokenizer, found to belong together."""

    folder: str
    manifest: Manifest
    tokenizer: TokenizerArtifact

    @property
    def max_seq_length(self) -> int:
        """Values of `input_ids` in each record."""
        return self.manifest.data.max_seq_length

    @property
    def compression(self) -> str:
        """What `tf.data.TFRecordDataset` wants to know."""
        return self.manifest.data.compression.upper()

    def path(self, file: str) -> str:
        """Return the path of a shard."""
        return storage.join(self.folder, file)


def open_data_set(folder: str) -> DataSet:
    """Open a data set and refuse one whose parts do not fit, without reading a record.

    Raises:
        RemaskError: no manifest, another tokenizer than the one in the manifest, a shard that is missing or not of the
            size it had.
    """
    made = manifest.load(folder)
    if not storage.exists(storage.join(folder, TOKENIZER_JSON)):
        raise RemaskError(f"{folder}: {TOKENIZER_JSON} is missing; make the records again with 'make records'")
    artifact = tokenizer.load(folder)
    expected = made.data.tokenizer
    if artifact.sha256 != expected.sha256:
        raise RemaskError(
            f"{storage.join(folder, TOKENIZER_JSON)}: sha256 is {artifact.sha256}, the manifest says {expected.sha256}. "
            f"It is not the tokenizer the records were made with: make them again with 'make records'"
        )
    opened = DataSet(folder, made, artifact)
    for split in manifest.SPLITS:
        for shard in made.data.splits[split]:
            path = opened.path(shard.file)
            if not storage.exists(path):
                raise RemaskError(f"{path}: missing; copy it again, or make the records again with 'make records'")
            if (found := storage.size(path)) != shard.bytes:
                raise RemaskError(
                    f"{path}: {found} bytes, the manifest says {shard.bytes}; copy it again, or make the records again "
                    f"with 'make records'"
                )
    return opened


def parse(serialized: tf.Tensor, *, max_seq_length: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Parse a whole batch at once: five to ten times as fast as one record after the other.

    Args:
        serialized: string `[B]`, `tf.train.Example`s.
        max_seq_length: from the manifest.

    Returns:
        `input_ids` int32 `[B, max_seq_length]` and `example_id` int64 `[B]`.
    """
    spec = {name: tf.io.FixedLenFeature([length], tf.int64) for name, length in features(max_seq_length)}
    parsed = tf.io.parse_example(serialized, spec)
    return tf.cast(parsed[INPUT_IDS], tf.int32), parsed[EXAMPLE_ID][:, 0]
