"""Google Cloud Storage, behind the verbs of `records.storage`. Nobody imports it who has no use for it.

An object appears when its upload has ended, so nothing has to be renamed. The CRC-32C of what is uploaded is held
against the object's by the client library; that of what is downloaded here, where an object is read from end to end.
"""

import base64
import contextlib
import functools
import io
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Any

import google_crc32c
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY

from records import cloud_errors, credentials
from records.errors import Changed, RemaskError
from records.paths import CLOUD, TEMPORARY, File, parts

PATIENCE = 120.0
"""Seconds for which a request is repeated while the service has no good answer."""

_TIMEOUT = (10.0, 60.0)  # seconds to connect, and to wait for the next bytes
_LEAST, _MOST = 1 << 20, 16 << 20  # bytes of a range: the more is read in sequence, the larger
_IN_MEMORY = 64 << 20  # bytes of an object that is written; more of them go through a temporary file
_CHUNK = 64 << 20  # bytes of a request of a large upload
_BATCH = 100  # deletions in a request
_COMPOSED = 32  # sources of a composed object
_AT_ONCE = 8  # transfers

READ = ("storage.objects.get", "storage.objects.list")
WRITE = ("storage.objects.create", "storage.objects.delete")


@functools.cache
def client() -> storage.Client:
    """Return the client of this process.

    Raises:
        RemaskError: there are no credentials.
    """
    return storage.Client(project=None, credentials=credentials.find())


def exists(path: str) -> bool:
    """Say whether there is an object, or any below that name."""
    with _explaining(path):
        bucket, name = parts(path)
        return (bool(name) and _get(path) is not None) or bool(_list(bucket, _folder(name), max_results=1))


def size(path: str) -> int:
    """Return the bytes of an object."""
    return int(_existing(path).size)


def generation(path: str) -> int:
    """Return the generation of an object; 0 where there is none."""
    with _explaining(path):
        blob = _get(path)
        return int(blob.generation) if blob else 0


def matching(pattern: str) -> list[str]:
    """Return the objects a glob matches."""
    bucket, name = parts(pattern)
    with _explaining(pattern):
        literal = re.split(r"[*?\[{]", name, maxsplit=1)[0]
        if literal == name or _get(pattern) is not None:
            return [pattern] if name and _get(pattern) is not None else []
        found = client().list_blobs(bucket, prefix=literal, match_glob=name, **_persistent())
        return sorted(f"{CLOUD}{bucket}/{blob.name}" for blob in found if not blob.name.endswith("/"))


def files(folder: str) -> dict[str, File]:
    """Return the objects right in a folder."""
    bucket, name = parts(folder)
    with _explaining(folder):
        prefix = _folder(name)
        return {
            blob.name[len(prefix) :]: File(blob.size, _hexadecimal(blob.crc32c))
            for blob in _list(bucket, prefix, delimiter="/")
            if blob.name != prefix
        }


def crc32c(path: str) -> str:
    """Return the CRC-32C of an object, as the service knows it."""
    return _hexadecimal(_existing(path).crc32c)


@contextlib.contextmanager
def open_read(path: str) -> Iterator[IO[bytes]]:
    """Open an object to read; to go on is refused where it is replaced meanwhile."""
    with _explaining(path), Reader(path, _existing(path)) as reader, io.BufferedReader(reader, _LEAST) as file:
        yield file


@contextlib.contextmanager
def open_write(path: str) -> Iterator[IO[bytes]]:
    """Open an object that appears when the block ends well, and not at all when it does not."""
    parts(path)
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
        yield file  # type: ignore[misc]  # of which it has all methods
        file.seek(0)
        with _explaining(path):
            _upload(path, file)


def write_bytes(path: str, content: bytes, *, generation: int | None = None) -> None:
    """Write an object; with a generation, only if it still has that one."""
    with _explaining(path):
        _upload(path, io.BytesIO(content), generation=generation)


def append(path: str, content: bytes) -> None:
    """Make an object longer, without sending again what it holds."""
    if not generation(path):
        write_bytes(path, content)
        return
    more = f"{path}.more{TEMPORARY}"
    write_bytes(more, content)
    concatenate([path, more], path)
    remove(more)


def concatenate(sources: Sequence[str], path: str) -> None:
    """Compose an object of others, without reading them; of more than 32 in several steps."""
    bucket, name = parts(path)
    held = client().bucket(bucket)
    with _explaining(path):
        if not sources:
            _upload(path, io.BytesIO())
            return
        blobs = [held.blob(parts(source)[1]) for source in sources]
        made: list[storage.Blob] = []
        while len(blobs) > _COMPOSED:
            steps = [blobs[start : start + _COMPOSED] for start in range(0, len(blobs), _COMPOSED)]
            blobs = [held.blob(f"{name}.{len(made) + number}{TEMPORARY}") for number in range(len(steps))]
            for blob, step in zip(blobs, steps, strict=True):
                blob.compose(step, **_persistent())
            made += blobs
        held.blob(name).compose(blobs, **_persistent())
        _delete(held, made)


def fetch(paths: Sequence[str], folder: str) -> list[str]:
    """Copy objects into a folder of the local disk, several at a time, and return where they are."""

    def one(path: str) -> str:
        target = os.path.join(folder, path.rpartition("/")[2])
        with _explaining(path), open(target, "wb") as file:
            _existing(path).download_to_file(file, raw_download=True, checksum="crc32c", **_persistent())
        return target

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(threads.map(one, paths))


def remove(path: str) -> None:
    """Remove an object, or all below that name."""
    bucket, name = parts(path)
    with _explaining(path):
        held, below = client().bucket(bucket), _list(bucket, _folder(name))
        _delete(held, [*below, *([held.blob(name)] if name and not name.endswith("/") else [])])


def missing_permissions(bucket: str, wanted: Sequence[str] = (*READ, *WRITE)) -> list[str]:
    """Return what the account would need in a bucket, to read and write there or for what is wanted, and may not do.

    Raises:
        RemaskError: there is no such bucket, or there are no credentials.
    """
    with _explaining(f"{CLOUD}{bucket}"):
        held = client().bucket(bucket).test_iam_permissions(list(wanted), **_persistent())
        return [permission for permission in wanted if permission not in held]


def location(bucket: str) -> str:
    """Return where a bucket is: a region such as us-central1, or an area such as us."""
    with _explaining(f"{CLOUD}{bucket}"):
        return str(client().get_bucket(bucket, **_persistent()).location).lower()


class Reader(io.RawIOBase):
    """Reads an object range by range, the next one while the last is worked on.

    Args:
        path: for messages.
        blob: the object.
    """

    def __init__(self, path: str, blob: storage.Blob) -> None:
        super().__init__()
        self._path, self._blob, self._size = path, blob, int(blob.size)
        self._at, self._window, self._held = 0, _LEAST, b""
        self._next: tuple[int, Future[bytes]] | None = None  # where it starts
        self._crc: int | None = 0  # of all so far; None once something was passed over
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place, from where on nothing is read ahead that is not wanted."""
        at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if at != self._at:
            self._at, self._window, self._held, self._next, self._crc = at, _LEAST, b"", None, None
        return at

    def tell(self) -> int:
        """Return where the next byte is read."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read as much as there is at hand, at least a byte unless at the end."""
        if not self._held and self._at < self._size:
            with _explaining(self._path):
                self._held = self._range()
        count = min(len(buffer), len(self._held))
        buffer[:count] = self._held[:count]
        if self._crc is not None:
            self._crc = google_crc32c.extend(self._crc, self._held[:count])
            if count and self._at + count == self._size and f"{self._crc:08x}" != _hexadecimal(self._blob.crc32c):
                raise RemaskError(
                    f"{self._path}: what arrived has CRC-32C {self._crc:08x}, the bucket says "
                    f"{_hexadecimal(self._blob.crc32c)}; something on the way damages data: try again"
                )
        self._held, self._at = self._held[count:], self._at + count
        return count

    def close(self) -> None:
        """Stop reading ahead."""
        self._threads.shutdown(cancel_futures=True)
        super().close()

    def _range(self) -> bytes:
        """Return the range that starts here, and begin to read the one after it."""
        at, window = self._at, self._window
        content = self._next[1].result() if self._next and self._next[0] == at else self._fetch(at, window)
        self._next, self._window = None, min(2 * window, _MOST)
        # Not after the first range: whoever wants but a few bytes of a place shall not pay for more.
        if window > _LEAST and (after := at + len(content)) < self._size:
            self._next = after, self._threads.submit(self._fetch, after, self._window)
        return content

    def _fetch(self, start: int, size: int) -> bytes:
        stop = min(start + size, self._size)
        content: bytes = self._blob.download_as_bytes(
            start=start,
            end=stop - 1,
            raw_download=True,
            checksum=None,
            if_generation_match=self._blob.generation,
            **_persistent(),
        )
        if len(content) != stop - start:
            raise RemaskError(
                f"{self._path}: asked for bytes {start:,} to {stop:,}, {len(content):,} arrived; try again"
            )
        return content


def _upload(path: str, file: IO[bytes], *, generation: int | None = None) -> None:
    bucket, name = parts(path)
    if not name:
        raise RemaskError(f"{path}: names a bucket and no object in it, expected one like {path.rstrip('/')}/records")
    blob = client().bucket(bucket).blob(name, chunk_size=_CHUNK)
    wanted = {} if generation is None else {"if_generation_match": generation}
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    try:
        blob.upload_from_file(
            file, size=size, content_type="application/octet-stream", checksum="crc32c", **wanted, **_persistent()
        )
    except Exception as error:
        if generation is None or not cloud_errors.is_precondition(error):
            raise
        file.seek(0)
        if not _holds(path, file.read()):  # the answer to an earlier attempt of ours may have been lost
            raise Changed(f"{path}: somebody else has written it meanwhile") from error


def _holds(path: str, content: bytes) -> bool:
    """Say whether an object holds just that."""
    blob = _get(path)
    return blob is not None and _hexadecimal(blob.crc32c) == f"{google_crc32c.value(content):08x}"


def _get(path: str) -> storage.Blob | None:
    bucket, name = parts(path)
    return client().bucket(bucket).get_blob(name, **_persistent())


def _existing(path: str) -> storage.Blob:
    with _explaining(path):
        blob = _get(path)
        if blob is None:
            raise RemaskError(f"{path}: there is no such object")
        return blob


def _list(bucket: str, prefix: str, **options: Any) -> list[storage.Blob]:
    return list(client().list_blobs(bucket, prefix=prefix, **options, **_persistent()))


def _delete(bucket: storage.Bucket, blobs: Sequence[storage.Blob]) -> None:
    """Delete objects; those that are gone already are fine."""
    for start in range(0, len(blobs), _BATCH):
        bucket.delete_blobs(blobs[start : start + _BATCH], on_error=lambda blob: None, **_persistent())


def _folder(name: str) -> str:
    return f"{name.rstrip('/')}/" if name.strip("/") else ""


def _hexadecimal(crc: str) -> str:
    """Return a CRC-32C as remask writes it.

    >>> _hexadecimal("AAAA/w==")
    '000000ff'
    """
    return base64.b64decode(crc).hex()


def _persistent() -> dict[str, Any]:
    return {"timeout": _TIMEOUT, "retry": DEFAULT_RETRY.with_timeout(PATIENCE)}


@contextlib.contextmanager
def _explaining(path: str) -> Iterator[None]:
    try:
        yield
    except RemaskError:
        raise
    except Exception as error:
        explained = cloud_errors.explained(path, error, patience=PATIENCE)
        if explained is None:
            raise
        raise explained from error
