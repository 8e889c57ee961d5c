"""Who we are to Google Cloud: found, or found missing, within a second."""

import logging
import os
import warnings
from dataclasses import dataclass
from typing import Any

import google.auth
from google.auth import _cloud_sdk, exceptions

from records import typed_json
from records.errors import RemaskError
from records.storage import metadata

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_TENSORFLOWS = ("authorized_user", "service_account")
HOW_TO_GET = (
    "run 'gcloud auth application-default login', or name the key file of a service account in "
    "GOOGLE_APPLICATION_CREDENTIALS"
)


@dataclass(frozen=True)
class _Credentials:
    """What is read here of a file of credentials."""

    type: str


class Missing(RemaskError):
    """There are no credentials."""


def find() -> Any:
    """Return credentials, of google-auth's.

    Raises:
        Missing: there are none, or they cannot be read.
    """
    return _default()[0]


def _default() -> tuple[Any, str | None]:
    """Return credentials and the project that goes with them."""
    given = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    # Left to itself, google-auth asks for a metadata server that is not there, for 18 s.
    if (
        not given
        and not os.path.isfile(_cloud_sdk.get_application_default_credentials_path())
        and not metadata.answers()
    ):
        raise Missing(f"no credentials for Google Cloud; {HOW_TO_GET}")
    # It would warn that there is no project to pay for requests: objects are paid for by the project of their bucket.
    logging.getLogger("google.auth").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            found: tuple[Any, str | None] = google.auth.default(scopes=_SCOPES)
    except (exceptions.DefaultCredentialsError, OSError) as error:
        where = f"GOOGLE_APPLICATION_CREDENTIALS={given}" if given else "gcloud's application default credentials"
        raise Missing(f"{where} cannot be used ({first_line(error)}); {HOW_TO_GET}") from error
    return found


def check_for_tensorflow() -> None:
    """Refuse credentials that google-auth can use, and TensorFlow's own client cannot.

    Raises:
        Missing: there are none, or they are of another kind than a login or the key of a service account.
    """
    find()
    path = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS") or _cloud_sdk.get_application_default_credentials_path()
    if not os.path.isfile(path):
        return  # on Google's own machines
    with open(path, "rb") as file:
        kind = typed_json.read(_Credentials, file.read(), name=path, advice=HOW_TO_GET, others=True).type
    if kind not in _TENSORFLOWS:
        raise Missing(
            f"{path}: found credentials of type {kind}, with which TensorFlow cannot read gs://, expected "
            f"{' or '.join(_TENSORFLOWS)}; {HOW_TO_GET}"
        )


def project() -> str:
    """Return the project that the environment names, or the credentials go with; "" where there is none."""
    return os.environ.get("GOOGLE_CLOUD_PROJECT") or _default()[1] or ""


def account(credentials: Any) -> str:
    """Return whose credentials they are; "" where they do not say."""
    return str(getattr(credentials, "service_account_email", "") or getattr(credentials, "account", "") or "")


def member(account: str) -> str:
    """Return what IAM calls an account.

    >>> member("a@p.iam.gserviceaccount.com"), member("a@example.com"), member("")
    ('serviceAccount:a@p.iam.gserviceaccount.com', 'user:a@example.com', 'user:ACCOUNT')
    """
    kind = "serviceAccount" if account.endswith(".gserviceaccount.com") else "user"
    return f"{kind}:{account or 'ACCOUNT'}"


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its kind."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
