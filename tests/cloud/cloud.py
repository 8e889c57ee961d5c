"""The local cloud: everything on loopback, started and stopped together."""

import base64
import contextlib
import itertools
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import parse_qs

import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.cloud import front
from tests.cloud.front import Entry, Fault, Front
from tests.cloud.gcs import Storage
from tests.cloud.http import HttpError, Request, Response, Service, of_json

PROJECT = "local-project"
ACCOUNT = f"trainer@{PROJECT}.iam.gserviceaccount.com"
_TOKEN_URL = "https://oauth2.googleapis.com/token"
_NOWHERE = "127.0.0.1:1"  # a port at which nobody listens


class LocalCloud:
    """Google Cloud on this machine, while the block runs.

    Attributes:
        environment: what a process must be given to find it.
        services: by host; any other host is refused.
        tunnels: by host, local ports that speak TLS themselves, with `certificate(host)`.
        storage: Google Cloud Storage.
        log: all requests, in order.
        refused: hosts that somebody asked for in vain.
    """

    def __init__(self) -> None:
        self._folder, self._stack = tempfile.TemporaryDirectory(), contextlib.ExitStack()
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._serial, self._expired = itertools.count(1), 0
        self.storage = Storage(self.account_of)
        self.services: dict[str, Service] = {}
        self.tunnels: dict[str, int] = {}
        self._front = Front(self.services, self.tunnels, self.account_of, self._expire)
        self.log, self.refused = self._front.log, self._front.refused
        self.environment: dict[str, str] = {}
        self.reset()

    def __enter__(self) -> "LocalCloud":
        """Open its door."""
        self._stack.enter_context(self._folder)
        port = self._stack.enter_context(front.opened(self._front))
        authority = Path(self._folder.name, "authority.pem")
        self._front.authority.cert_pem.write_to_path(authority)
        proxy = f"http://127.0.0.1:{port}"
        self.environment |= {
            **dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "grpc_proxy"), proxy),
            **dict.fromkeys(("NO_PROXY", "no_proxy", "no_grpc_proxy"), "localhost,127.0.0.1,::1"),
            # libcurl, which TensorFlow uses; requests; gRPC; and Python's own ssl
            **dict.fromkeys(
                ("CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "SSL_CERT_FILE"),
                str(authority),
            ),
            "GOOGLE_APPLICATION_CREDENTIALS": self.credentials(ACCOUNT),
            "GOOGLE_CLOUD_PROJECT": PROJECT,
            "GCE_METADATA_HOST": _NOWHERE,
            "GCE_METADATA_IP": _NOWHERE,
            "NO_GCE_CHECK": "true",
            "CLOUDSDK_CONFIG": self._folder.name,  # nobody's own gcloud
            "GCS_RETRY_CONFIG_MAX_RETRIES": "3",  # TensorFlow's: it would try for minutes
        }
        return self

    def __exit__(self, *exception: object) -> None:
        """Close its door."""
        self._stack.close()

    def reset(self) -> None:
        """Begin anew: no buckets, no faults, an empty log, and the services there are from the start."""
        self.storage.clear()
        self._expired = 0  # TensorFlow keeps its token as long as its process lives
        self.services.clear()
        self.services |= {
            "storage.googleapis.com": self.storage,
            "www.googleapis.com": self._www,
            "oauth2.googleapis.com": self._token,
            # google-auth asks it in the background in which regions an account may be used: in all
            "iamcredentials.googleapis.com": lambda request: of_json({"locations": [], "encodedLocations": "0x0"}),
        }
        self.tunnels.clear()
        self.log.clear()
        self.refused.clear()
        self._front.faults.clear()
        self._front.released.set()
        self._front.released.clear()

    def fail(
        self,
        matching: Callable[[Request], bool],
        kind: int | str,
        *,
        nth: int = 1,
        times: int = 1,
        message: str = "made to fail",
        reason: str = "madeToFail",
    ) -> Fault:
        """Spoil the answer to the n-th request that matches, and to the `times - 1` that match next.

        Args:
            matching: which requests count.
            kind: a status; or "reset" (the connection is), "truncate" (half of the body, then the end), "stall" (half
                of the body, then nothing), "expire" (all tokens issued so far are no longer good).
            nth: counted from 1.
            times: how often.
            message: of a status.
            reason: of a status, as Google's errors name it.
        """
        fault = Fault(matching, kind, nth, times, message=message, reason=reason)
        self._front.faults.append(fault)
        return fault

    def certificate(self, host: str) -> trustme.LeafCert:
        """Return a certificate by which clients trust a host."""
        return self._front.certificate(host)

    def credentials(self, account: str) -> str:
        """Return a file with the key of a service account."""
        path = Path(self._folder.name, f"{account}.json")
        key = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        description = {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": "1",
            "private_key": key.decode(),
            "client_email": account,
            "client_id": "1",
            "auth_uri": "https://accounts.google.com/o/oauth2/auth",
            "token_uri": _TOKEN_URL,
        }
        path.write_text(json.dumps(description), encoding="utf-8")
        return str(path)

    def account_of(self, request: Request) -> str:
        """Return who asks.

        Raises:
            HttpError: 401, nobody who could be known.
        """
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        name, _, serial = token.rpartition(":")
        if name and serial.isdigit() and int(serial) > self._expired:
            return name
        if token.count(".") == 2:  # a service account's own
            return str(_claims(token)["iss"])
        raise HttpError(401, "authError", "Invalid Credentials")

    def applied(self, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
        """Return an environment with what a process needs to find this cloud."""
        return {**environment, **self.environment}

    def _expire(self) -> None:
        self._expired = next(self._serial)

    def _www(self, request: Request) -> Response:
        return self._token(request) if "oauth2" in request.parts else self.storage(request)

    def _token(self, request: Request) -> Response:
        """Give a token to whoever shows an assertion: that it is signed, clients cannot see to be checked."""
        assertion = parse_qs(request.body.decode())["assertion"][-1]
        token = f"{_claims(assertion)['iss']}:{next(self._serial)}"
        return of_json({"access_token": token, "token_type": "Bearer", "expires_in": 3600})


def _claims(token: str) -> dict[str, str]:
    """Return what a JSON web token says."""
    claims: dict[str, str] = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    return claims


__all__ = ["ACCOUNT", "PROJECT", "Entry", "LocalCloud"]
