"""Google Cloud Storage, behind the verbs of `records.storage`. Nobody imports it who has no use for it.

An object appears when its upload has ended, so nothing has to be renamed. The CRC-32C of what is uploaded is held
against the object's by the service; that of what is downloaded here, where an object is read from end to end.

Requests are repeated for as long as `PATIENCE` says, with the client library's own policy. All of ours may be: twice
the same upload or deletion comes to what it is once. Only `append` is of another kind, and looks before it repeats.
"""

import base64
import contextlib
import functools
import io
import logging
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from typing import IO, Any

import google_crc32c
import requests
from google.api_core.exceptions import NotFound, PreconditionFailed, from_http_response
from google.auth.transport.requests import AuthorizedSession
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY
from requests.adapters import HTTPAdapter

from records.errors import Changed, RemaskError
from records.paths import CLOUD, File, partial, parts
from records.storage import cloud_errors, credentials, disk, globs
from records.storage.ranges import Ranges

PATIENCE, FIRST_PATIENCE = 120.0, 15.0
"""Seconds for which a request is repeated while the service has no good answer; the second, while it has not answered
this process at all: then it is the network."""

AT_ONCE = 8
"""Transfers at the same time, where many objects are read or removed."""

_TIMEOUT = (10.0, 60.0)  # seconds to connect, and to wait for the next bytes
_BUFFER = 1 << 20  # bytes
_IN_MEMORY = 64 << 20  # bytes of an object that is written; more of them go through a temporary file
_CHUNK = 64 << 20  # bytes of a request of a large upload
_PART = 64 << 20  # bytes, at least, of each part of an object that is sent in several at a time
_BATCH = 100  # deletions in a request
_COMPOSED = 32  # sources of a composed object
_FOLDERS = "prefixes,nextPageToken"
_LISTED = "items(name,size,crc32c),nextPageToken"  # a tenth of what a listing says otherwise

READ = ("storage.objects.get", "storage.objects.list")
WRITE = ("storage.objects.create", "storage.objects.delete")

_answered = threading.Event()  # the service, at least once
_last = threading.local()  # its `date` is that of the last answer to this thread


@functools.cache
def client() -> storage.Client:
    """Return the client of this process.

    Raises:
        credentials.Missing: there are no credentials.
    """
    found = credentials.find()
    session = AuthorizedSession(found)
    session.mount("https://", HTTPAdapter(pool_maxsize=4 * AT_ONCE))  # connections that are kept, and not made anew
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it would announce each retry
    session.hooks["response"].append(_note)
    return storage.Client(project=None, credentials=found, _http=session)


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


def age(path: str) -> float:
    """Return the seconds since an object was written, by the service's clock, which shows whole ones."""
    blob = _existing(path)
    if not _last.date:
        raise RemaskError(f"{path}: the answer does not say when it was given; look at the proxy between")
    return float((parsedate_to_datetime(_last.date) - blob.updated).total_seconds())


def matching(pattern: str) -> list[str]:
    """Return the objects a glob matches."""
    bucket, name = parts(pattern)
    with _explaining(pattern):
        if name and _get(pattern) is not None:
            return [pattern]
        literal = globs.literal(name)
        if literal == name:
            return []
        names = [blob.name for blob in _list(bucket, literal, match_glob=globs.loosened(name))]
        return sorted(f"{CLOUD}{bucket}/{each}" for each in names if globs.matches(each, name))


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


def folders(folder: str) -> list[str]:
    """Return what stands between a folder's name and the next slash, in the names of the objects below it."""
    bucket, name = parts(folder)
    with _explaining(folder):
        prefix = _folder(name)
        listed = client().list_blobs(bucket, prefix=prefix, delimiter="/", fields=_FOLDERS, **_persistent())
        for _ in listed:  # prefixes are known when all pages have been read
            pass
        return sorted(each[len(prefix) :].rstrip("/") for each in listed.prefixes)


def crc32c(path: str) -> str:
    """Return the CRC-32C of an object, as the service knows it."""
    return _hexadecimal(_existing(path).crc32c)


def read_bytes(path: str) -> bytes:
    """Return the content of an object."""
    with _explaining(path):
        blob = _blob(path)
        content: bytes = blob.download_as_bytes(raw_download=True, checksum=None, **_persistent())
        # Not the library's own check: it leaves out downloads that had to be resumed.
        _check(path, google_crc32c.value(content), blob)
        return content


@contextlib.contextmanager
def open_read(path: str, *, until: int | None = None) -> Iterator[IO[bytes]]:
    """Open an object to read; to go on is refused where it is replaced meanwhile.

    Args:
        path: of the object.
        until: the byte behind which nothing is wanted, and nothing read ahead.
    """
    blob = _existing(path)
    ranges = Ranges(
        functools.partial(_range, path, blob),
        int(blob.size),
        whole=lambda crc: _check(path, crc, blob),
        until=until,
    )
    with ranges, io.BufferedReader(ranges, _BUFFER) as file:
        yield file


@contextlib.contextmanager
def open_write(path: str, *, in_parts: bool = False) -> Iterator[IO[bytes]]:
    """Open an object that appears when the block ends well, and not at all when it does not."""
    _blob(path)
    with _Spool(_IN_MEMORY) as file:
        yield file  # type: ignore[misc]  # of which it has all methods
        with _explaining(path):
            if (size := file.seek(0, os.SEEK_END)) > _PART and in_parts:
                _upload_in_parts(path, file, size)
            else:
                _upload(path, file)


def write_bytes(path: str, content: bytes, *, generation: int | None = None) -> int:
    """Write an object; with a generation, only if it still has that one. Return the one it has now."""
    if len(content) > _PART and generation is None:
        with open_write(path, in_parts=True) as file:
            file.write(content)
        return int(_existing(path).generation)
    with _explaining(path):
        return _upload(path, io.BytesIO(content), generation=generation)


def append(path: str, content: bytes) -> None:
    """Make an object longer, without sending again what it holds."""
    with _explaining(path):
        held = _get(path)
        if held is None:
            write_bytes(path, content)
            return
        more = partial(path, disk.PROCESS)
        write_bytes(more, content)
        bucket, (name, added) = held.bucket, (parts(each)[1] for each in (path, more))
        crc = google_crc32c.extend(int(_hexadecimal(held.crc32c), 16), content)
        try:
            bucket.blob(name).compose(
                [bucket.blob(name), bucket.blob(added)], if_generation_match=held.generation, **_persistent()
            )
        except Exception as error:
            if not cloud_errors.is_precondition(error) or not _held(path, crc):
                raise
        _delete(bucket, [added])


def concatenate(sources: Sequence[str], path: str) -> None:
    """Compose an object of others, without reading them; of more than 32 in several steps."""
    bucket, name = parts(path)
    with _explaining(path):
        if not sources:
            _upload(path, io.BytesIO())
            return
        held = client().bucket(bucket)
        blobs = [held.blob(parts(source)[1]) for source in sources]
        made: list[str] = []
        attempt = secrets.token_hex(4)  # an engine may run this twice at the same time
        while len(blobs) > _COMPOSED:
            steps = [blobs[start : start + _COMPOSED] for start in range(0, len(blobs), _COMPOSED)]
            blobs = [held.blob(partial(name, attempt, len(made) + number)) for number in range(len(steps))]
            for blob, step in zip(blobs, steps, strict=True):
                blob.compose(step, **_persistent())
            made += [blob.name for blob in blobs]
        held.blob(name).compose(blobs, **_persistent())
        _delete(held, made)


def fetch(paths: Sequence[str], folder: str) -> list[str]:
    """Copy objects into a folder of the local disk, several at a time, and return where they are."""

    def one(path: str) -> str:
        target = os.path.join(folder, path.rpartition("/")[2])
        with open_read(path) as source, disk.explaining(target), open(target, "wb") as file:
            shutil.copyfileobj(source, file, _BUFFER)
        return target

    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(one, paths))


def remove(path: str, *, generation: int | None = None) -> None:
    """Remove an object, or all below that name; with a generation, only an object that still has that one."""
    with _explaining(path):
        named = _blob(path)
        if generation is not None:
            try:
                named.delete(if_generation_match=generation, **_persistent())
            except (NotFound, PreconditionFailed):  # an earlier attempt of ours may have done it
                if _get(path) is not None:
                    raise
            return
        names = [blob.name for blob in _list(named.bucket.name, _folder(named.name))]
        _delete(named.bucket, [*names, *([] if path.endswith("/") else [named.name])])


def remove_files(paths: Sequence[str]) -> None:
    """Remove objects of one bucket, a hundred with a request."""
    with _explaining(paths[0]):
        _delete(_blob(paths[0]).bucket, [_blob(path).name for path in paths])


def check_permissions(bucket: str, wanted: Sequence[str] = (*READ, *WRITE)) -> str:
    """Return the account that may do in a bucket what is wanted: to read and write there, by default.

    Raises:
        RemaskError: it may not, there is no such bucket, or there are no credentials.
    """
    with _explaining(f"{CLOUD}{bucket}"):
        held = client().bucket(bucket).test_iam_permissions(list(wanted), **_persistent())
        account = credentials.account(client()._credentials)
        if missing := [permission for permission in wanted if permission not in held]:
            roles = dict.fromkeys(map(cloud_errors.role_for, missing))
            commands = " and ".join(f"'{cloud_errors.grant(bucket, account, role)}'" for role in roles)
            raise RemaskError(
                f"{CLOUD}{bucket}: {account or 'this account'} lacks {', '.join(missing)}; grant it with {commands}"
            )
        return account or "this account"


def location(bucket: str) -> str:
    """Return where a bucket is: a region such as us-central1, or an area such as us."""
    with _explaining(f"{CLOUD}{bucket}"):
        return str(client().get_bucket(bucket, **_persistent()).location).lower()


def _range(path: str, blob: storage.Blob, start: int, stop: int) -> bytes:
    """Return the bytes from `start` to before `stop` of an object that was looked at before."""
    with _explaining(path):
        try:
            content: bytes = blob.download_as_bytes(
                start=start, end=stop - 1, raw_download=True, checksum=None, **_persistent()
            )
        except NotFound as error:  # it names the generation
            raise Changed(f"{path}: replaced or removed while it was read; run the same command again") from error
        if len(content) != stop - start:
            raise RemaskError(f"{path}: asked for bytes {start:,} to {stop:,}, {len(content):,} arrived; try again")
        return content


def _upload(path: str, file: IO[bytes], *, generation: int | None = None) -> int:
    """Send a file as an object, and return the generation it has now."""
    wanted = {} if generation is None else {"if_generation_match": generation}
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    blob = _blob(path, chunk_size=_CHUNK)
    try:
        _send(blob, file, size, **wanted)
    except Exception as error:
        if generation is None or not cloud_errors.is_precondition(error):
            raise
        file.seek(0)
        held = _held(path, google_crc32c.value(file.read()))
        if held is None:
            raise
        blob = held
    return int(blob.generation)


def _upload_in_parts(path: str, file: IO[bytes], size: int) -> None:
    """Send a file of the disk as several objects at a time, and compose the object of these.

    One connection carries only so much, whatever the network could. The price is that a bucket which keeps what is
    deleted keeps the parts.
    """
    target = _blob(path)
    step = max(_PART, -(-size // _COMPOSED))
    attempt = secrets.token_hex(4)  # somebody else may be writing the same object
    parts = [_Part(file.fileno(), start, min(step, size - start)) for start in range(0, size, step)]
    blobs = [_blob(partial(path, attempt, number), chunk_size=_CHUNK) for number in range(len(parts))]
    made = [blob.name for blob in blobs]
    try:
        with ThreadPoolExecutor(AT_ONCE) as threads:
            for _ in threads.map(_send, blobs, parts, [part.size for part in parts]):
                pass
        target.compose(blobs, **_persistent())  # the answer tells the CRC-32C
        if f"{_crc32c(file):08x}" != _hexadecimal(target.crc32c):
            made.append(target.name)
            raise RemaskError(f"{path}: composed of {len(blobs)} parts, it is not what was sent; try again")
    except BaseException:
        with contextlib.suppress(Exception):  # the first error is the one to tell
            _delete(target.bucket, made)
        raise
    _delete(target.bucket, made)


def _send(blob: storage.Blob, file: Any, size: int, **options: Any) -> None:
    blob.upload_from_file(
        file, size=size, content_type="application/octet-stream", checksum="crc32c", **options, **_persistent()
    )


def _crc32c(file: Any) -> int:
    """Return the CRC-32C of a whole file."""
    file.seek(0)
    crc = 0
    while content := file.read(_BUFFER):
        crc = google_crc32c.extend(crc, content)
    return int(crc)


class _Spool(tempfile.SpooledTemporaryFile):
    """A file in memory, or on the disk where it has grown large. What is wrong with the disk is explained as that."""

    def write(self, content: Any) -> int:
        """Write at the end of it."""
        with disk.explaining(tempfile.gettempdir()):
            return super().write(content)

    def writelines(self, contents: Any) -> None:
        """Write each."""
        for content in contents:
            self.write(content)

    def read(self, *size: int) -> bytes:
        """Read so many bytes, or all there are."""
        with disk.explaining(tempfile.gettempdir()):
            return bytes(super().read(*size))

    def seek(self, *place: int) -> int:
        """Move to a place; what was written is on the disk from then on."""
        with disk.explaining(tempfile.gettempdir()):
            return super().seek(*place)

    def flush(self) -> None:
        """Have all that was written on the disk."""
        with disk.explaining(tempfile.gettempdir()):
            super().flush()

    def close(self) -> None:
        """Forget it."""
        with contextlib.suppress(OSError):  # nobody wants any more what could not be written
            super().close()


class _Part(io.RawIOBase):
    """Some bytes of a file of the disk, with a place of its own in it.

    Args:
        file: its descriptor.
        start: where the part begins, in bytes.
        size: bytes of the part.
    """

    def __init__(self, file: int, start: int, size: int) -> None:
        self._file, self._start, self.size, self._place = file, start, size, 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that one can move about in it."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a place, counted from the beginning, from here or from the end."""
        self._place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self.size}[whence]
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Read what comes next."""
        wanted = memoryview(buffer)[: max(0, self.size - self._place)]
        with disk.explaining(tempfile.gettempdir()):
            read = os.preadv(self._file, [wanted], self._start + self._place)
        self._place += read
        return read


def _held(path: str, crc: int) -> storage.Blob | None:
    """Return an object that is what was to be written: the answer to an earlier attempt of ours may have been lost."""
    blob = _get(path)
    return blob if blob is not None and _hexadecimal(blob.crc32c) == f"{crc:08x}" else None


def _blob(path: str, **options: Any) -> storage.Blob:
    """Return the object of a path, of which the service has not been asked."""
    bucket, name = parts(path)
    if not name.strip("/"):  # to remove it would be to empty the bucket
        raise RemaskError(f"{path}: names a bucket and nothing in it, expected a path like {CLOUD}{bucket}/records")
    return client().bucket(bucket).blob(name, **options)


def _get(path: str) -> storage.Blob | None:
    blob = _blob(path)
    try:
        blob.reload(**_persistent())
    except NotFound as error:
        if cloud_errors.is_bucket_missing(error):
            raise
        return None
    return blob


def _existing(path: str) -> storage.Blob:
    with _explaining(path):
        blob = _get(path)
        if blob is None:
            raise RemaskError(f"{path}: there is no such object")
        return blob


def _list(bucket: str, prefix: str, **options: Any) -> list[storage.Blob]:
    return list(client().list_blobs(bucket, prefix=prefix, fields=_LISTED, **options, **_persistent()))


def _delete(bucket: storage.Bucket, names: Sequence[str]) -> None:
    """Delete objects, a hundred with a request; those that are gone already are fine."""
    batches = [list(names[start : start + _BATCH]) for start in range(0, len(names), _BATCH)]
    if len(batches) < 2:
        for batch in batches:
            _delete_batch(bucket, batch)
        return
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for _ in threads.map(functools.partial(_delete_batch, bucket), batches):
            pass


def _delete_batch(bucket: storage.Bucket, names: list[str]) -> None:
    def attempt() -> None:
        with client().batch(raise_exception=False) as batch:
            for name in names:
                bucket.blob(name).delete(retry=None, timeout=_TIMEOUT)
        answers = dict(zip(names, batch._responses, strict=True))
        names[:] = [name for name, answer in answers.items() if answer.status_code not in (200, 204, 404)]
        for name in names:
            raise from_http_response(answers[name])

    _retry()(attempt)()


def _check(path: str, crc: int, blob: storage.Blob) -> None:
    """Refuse content whose CRC-32C is not that of the object it came from."""
    if f"{crc:08x}" != (expected := _hexadecimal(blob.crc32c)):
        raise RemaskError(
            f"{path}: what arrived has CRC-32C {crc:08x}, the bucket says {expected}; something on the way damages "
            f"data: try again"
        )


def _folder(name: str) -> str:
    return f"{name.rstrip('/')}/" if name.strip("/") else ""


def _hexadecimal(crc: str) -> str:
    """Return a CRC-32C as remask writes it.

    >>> _hexadecimal("AAAA/w==")
    '000000ff'
    """
    return base64.b64decode(crc).hex()


def _note(answer: requests.Response, **options: Any) -> None:
    """See that the service answers, and when it thinks it is."""
    _answered.set()
    _last.date = answer.headers.get("Date", "")


def _persistent() -> dict[str, Any]:
    return {"timeout": _TIMEOUT, "retry": _retry()}


def _retry() -> Any:
    return DEFAULT_RETRY.with_timeout(PATIENCE if _answered.is_set() else FIRST_PATIENCE)


@contextlib.contextmanager
def _explaining(path: str) -> Iterator[None]:
    try:
        yield
    except credentials.Missing as error:
        raise RemaskError(f"{path}: {error}") from error
    except RemaskError:
        raise
    except Exception as error:
        account = credentials.account(client()._credentials) if client.cache_info().currsize else ""
        explained = cloud_errors.explained(path, error, account=account)
        if explained is None:
            raise
        raise explained from error
