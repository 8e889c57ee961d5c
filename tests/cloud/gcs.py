"""Google Cloud Storage, as far as remask, Beam and TensorFlow use it: its JSON API, and plain GET and HEAD of objects.

https://cloud.google.com/storage/docs/json_api is what it holds to. Objects are held in memory.
"""

import base64
import email
import email.policy
import hashlib
import itertools
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, unquote

import google_crc32c

from tests.cloud.http import RESUME_INCOMPLETE, HttpError, Request, Response, of_json

_URL = "https://storage.googleapis.com"
_RESUME_UNIT = 256 << 10  # chunks of a resumable upload, but for the last, are multiples of this
_MOST_COMPOSED = 32
_BATCH_SIZE = 100


@dataclass(frozen=True)
class Object:
    """One generation of an object."""

    bucket: str
    name: str
    content: bytes
    generation: int
    metageneration: int = 1
    given: Mapping[str, Any] = field(default_factory=dict)  # what the client may say of it
    components: int = 0  # it was composed of
    time: str = field(default_factory=lambda: _written(datetime.now(UTC)))

    @property
    def crc32c(self) -> str:
        """Base64 of its big-endian CRC-32C."""
        return base64.b64encode(google_crc32c.value(self.content).to_bytes(4, "big")).decode()

    @property
    def md5(self) -> str:
        """Base64 of its MD5."""
        return base64.b64encode(hashlib.md5(self.content).digest()).decode()

    def resource(self) -> dict[str, Any]:
        """Return what the JSON API says of it."""
        path = f"/b/{self.bucket}/o/{quote(self.name, safe='')}"
        hashes = {"crc32c": self.crc32c} | (
            {"componentCount": self.components} if self.components else {"md5Hash": self.md5}
        )
        return {
            "kind": "storage#object",
            "id": f"{self.bucket}/{self.name}/{self.generation}",
            "selfLink": f"{_URL}/storage/v1{path}",
            "mediaLink": f"{_URL}/download/storage/v1{path}?generation={self.generation}&alt=media",
            "name": self.name,
            "bucket": self.bucket,
            "generation": str(self.generation),
            "metageneration": str(self.metageneration),
            "contentType": "application/octet-stream",
            "storageClass": "STANDARD",
            "size": str(len(self.content)),
            "timeCreated": self.time,
            "updated": self.time,
            "etag": f"{self.generation}/{self.metageneration}",
            **hashes,
            **self.given,
        }

    def headers(self) -> dict[str, str]:
        """Return what goes with its content."""
        hashes = f"crc32c={self.crc32c}" + ("" if self.components else f",md5={self.md5}")
        return {
            "content-type": str(self.given.get("contentType", "application/octet-stream")),
            "etag": f'"{self.generation}/{self.metageneration}"',
            "x-goog-generation": str(self.generation),
            "x-goog-metageneration": str(self.metageneration),
            "x-goog-hash": hashes,
            "x-goog-stored-content-length": str(len(self.content)),
            "accept-ranges": "bytes",
        }


@dataclass
class Bucket:
    """A bucket, and who may do what in it."""

    name: str
    readers: frozenset[str] | None = None  # accounts; None: all
    writers: frozenset[str] | None = None
    billing: bool = True
    objects: dict[str, Object] = field(default_factory=dict)


@dataclass
class _Upload:
    """A resumable upload that is under way."""

    bucket: str
    given: dict[str, Any]
    query: dict[str, str]
    content: bytearray = field(default_factory=bytearray)
    done: Object | None = None


class Storage:
    """The service of storage.googleapis.com and www.googleapis.com.

    Args:
        account_of: who asks; it raises `HttpError` for nobody.
    """

    def __init__(self, account_of: Callable[[Request], str]) -> None:
        self._account_of, self._lock = account_of, threading.RLock()
        self.page_size = 1000
        self.rewritten_at_once = 1 << 40  # bytes
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.buckets: dict[str, Bucket] = {}
        self.ahead = timedelta()  # of this machine's clock is the service's
        self._uploads: dict[str, _Upload] = {}
        self._rewrites: dict[str, int] = {}
        self._generations = itertools.count(1_700_000_000_000_001)

    def create_bucket(
        self, name: str, *, readers: set[str] | None = None, writers: set[str] | None = None, billing: bool = True
    ) -> None:
        """Create a bucket, for all accounts or for some."""
        allowed = (None if accounts is None else frozenset(accounts) for accounts in (readers, writers))
        self.buckets[name] = Bucket(name, *allowed, billing=billing)

    def put(self, bucket: str, name: str, content: bytes) -> None:
        """Put an object into a bucket, replacing the one there is."""
        self._store(self.buckets[bucket], name, content, {}, {})

    def objects(self, bucket: str, prefix: str = "") -> dict[str, bytes]:
        """Return the content of all objects with a prefix, by name."""
        held = self.buckets[bucket].objects
        return {name: held[name].content for name in sorted(held) if name.startswith(prefix)}

    def now(self) -> datetime:
        """Return what the service's clock shows."""
        return datetime.now(UTC) + self.ahead

    def __call__(self, request: Request) -> Response:
        """Answer a request, and say when."""
        answer = self._answer(request)
        return answer._replace(headers={**answer.headers, "date": format_datetime(self.now(), usegmt=True)})

    def _answer(self, request: Request) -> Response:
        account = self._account_of(request)
        with self._lock:
            match [request.method, *request.parts]:
                case ["POST", "batch", "storage", "v1"]:
                    return self._batch(request)
                case [_, "upload", "storage", "v1", "b", bucket, "o"]:
                    return self._uploaded(request, account, bucket)
                case ["GET", "download", "storage", "v1", "b", bucket, "o", *name]:
                    return self._media(request, account, bucket, "/".join(name))
                case [_, "storage", "v1", "b", *rest]:
                    return self._metadata(request, account, rest)
                case ["GET" | "HEAD", bucket, *name]:
                    return self._media(request, account, bucket, "/".join(name))
        raise HttpError(501, "notImplemented", f"the local cloud knows no {request.method} {request.path}")

    def _metadata(self, request: Request, account: str, rest: list[str]) -> Response:
        match [request.method, *rest]:
            case ["GET"]:
                return of_json(
                    {"kind": "storage#buckets", "items": [_of_bucket(name) for name in sorted(self.buckets)]}
                )
            case ["POST"]:
                return self._create(request)
            case ["GET", bucket]:
                self._bucket(bucket, account, "storage.buckets.get")
                return of_json(_of_bucket(bucket))
            case ["DELETE", bucket]:
                if self._bucket(bucket, account, "storage.buckets.delete").objects:
                    raise HttpError(409, "conflict", "The bucket you tried to delete is not empty.")
                del self.buckets[bucket]
                return Response(204)
            case ["GET", bucket, "iam", "testPermissions"]:
                asked = request.queries.get("permissions", [])
                held = self._existing(bucket)
                return of_json({"permissions": [each for each in asked if _allowed(held, account, each)]})
            case ["GET", bucket, "o"]:
                return self._list(request, self._bucket(bucket, account, "storage.objects.list"))
            case ["POST", bucket, "o", *name, "compose"]:
                return self._compose(request, account, bucket, "/".join(name))
            case ["POST", bucket, "o", *rest] if "rewriteTo" in rest or "copyTo" in rest:
                return self._copy(request, account, bucket, rest)
            case ["GET", bucket, "o", *name]:
                if request.query.get("alt") == "media":
                    return self._media(request, account, bucket, "/".join(name))
                held = self._bucket(bucket, account, "storage.objects.get")
                return of_json(self._object(held, "/".join(name), request.query).resource())
            case ["DELETE", bucket, "o", *name]:
                held = self._bucket(bucket, account, "storage.objects.delete")
                del held.objects[self._object(held, "/".join(name), request.query).name]
                return Response(204)
            case ["PATCH" | "PUT", bucket, "o", *name]:
                return self._patch(request, account, bucket, "/".join(name))
        raise HttpError(501, "notImplemented", f"the local cloud knows no {request.method} {request.path}")

    def _existing(self, name: str) -> Bucket:
        if name not in self.buckets:
            raise HttpError(404, "notFound", "The specified bucket does not exist.")
        return self.buckets[name]

    def _bucket(self, name: str, account: str, permission: str) -> Bucket:
        """Return a bucket in which an account may do something."""
        bucket = self._existing(name)
        if not bucket.billing:
            raise HttpError(
                403, "accountDisabled", "The billing account for the owning project is disabled in state absent"
            )
        if not _allowed(bucket, account, permission):
            what = "object" if "objects" in permission else "bucket"
            raise HttpError(
                403,
                "forbidden",
                f"{account} does not have {permission} access to the Google Cloud Storage {what}. Permission "
                f"'{permission}' denied on resource (or it may not exist).",
            )
        return bucket

    def _object(self, bucket: Bucket, name: str, query: Mapping[str, str], kind: str = "if") -> Object:
        """Return an object that is as the query wants it."""
        held = bucket.objects.get(name)
        _check_preconditions(held, query, kind)
        wanted = query.get("sourceGeneration" if kind == "ifSource" else "generation")
        if held is None or (wanted and int(wanted) != held.generation):
            raise HttpError(404, "notFound", f"No such object: {bucket.name}/{name}")
        return held

    def _create(self, request: Request) -> Response:
        name = request.json()["name"]
        if name in self.buckets:
            raise HttpError(
                409, "conflict", "Your previous request to create the named bucket succeeded and you own it."
            )
        self.create_bucket(name)
        return of_json(_of_bucket(name))

    def _list(self, request: Request, bucket: Bucket) -> Response:
        query = request.query
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        wanted = _of_glob(query["matchGlob"]) if query.get("matchGlob") else None
        found: dict[str, Object | None] = {}  # None: a common prefix
        for name in sorted(bucket.objects):
            rest = name[len(prefix) :]
            if not name.startswith(prefix) or not query.get("startOffset", "") <= name:
                continue
            if name >= (query.get("endOffset") or "\U0010ffff") or (wanted and not wanted.fullmatch(name)):
                continue
            if delimiter and delimiter in rest:
                folder = prefix + rest.partition(delimiter)[0] + delimiter
                found.setdefault(folder, None)
                if name != folder or query.get("includeTrailingDelimiter") != "true":
                    continue
            found[name] = bucket.objects[name]
        after = base64.b64decode(query.get("pageToken", "")).decode()
        left = [name for name in sorted(found) if name > after]
        page = left[: min(int(query.get("maxResults", self.page_size)), self.page_size)]
        listed = {
            "kind": "storage#objects",
            "items": [held.resource() for name in page if (held := found[name])],
            "prefixes": [name for name in page if not found[name]],
        }
        if len(page) < len(left):
            listed["nextPageToken"] = base64.b64encode(page[-1].encode()).decode()
        return of_json(listed)

    def _media(self, request: Request, account: str, bucket: str, name: str) -> Response:
        held = self._object(self._bucket(bucket, account, "storage.objects.get"), name, request.query)
        size, headers = len(held.content), held.headers()
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
        if not asked or asked[0] == "bytes=-":
            return Response(200, held.content, headers)
        if asked[1]:
            start, stop = int(asked[1]), min(size, int(asked[2] or size) + 1)
        else:
            start, stop = max(0, size - int(asked[2])), size
        if start >= size:
            raise HttpError(416, "requestedRangeNotSatisfiable", "The requested range cannot be satisfied.")
        headers["content-range"] = f"bytes {start}-{stop - 1}/{size}"
        return Response(206, held.content[start:stop], headers)

    def _patch(self, request: Request, account: str, bucket: str, name: str) -> Response:
        held = self._bucket(bucket, account, "storage.objects.update")
        old = self._object(held, name, request.query)
        given = {**old.given, **request.json()}
        new = Object(bucket, name, old.content, old.generation, old.metageneration + 1, given, old.components, old.time)
        held.objects[name] = new
        return of_json(new.resource())

    def _compose(self, request: Request, account: str, bucket: str, name: str) -> Response:
        asked = request.json()
        sources = asked["sourceObjects"]
        if not 1 <= len(sources) <= _MOST_COMPOSED:
            raise HttpError(
                400, "invalid", f"The number of source components ({len(sources)}) exceeds the maximum (32)."
            )
        source = self._bucket(bucket, account, "storage.objects.get")
        parts = []
        for each in sources:
            query = {"generation": str(each["generation"])} if each.get("generation") else {}
            query |= {name: str(value) for name, value in each.get("objectPreconditions", {}).items()}
            parts.append(self._object(source, each["name"], query))
        content, components = b"".join(part.content for part in parts), sum(part.components or 1 for part in parts)
        given = asked.get("destination", {})
        target = self._bucket(bucket, account, "storage.objects.create")
        return of_json(self._store(target, name, content, given, request.query, components).resource())

    def _copy(self, request: Request, account: str, bucket: str, rest: list[str]) -> Response:
        verb = "rewriteTo" if "rewriteTo" in rest else "copyTo"
        place = rest.index(verb)
        name, (_, target, _, *new_name) = "/".join(rest[:place]), rest[place + 1 :]
        source = self._object(
            self._bucket(bucket, account, "storage.objects.get"), name, request.query, kind="ifSource"
        )
        to = self._bucket(target, account, "storage.objects.create")
        size = len(source.content)
        if verb == "rewriteTo":
            token = request.query.get("rewriteToken") or f"rewrite-{next(self._generations)}"
            done = min(size, self._rewrites.get(token, 0) + self.rewritten_at_once)
            self._rewrites[token] = done
            progress = {"totalBytesRewritten": str(done), "objectSize": str(size), "done": done == size}
            if done < size:
                return of_json({"kind": "storage#rewriteResponse", **progress, "rewriteToken": token})
        given = {**source.given, **request.json()}
        made = self._store(to, "/".join(new_name), source.content, given, request.query, source.components)
        if verb == "copyTo":
            return of_json(made.resource())
        return of_json({"kind": "storage#rewriteResponse", **progress, "resource": made.resource()})

    def _store(
        self,
        bucket: Bucket,
        name: str,
        content: bytes,
        given: Mapping[str, Any],
        query: Mapping[str, str],
        components: int = 0,
    ) -> Object:
        """Make a new generation, if it is what it is said to be and the one there is is as the query wants it."""
        _check_preconditions(bucket.objects.get(name), query, "if")
        may = {"contentType", "metadata", "contentEncoding", "cacheControl", "contentDisposition", "contentLanguage"}
        kept = {key: value for key, value in given.items() if key in may}
        made = Object(
            bucket.name,
            name,
            bytes(content),
            next(self._generations),
            given=kept,
            components=components,
            time=_written(self.now()),
        )
        for key, found in (("crc32c", made.crc32c), ("md5Hash", made.md5)):
            if given.get(key, found) != found:
                raise HttpError(400, "invalid", f'Provided {key} "{given[key]}" doesn\'t match calculated "{found}".')
        bucket.objects[name] = made
        return made

    def _uploaded(self, request: Request, account: str, bucket: str) -> Response:
        query = request.query
        if "upload_id" in query:
            return self._resumed(request, query["upload_id"])
        held = self._bucket(bucket, account, "storage.objects.create")
        given: dict[str, Any]
        match query.get("uploadType"):
            case "media":
                kind = request.headers.get("content-type")
                given, content = ({"contentType": kind} if kind else {}), request.body
            case "multipart":
                given, content = _multipart(request)
            case "resumable":
                given = request.json()
                name = given.get("name") or query["name"]
                if name in held.objects:  # refused at its start, as well as at its end
                    _check_preconditions(held.objects[name], query, "if")
                id_ = f"upload-{next(self._generations)}"
                self._uploads[id_] = _Upload(bucket, {"name": name, **given}, query)
                target = f"https://{request.host}{request.path}?uploadType=resumable&upload_id={id_}"
                return Response(200, b"", {"location": target, "x-guploader-uploadid": id_})
            case other:
                raise HttpError(400, "badRequest", f"no such uploadType: {other}")
        given |= _hashes(request)
        return of_json(self._store(held, given.get("name") or query["name"], content, given, query).resource())

    def _resumed(self, request: Request, id_: str) -> Response:
        """Take a chunk of a resumable upload, or say how far it is."""
        upload = self._uploads.get(id_)
        if upload is None:
            raise HttpError(404, "notFound", "Upload session not found.")
        if request.method == "DELETE":
            del self._uploads[id_]
            return Response(499)
        if upload.done:
            return of_json(upload.done.resource())
        asked = request.headers.get("content-range", f"bytes 0-{len(request.body) - 1}/{len(request.body)}")
        where, _, total = asked.removeprefix("bytes ").partition("/")
        held = len(upload.content)
        if where != "*":
            start = int(where.partition("-")[0])
            if start > held:
                raise HttpError(503, "backendError", f"a chunk from byte {start}, expected from {held}")
            upload.content += request.body[held - start :]
            last = total != "*" and len(upload.content) == int(total)
            if not last and len(request.body) % _RESUME_UNIT:
                raise HttpError(
                    400, "badRequest", f"a chunk of {len(request.body)} bytes, expected a multiple of 256 KiB"
                )
        if total != "*" and len(upload.content) == int(total):
            given = {**upload.given, **_hashes(request)}
            bucket = self._existing(upload.bucket)
            upload.done = self._store(bucket, given["name"], bytes(upload.content), given, upload.query)
            return of_json(upload.done.resource())
        return Response(RESUME_INCOMPLETE, b"", _received(len(upload.content)))

    def _batch(self, request: Request) -> Response:
        parts = list(_parts(request))
        if len(parts) > _BATCH_SIZE:
            raise HttpError(400, "batchSizeTooLarge", f"found {len(parts)} requests in a batch, expected at most 100")
        answers = []
        for id_, content in parts:
            head, _, body = content.replace(b"\r\n", b"\n").partition(b"\n\n")
            line, *lines = head.decode().strip().split("\n")
            method, target, *_ = line.split(" ")
            headers = dict(each.split(": ", 1) for each in lines if ": " in each)
            headers["Authorization"] = request.headers.get("authorization", "")
            inner = Request.of(method, request.host, re.sub(r"^https?://[^/]+", "", target), headers, body)
            try:
                answer = self(inner)
            except HttpError as error:
                answer = error.response()
            told = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
            told += f"Content-Length: {len(answer.body)}\r\n"
            status = f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"
            answers.append(
                f"--batch\r\nContent-Type: application/http\r\nContent-ID: <response-{id_}>\r\n\r\n"
                f"{status}\r\n{told}\r\n".encode()
                + answer.body
                + b"\r\n"
            )
        return Response(200, b"".join(answers) + b"--batch--\r\n", {"content-type": "multipart/mixed; boundary=batch"})


def _written(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _of_bucket(name: str) -> dict[str, str]:
    return {
        "kind": "storage#bucket",
        "id": name,
        "name": name,
        "location": "US-CENTRAL1",
        "locationType": "region",
        "storageClass": "STANDARD",
        "projectNumber": "1",
        "metageneration": "1",
    }


def _allowed(bucket: Bucket, account: str, permission: str) -> bool:
    reading = permission.rpartition(".")[2] in ("get", "list")
    accounts = bucket.readers if reading else bucket.writers
    return accounts is None or account in accounts


def _check_preconditions(held: Object | None, query: Mapping[str, str], kind: str) -> None:
    """Hold an object, or that there is none, against preconditions whose names begin with `kind`."""
    for what, value in (
        ("Generation", held.generation if held else 0),
        ("Metageneration", held.metageneration if held else 0),
    ):
        if int(query.get(f"{kind}{what}Match", value)) != value:
            raise HttpError(412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold.")
        if query.get(f"{kind}{what}NotMatch") == str(value):
            raise HttpError(304, "notModified", "Not modified")


def _multipart(request: Request) -> tuple[dict[str, Any], bytes]:
    """Return the metadata and the content of an upload in two parts."""
    (_, metadata), (_, content) = _parts(request)
    return Request("", "", "", {}, {}, metadata).json(), content


def _parts(request: Request) -> Iterator[tuple[str, bytes]]:
    """Yield the id and the content of each part of a body, byte for byte."""
    found = re.search(r'boundary="?([^";]+)', request.headers["content-type"])
    if not found:
        raise HttpError(400, "badRequest", "a multipart body without a boundary")
    for part in re.split(rb"(?:\r?\n|^)--" + re.escape(found[1].encode()), request.body)[1:-1]:
        head, _, content = (
            part.lstrip(b"\r\n").partition(b"\r\n\r\n")
            if b"\r\n\r\n" in part
            else part.lstrip(b"\r\n").partition(b"\n\n")
        )
        message = email.message_from_bytes(head + b"\n\n", policy=email.policy.HTTP)
        if message.get("Content-Transfer-Encoding", "") == "base64":
            content = base64.b64decode(content)
        yield (message.get("Content-ID") or "").strip("<>"), content


def _hashes(request: Request) -> dict[str, str]:
    """Return the checksums that the client sends in a header."""
    names = {"crc32c": "crc32c", "md5": "md5Hash"}
    pairs = (each.strip().partition("=") for each in request.headers.get("x-goog-hash", "").split(",") if each)
    return {names[name]: value for name, _, value in pairs if name in names}


def _received(size: int) -> dict[str, str]:
    return {"range": f"bytes=0-{size - 1}"} if size else {}


def _of_glob(glob: str) -> re.Pattern[str]:
    """Return what a matchGlob matches: `**` crosses slashes, `*` and `?` do not, `{a,b}` is either."""
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]", "{": "(?:", "}": ")", ",": "|"}
    pattern = "".join(
        words.get(each) or (each if each.startswith("[") else re.escape(unquote(each)))
        for each in re.findall(r"\*\*/|\*\*|\*|\?|\{|\}|,|\[[^]]+\]|[^*?{},[]+", glob)
    )
    return re.compile(pattern)
