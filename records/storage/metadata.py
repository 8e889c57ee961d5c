"""The metadata server, of which each of Google Cloud's machines has one to itself."""

import http.client
import os
from pathlib import Path

_ADDRESS = "169.254.169.254"
_SECONDS = 1.0  # in which it answers, where there is one: it is on the same machine
_PRODUCT = Path("/sys/class/dmi/id/product_name")
_FLAVOUR = {"Metadata-Flavor": "Google"}


def get(key: str) -> str | None:
    """Return what it says under a key, such as `instance/preempted`; None where it says nothing, or is not there."""
    return _asked(f"/computeMetadata/v1/{key}")


def answers() -> bool:
    """Say whether there is one."""
    return not _is_out_of_the_question() and _asked("/") is not None


def is_expected() -> bool:
    """Say whether there should be one, by what this machine says of itself; nobody else is asked."""
    if _is_out_of_the_question():
        return False
    return bool(_given()) or _product().startswith(b"Google")


def _product() -> bytes:
    """Return what the maker of this machine calls it, in whatever encoding; nothing where nobody says."""
    try:
        return _PRODUCT.read_bytes()
    except OSError:
        return b""


def _is_out_of_the_question() -> bool:
    return os.environ.get("NO_GCE_CHECK") == "true"


def _given() -> str | None:
    """Return the address that the environment names, by the names that google-auth and TensorFlow know."""
    return os.environ.get("GCE_METADATA_HOST") or os.environ.get("GCE_METADATA_IP")


def _asked(path: str) -> str | None:
    connection = http.client.HTTPConnection(_given() or _ADDRESS, timeout=_SECONDS)
    try:
        connection.request("GET", path, headers=_FLAVOUR)
        answer = connection.getresponse()
        if answer.status != 200 or answer.getheader("Metadata-Flavor") != "Google":
            return None
        return answer.read().decode(errors="replace").strip()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
