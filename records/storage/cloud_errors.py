"""What errors of Google Cloud Storage mean to the user, and which command mends them."""

import html
import http.client
import json
import os
import re

import requests
import urllib3
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

from records.errors import Changed, RemaskError
from records.paths import CLOUD, parts
from records.storage import credentials

_ROLES = {
    "storage.objects.get": "roles/storage.objectViewer",
    "storage.objects.list": "roles/storage.objectViewer",
    "storage.buckets.get": "roles/storage.legacyBucketReader",
}
_WRITER = "roles/storage.objectUser"
_NO_BUCKET = "bucket does not exist"
_NOT_REACHED = "Google Cloud Storage cannot be reached"
_BREAKS = "the connection to Google Cloud Storage breaks"
_STALLS = "nothing arrives from Google Cloud Storage"
_CURL = {18: _BREAKS, 52: _BREAKS, 55: _BREAKS, 56: _BREAKS, 28: _STALLS, 42: _STALLS}  # 42: TensorFlow has had enough
# OSError: what the system and TLS have to say of a connection; what they say of the disk is explained where it is used.
_CONNECTION = (OSError, requests.exceptions.RequestException, urllib3.exceptions.HTTPError, auth.TransportError)
_BROKEN = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, http.client.HTTPException)


def explained(path: str, error: BaseException, *, account: str = "") -> RemaskError | None:
    """Return what an error in reading or writing a path means; None where it is not about Google Cloud.

    Args:
        path: that was read or written.
        error: what a library raised.
        account: whose credentials were used, where that is known.
    """
    if isinstance(error, api.RetryError):
        last = error.cause and explained(path, error.cause, account=account)
        tried = re.search(r"Timeout of (\d+)", str(error))
        return RemaskError(f"{last or path}; tried for {tried[1] if tried else 'some'} s")
    if isinstance(error, auth.RefreshError):
        return _refused(path, str(error.args[0] if error.args else error), account)
    if isinstance(error, DataCorruption):
        return RemaskError(f"{path}: its CRC-32C has changed on the way; run the same command again")
    if status := _status(error):
        return answered(path, status, _said(error), account=account)
    if isinstance(error, _CONNECTION):
        return _unreachable(path, error)
    return None


def answered(path: str, status: int, said: str, *, account: str = "") -> RemaskError:
    """Return what an answer of the service means.

    Args:
        path: that was read or written.
        status: of the answer.
        said: the service's own words.
        account: whose credentials were used, where that is known.

    >>> print(answered("gs://bucket/a", 503, "Backend Error"))
    gs://bucket/a: Google Cloud Storage is not well (503: Backend Error); run the same command again later
    """
    bucket = parts(path)[0]
    if status == 401:
        return _refused(path, said, account)
    if status == 404 and _NO_BUCKET in said:
        return RemaskError(
            f"{path}: there is no bucket {bucket}; mend the name, or make one with 'gcloud storage buckets create "
            f"{CLOUD}{bucket} --location=REGION'"
        )
    if status == 404:
        return RemaskError(f"{path}: there is no such object")
    if status == 403 and "billing account" in said:
        return RemaskError(
            f"{path}: the project that owns bucket {bucket} has no billing account that is open; link one with 'gcloud "
            f"billing projects link PROJECT --billing-account=ACCOUNT'"
        )
    if status == 403:
        return _forbidden(path, bucket, said, account)
    if status == 412:
        return Changed(f"{path}: somebody else has written it meanwhile; run the same command again")
    if status == 429:
        return RemaskError(
            f"{path}: bucket {bucket} takes no more requests at the moment ({said}); run the same command again later"
        )
    if status >= 500:
        return RemaskError(
            f"{path}: Google Cloud Storage is not well ({status}: {said}); run the same command again later"
        )
    return RemaskError(f"{path}: Google Cloud Storage refuses it ({status}: {said})")


def in_message(message: str) -> RemaskError | None:
    """Return what TensorFlow says of Google Cloud Storage, in words for the user; None where it says nothing of it.

    Its own client puts the status and the beginning of the answer, or curl's error, into the text of an error.

    >>> print(in_message("HTTP response code 404 with body '<Message>No such key</Message>' when reading gs://bucket/a"))
    gs://bucket/a: there is no such object
    """
    path = re.search(r"gs://[^\s'\"]+", message)
    if not path:
        return None
    tried = re.search(r"All (\d+) retry attempts failed", message)
    after = f"; tried {int(tried[1]) + 1} times" if tried else ""
    if answer := re.search(r"HTTP response code (\d+)(?: with body '(.*))?", message, re.DOTALL):
        explained = answered(path[0], int(answer[1]), _quoted(answer[2] or "") or "no reason given")
        return type(explained)(f"{explained}{after}")
    if failure := re.search(r"libcurl code (\d+) meaning '([^']*)'", message):
        return RemaskError(f"{_connection(path[0], _CURL.get(int(failure[1]), _NOT_REACHED), failure[2])}{after}")
    return None


def is_precondition(error: BaseException) -> bool:
    """Say whether an object was not of the generation it was to be."""
    return _status(error) == 412


def is_bucket_missing(error: BaseException) -> bool:
    """Say whether it is the bucket that is not there."""
    return _status(error) == 404 and _NO_BUCKET in _said(error)


def grant(bucket: str, account: str, role: str) -> str:
    """Return the command that gives an account a role in a bucket.

    >>> grant("bucket", "a@b.iam.gserviceaccount.com", "roles/storage.objectViewer")
    'gcloud storage buckets add-iam-policy-binding gs://bucket --member=serviceAccount:a@b.iam.gserviceaccount.com \
--role=roles/storage.objectViewer'
    """
    member = credentials.member(account)
    return f"gcloud storage buckets add-iam-policy-binding {CLOUD}{bucket} --member={member} --role={role}"


def role_for(permission: str) -> str:
    """Return the least role that has a permission."""
    return _ROLES.get(permission, _WRITER)


def _refused(path: str, said: str, account: str) -> RemaskError:
    whose = f" of {account}" if account else ""
    return RemaskError(f"{path}: the credentials{whose} are not accepted ({said}); {credentials.HOW_TO_GET}")


def _forbidden(path: str, bucket: str, said: str, account: str) -> RemaskError:
    found = re.search(r"([^\s\"]+@[^\s\"]+) does not have (storage\.\w+\.\w+) access", said)
    if not found:
        return RemaskError(f"{path}: access of {account or 'this account'} to bucket {bucket} is denied ({said})")
    account, permission = found.groups()
    return RemaskError(
        f"{path}: {account} lacks {permission} in bucket {bucket}; grant it with "
        f"'{grant(bucket, account, role_for(permission))}'"
    )


def _unreachable(path: str, error: BaseException) -> RemaskError:
    """Say what is wrong with the connection, by the error at the root of what was raised."""
    while root := error.__cause__ or error.__context__:
        error = root
    fault = _STALLS if isinstance(error, TimeoutError) else _BREAKS if isinstance(error, _BROKEN) else _NOT_REACHED
    return _connection(path, fault, type(error).__name__)


def _connection(path: str, fault: str, detail: str) -> RemaskError:
    proxy = next((name for name in ("HTTPS_PROXY", "https_proxy") if os.environ.get(name)), "")
    return RemaskError(
        f"{path}: {fault} ({detail}); look at the network" + (f", and at the proxy that {proxy} names" if proxy else "")
    )


def _status(error: BaseException) -> int:
    """Return the status of the answer, 0 where there was none."""
    if isinstance(error, api.GoogleAPICallError):
        return int(error.code or 0)
    if isinstance(error, InvalidResponse):
        return int(error.response.status_code)
    return 0


def _said(error: BaseException) -> str:
    """Return the service's own words."""
    text = str(error)
    if isinstance(error, InvalidResponse):
        text = error.response.text
    return _quoted(text) or re.sub(
        r"^\d{3} (?:GET|POST|PUT|DELETE|HEAD|PATCH) \S+: ", "", credentials.first_line(error)
    )


def _quoted(answer: str) -> str:
    r"""Return the service's own words in an answer, which is JSON or, where TensorFlow asks, XML; maybe cut off.

    >>> _quoted('{"error": {"message": "a \\"b\\""}}'), _quoted("<Message>Denied.</Message><Details>a &amp; b")
    ('a "b"', 'a & b')
    """
    if found := re.search(r'"message": "((?:[^"\\]|\\.)*)"', answer):
        return str(json.loads(f'"{found[1]}"'))
    found = re.search("<Details>([^<]+)", answer) or re.search("<Message>([^<]+)", answer)
    return html.unescape(found[1]) if found else ""
