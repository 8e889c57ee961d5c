"""What errors of Google Cloud Storage mean to the user, and which command mends them."""

import re

import requests
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

from records import credentials
from records.errors import Changed, RemaskError
from records.paths import CLOUD, parts

_ROLES = {
    "storage.objects.get": "roles/storage.objectViewer",
    "storage.objects.list": "roles/storage.objectViewer",
    "storage.buckets.get": "roles/storage.legacyBucketReader",
}
_WRITER = "roles/storage.objectUser"


def explained(path: str, error: BaseException, *, patience: float) -> RemaskError | None:
    """Return what an error in reading or writing a path means; None where it is not about Google Cloud.

    Args:
        path: that was read or written.
        error: what a library raised.
        patience: seconds for which it tried.
    """
    if isinstance(error, api.RetryError):
        last = error.cause
        explained_last = explained(path, last, patience=patience) if last else None
        return RemaskError(f"{explained_last or path}; tried for {patience:.0f} s")
    bucket, status, said = parts(path)[0], _status(error), _said(error)
    if isinstance(error, auth.RefreshError) or status == 401:
        return RemaskError(f"{path}: the credentials are no longer good ({said}); {credentials.HOW_TO_GET}")
    if status == 404 and "bucket does not exist" in said:
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
        return _forbidden(path, bucket, said)
    if status == 429:
        return RemaskError(
            f"{path}: bucket {bucket} takes no more requests at the moment ({said}); run the same command again later"
        )
    if status >= 500:
        return RemaskError(
            f"{path}: Google Cloud Storage is not well ({status}: {said}); run the same command again later"
        )
    if status == 412:
        return Changed(f"{path}: somebody else has written it meanwhile; run the same command again")
    if isinstance(error, DataCorruption):
        return RemaskError(f"{path}: its CRC-32C has changed on the way; run the same command again")
    if status:
        return RemaskError(f"{path}: Google Cloud Storage refuses it ({status}: {said})")
    if isinstance(error, requests.exceptions.RequestException | ConnectionError | auth.TransportError):
        return RemaskError(
            f"{path}: Google Cloud Storage cannot be reached ({_kind(error)}); look at the network, and at the proxy "
            f"where HTTPS_PROXY names one"
        )
    return None


def is_precondition(error: BaseException) -> bool:
    """Say whether an object was not of the generation it was to be."""
    return _status(error) == 412


def grant(bucket: str, account: str, role: str) -> str:
    """Return the command that gives an account a role in a bucket.

    >>> grant("bucket", "a@b.iam.gserviceaccount.com", "roles/storage.objectViewer")
    'gcloud storage buckets add-iam-policy-binding gs://bucket --member=serviceAccount:a@b.iam.gserviceaccount.com \
--role=roles/storage.objectViewer'
    """
    kind = "serviceAccount" if account.endswith(".gserviceaccount.com") else "user"
    return (
        f"gcloud storage buckets add-iam-policy-binding {CLOUD}{bucket} --member={kind}:{account or 'ACCOUNT'} "
        f"--role={role}"
    )


def role_for(permission: str) -> str:
    """Return the least role that has a permission."""
    return _ROLES.get(permission, _WRITER)


def _forbidden(path: str, bucket: str, said: str) -> RemaskError:
    found = re.search(r"([^\s\"]+@[^\s\"]+) does not have (storage\.\w+\.\w+) access", said)
    if not found:
        return RemaskError(f"{path}: access to bucket {bucket} is denied ({said})")
    account, permission = found.groups()
    return RemaskError(
        f"{path}: {account} lacks {permission} in bucket {bucket}; grant it with "
        f"'{grant(bucket, account, role_for(permission))}'"
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
    found = re.search(r'"message": "((?:[^"\\]|\\.)*)"', text)
    if found:
        return found[1]
    return re.sub(r"^\d{3} (?:GET|POST|PUT|DELETE|HEAD|PATCH) \S+: ", "", credentials.first_line(error))


def _kind(error: BaseException) -> str:
    """Return the kind of an error, of the one at its root where it was wrapped."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return type(error).__name__
