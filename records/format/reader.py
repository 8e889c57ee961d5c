"""Opens a data set, and parses its records. Only what handles TensorFlow's own objects imports it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

from records import storage
from records.console.command_line import make_option
from records.errors import RemaskError
from records.format import manifest
from records.format.frame import SUM_MULTIPLIER, Frame
from records.format.manifest import SPLITS, Manifest, Shard, Tokenizer
from records.paths import CLOUD, File
from records.tokenizer import loading
from records.tokenizer.artifact import TOKENIZER_CONFIG_JSON, TOKENIZER_JSON, TokenizerArtifact

if TYPE_CHECKING:
    import tensorflow as tf

CHANGED = "a shard does not hold as many sequences as the manifest says"
"""What a pipeline asserts not to be. (A file that is cut between two records reads well.)"""

_BLOCK = 2048  # records of which the sum is taken at once: they stay in the processor's cache
MOST_UNPACKED = 2**31 - 1
"""Bytes that TensorFlow unpacks of a compressed file; the rest it drops without a word."""

_TOO_FEW = "Input dataset was expected to contain"  # tf.data.experimental.assert_cardinality


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
    def frame(self) -> Frame:
        """The layout of each record."""
        return Frame(self.max_seq_length, self.manifest.data.tokenizer.vocab_size)

    @property
    def compression(self) -> str:
        """What TensorFlow wants to know."""
        return self.manifest.data.compression.upper()

    def path(self, file: str) -> str:
        """Return the path of a shard."""
        return storage.join(self.folder, file)


def open_data_set(folder: str) -> DataSet:
    """Open a data set and refuse one whose parts do not fit, without reading a record.

    Raises:
        RemaskError: no manifest, another tokenizer than the one in the manifest, a shard that is missing, not of the
            size it had or not in the manifest.
    """
    opened = open_without_shards(folder)
    found, record = storage.files(folder), opened.frame.size  # one look, however many shards
    for split in SPLITS:
        for shard in opened.manifest.data.splits[split]:
            _check_size(opened, shard, found)
            if opened.compression:
                _check_unpacked(opened, shard)
            elif shard.bytes != shard.examples * record:
                raise RemaskError(
                    f"{storage.join(folder, manifest.MANIFEST_JSON)}: {shard.file} has {shard.bytes:,} bytes, expected "
                    f"{shard.examples * record:,} of its {shard.examples:,} sequences; copy it again, or make the "
                    f"records again with {manifest.again(folder)}"
                )
    if strays := unlisted(opened, found):
        raise RemaskError(
            f"{opened.path(strays[0])}: {manifest.MANIFEST_JSON} does not list this shard"
            f"{f', nor {len(strays) - 1:,} more' if strays[1:] else ''}: another job has left it; remove what is not "
            f"listed, which 'make verify {make_option('DATA', folder)}' names"
        )
    return opened


def unlisted(data_set: DataSet, found: Iterable[str]) -> list[str]:
    """Return the shards that lie in the folder of a data set and are none of its own: what another job has left.

    Args:
        data_set: the data set.
        found: names of the files in its folder.
    """
    listed = {shard.file for split in SPLITS for shard in data_set.manifest.data.splits[split]}
    return sorted(name for name in found if manifest.is_shard_file(name) and name not in listed)


def open_without_shards(folder: str) -> DataSet:
    """Open a data set whose shards may be missing or damaged.

    Raises:
        RemaskError: no manifest, or another tokenizer than the one in the manifest.
    """
    made = manifest.load(folder)
    path = storage.join(folder, TOKENIZER_JSON)
    if not storage.exists(path):
        raise RemaskError(f"{path}: missing; copy it again, or make the records again with {manifest.again(folder)}")
    artifact, expected = loading.load(folder), made.data.tokenizer
    if artifact.sha256 != expected.sha256:
        raise RemaskError(
            f"{path}: sha256 is {artifact.sha256}, the manifest says {expected.sha256}. It is not the tokenizer that "
            f"the records were made with: make them again with {manifest.again(folder)}"
        )
    described = replace(Tokenizer.of(artifact), name=expected.name)
    if not expected.config_sha256:  # made by an older remask: then no more is known than which token is which
        described = replace(described, config_sha256="")
    if described != expected:
        found = ", ".join(
            f"{field.name} {getattr(described, field.name)} where the manifest has {getattr(expected, field.name)}"
            for field in fields(Tokenizer)
            if getattr(described, field.name) != getattr(expected, field.name)
        )
        raise RemaskError(
            f"{storage.join(folder, TOKENIZER_CONFIG_JSON)}: not the one that the records were made with: found "
            f"{found}; copy it again, or make them again with {manifest.again(folder)}"
        )
    return DataSet(folder, made, artifact)


def damaged(folder: str, error: "tf.errors.OpError") -> RemaskError | None:
    """Return what to tell the user when reading a data set fails; None where the error is about something else.

    What it says names no file, or drowns in the names of its nodes. Of a bucket, writing is explained as well.

    Args:
        folder: of the data set.
        error: what TensorFlow raised.

    >>> import tensorflow as tf
    >>> print(damaged("out/sample", tf.errors.DataLossError(None, None, "corrupted record at 99")))
    out/sample: a shard is damaged, cut short or gone; 'make verify DATA=out/sample' finds which, and where
    """
    import tensorflow as tf

    lost = isinstance(error, tf.errors.DataLossError | tf.errors.NotFoundError)
    if lost or CHANGED in error.message or _TOO_FEW in error.message:
        return RemaskError(
            f"{folder}: a shard is damaged, cut short or gone; 'make verify {make_option('DATA', folder)}' finds "
            f"which, and where"
        )
    if CLOUD in error.message:
        from records.storage import cloud_errors  # loads Google's libraries

        return cloud_errors.in_message(error.message)
    return None


def read_shard(
    path: "tf.Tensor", *, examples: "tf.Tensor", checksum: "tf.Tensor", frame: Frame, compression: str
) -> "tf.Tensor":
    """Read a shard whole: a record is a row of bytes, so there is nothing to parse.

    Args:
        path: of the file.
        examples: how many the manifest says it holds.
        checksum: uint64, their `records.format.frame.Sum64` in the manifest.
        frame: the layout of a record.
        compression: "GZIP", or "".

    Returns:
        uint8 `[examples, frame.size]`.

    Raises:
        tf.errors.OpError: it is not what the manifest says, which `damaged` explains.
    """
    import tensorflow as tf

    content = tf.io.read_file(path)
    if compression:
        content = tf.io.decode_compressed(content, compression)
    content = tf.io.decode_raw(content, tf.uint8)
    expected = tf.cast(examples, tf.int64) * frame.size  # a shard may have more than 2**31 bytes
    with tf.control_dependencies([tf.debugging.assert_equal(tf.size(content, tf.int64), expected, CHANGED)]):
        rows = tf.reshape(content, [examples, frame.size])
    with tf.control_dependencies([tf.debugging.assert_equal(sum64(rows, frame), checksum, CHANGED)]):
        return tf.identity(rows)


def sum64(rows: "tf.Tensor", frame: Frame) -> "tf.Tensor":
    """Return what `records.format.frame.Sum64` says of records, uint64; rows are `[N, frame.size]`."""
    import tensorflow as tf

    def add(start: "tf.Tensor", total: "tf.Tensor") -> tuple["tf.Tensor", "tf.Tensor"]:
        block = tf.pad(rows[start : start + _BLOCK], [[0, 0], [0, frame.padding]])
        words = tf.bitcast(tf.reshape(block, [-1, len(frame.sum_keys), 8]), tf.uint64)
        sums = tf.reduce_sum(words * frame.sum_keys, 1)
        mixed = (sums ^ tf.bitwise.right_shift(sums, tf.constant(32, tf.uint64))) * SUM_MULTIPLIER
        return start + _BLOCK, total + tf.reduce_sum(mixed)

    # One block after the other, so that beside the rows there is never more than a block in memory.
    nothing = (tf.constant(0), tf.constant(0, tf.uint64))
    return tf.while_loop(lambda start, _: start < tf.shape(rows)[0], add, nothing, parallel_iterations=1)[1]


def parse(rows: "tf.Tensor", frame: Frame) -> tuple["tf.Tensor", "tf.Tensor"]:
    """Return the numbers of records.

    Args:
        rows: uint8 `[B, frame.size]`.
        frame: their layout.

    Returns:
        `input_ids` int32 `[B, max_seq_length]` and `example_id` int64 `[B]`.
    """
    return input_ids(rows, frame), example_ids(rows, frame)


def input_ids(rows: "tf.Tensor", frame: Frame) -> "tf.Tensor":
    """Return the `input_ids` of records, int32 `[B, max_seq_length]`; rows are uint8 `[B, frame.size]`."""
    import tensorflow as tf

    # The narrower the numbers, the faster.
    dtype = tf.uint16 if frame.vocab_size <= 1 << 16 else tf.int32
    septets = tf.unstack(tf.reshape(rows[:, frame.input_ids], [-1, frame.max_seq_length, frame.id_bytes]), axis=2)
    numbers = tf.cast(septets[0], dtype)
    for place, septet in enumerate(septets[1:], start=1):
        # Each byte but the last has its highest bit set: that is taken off here, as one too many of the next place.
        numbers += (tf.cast(septet, dtype) - 1) * (1 << 7 * place)
    return tf.cast(numbers, tf.int32)


def example_ids(rows: "tf.Tensor", frame: Frame) -> "tf.Tensor":
    """Return the `example_id`s of records, int64 `[B]`; rows are uint8 `[B, frame.size]`."""
    import tensorflow as tf

    first, last = frame.example_id.start, frame.example_id.stop - 1
    numbers = tf.bitcast(rows[:, first:last], tf.uint64)
    # Two numbers that stand side by side become one, until all eight are: so no more is held than a few words a record.
    for room in (8, 16, 32):
        held = room // 8 * 7  # bits of a number, in so much room
        lower = sum(((1 << held) - 1) << place for place in range(0, 64, 2 * room))
        moved = tf.bitwise.right_shift(numbers, tf.constant(room - held, tf.uint64))
        numbers = (numbers & tf.constant(lower, tf.uint64)) | (moved & tf.constant(lower << held, tf.uint64))
    highest = tf.cast(tf.bitwise.bitwise_and(rows[:, last], 0x7F), tf.int64)
    return tf.cast(numbers, tf.int64) + highest * (1 << 56)


def _check_unpacked(data_set: DataSet, shard: Shard) -> None:
    """Refuse a compressed shard of which TensorFlow would read a part only."""
    unpacked = shard.examples * data_set.frame.size
    if unpacked > MOST_UNPACKED:
        most = max(map(len, data_set.manifest.data.splits.values()))
        more = 2 * most * -(-unpacked // MOST_UNPACKED)  # shards differ in size
        raise RemaskError(
            f"{data_set.path(shard.file)}: {unpacked:,} bytes when unpacked, TensorFlow unpacks {MOST_UNPACKED:,} at "
            f"most; make the records again with more shards, "
            f"{manifest.again(data_set.folder, f'--num_shards {more}')}, or with --compression none"
        )


def _check_size(data_set: DataSet, shard: Shard, found: Mapping[str, File]) -> None:
    """Refuse a shard that is missing or not as it was, as far as a listing tells."""
    path = data_set.path(shard.file)
    if shard.file not in found:
        raise RemaskError(
            f"{path}: missing; copy it again, or make the records again with {manifest.again(data_set.folder)}"
        )
    size, crc32c = found[shard.file]
    if size != shard.bytes:
        raise RemaskError(
            f"{path}: {size:,} bytes, the manifest says {shard.bytes:,}; copy it again, or make the records again "
            f"with {manifest.again(data_set.folder)}"
        )
    if crc32c and crc32c != shard.crc32c:
        raise RemaskError(
            f"{path}: its crc32c is {crc32c}, the manifest says {shard.crc32c}; copy it again, or make the records "
            f"again with {manifest.again(data_set.folder)}"
        )
