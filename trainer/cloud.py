"""What TensorFlow must know before it is imported to read and write gs:// as we want it to.

Its own client of Google Cloud Storage takes its options from the environment, once; what the user has set there stays.
"""

import os

from records.paths import is_remote

RETRIES = 8
"""After 1, 2, 4 and at most 32 seconds: in all two minutes, for which the rest of remask tries, too."""

_MIB, _LARGEST = 1 << 20, 64


def prepare(*paths: str, data: str = "") -> None:
    """Set what TensorFlow's client takes from the environment, and see to it that it will be let in.

    Left to itself, TensorFlow reads as nobody where it finds no credentials.

    Args:
        paths: of what will be read and written.
        data: folder of the data set, if one will be read.

    Raises:
        RemaskError: there are no credentials, or none that TensorFlow could use, or no data set.
    """
    os.environ.setdefault("GCS_RETRY_CONFIG_MAX_RETRIES", str(RETRIES))
    if any(map(is_remote, (*paths, data))):
        from records.storage import credentials  # loads Google's libraries

        credentials.check_for_tensorflow()
    if is_remote(data):
        from records.format import manifest

        splits = manifest.load(data).data.splits.values()
        largest = max((shard.bytes for shards in splits for shard in shards), default=0)
        os.environ.setdefault("GCS_READ_CACHE_BLOCK_SIZE_MB", str(block_size(largest)))


def block_size(largest_shard: int) -> int:
    """Return how many MiB TensorFlow is to read at a time: a shard is one request, if it is not very large.

    More than a shard has is dear: for each file that it opens TensorFlow makes a buffer of this size, and clears it.

    >>> block_size(9_000_000), block_size(32 << 20), block_size(1 << 30)
    (9, 33, 64)
    """
    return min(_LARGEST, largest_shard // _MIB + 1)
