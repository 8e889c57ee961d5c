import socket
import ssl

import pytest

from records.errors import RemaskError
from records.storage import cloud_errors
from tests.said import must_name

NODES = "{{function_node __wrapped__IteratorGetNext}} Error in user-defined function passed to MapDataset:3: "
SHARD = "gs://bucket/records/train-00003-of-00008.tfrecord"
READING = f"\n\t when reading {SHARD}\n\t [[{{{{node ReadFile}}}}]] [Op:IteratorGetNext] name: "
DENIED = (
    "trainer@project.iam.gserviceaccount.com does not have storage.objects.get access to the Google Cloud Storage "
    "object. Permission 'storage.objects.get' denied on resource (or it may not exist)."
)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)


def said(what: str) -> str:
    explained = cloud_errors.in_message(f"{NODES}{what}{READING}")
    assert isinstance(explained, RemaskError)
    return str(explained)


@pytest.mark.parametrize(
    "body",
    [
        f'{{"error": {{"code": 403, "message": "{DENIED}", "errors": [',  # TensorFlow cuts it off
        f"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access denied.</Message><Details>{DENIED}</De",
    ],
    ids=["json", "xml"],
)
def test_what_may_not_be_read(body):
    must_name(
        said(f"Error executing an HTTP request: HTTP response code 403 with body '{body}'"),
        f"{SHARD}:",
        "trainer@project.iam.gserviceaccount.com",
        "storage.objects.get",
        "bucket bucket",
        "'gcloud storage buckets add-iam-policy-binding gs://bucket "
        "--member=serviceAccount:trainer@project.iam.gserviceaccount.com --role=roles/storage.objectViewer'",
    )


def test_credentials_that_are_not_accepted_any_more():
    body = "<Error><Code>AuthenticationRequired</Code><Message>Authentication required.</Message></Error>"
    must_name(
        said(f"Error executing an HTTP request: HTTP response code 401 with body '{body}'"),
        f"{SHARD}:",
        "credentials",
        "(Authentication required.)",
        "'gcloud auth application-default login'",
        "key file of a service account in GOOGLE_APPLICATION_CREDENTIALS",
    )


def test_a_bucket_that_is_not_there():
    body = "<Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist.</Message></Error>"
    must_name(
        said(f"HTTP response code 404 with body '{body}'"),
        f"{SHARD}:",
        "no bucket bucket",
        "'gcloud storage buckets create gs://bucket --location=REGION'",
    )


def test_a_service_that_is_not_well():
    must_name(
        said("All 8 retry attempts failed. The last failure: HTTP response code 503"),
        f"{SHARD}:",
        "Google Cloud Storage",
        "503",
        "run the same command again",
        "tried 9 times",
    )


@pytest.mark.parametrize(
    ("code", "meaning", "fault"),
    [
        (7, "Could not connect to server", "Google Cloud Storage cannot be reached"),
        (18, "Transferred a partial file", "the connection to Google Cloud Storage breaks"),
        (42, "Operation was aborted by an application callback", "nothing arrives from Google Cloud Storage"),
        (56, "Failure when receiving data from the peer", "the connection to Google Cloud Storage breaks"),
    ],
)
def test_a_connection(code, meaning, fault):
    failure = f"libcurl code {code} meaning '{meaning}', error details: Recv failure"
    must_name(
        said(f"All 3 retry attempts failed. The last failure: Error executing an HTTP request: {failure}"),
        f"{SHARD}:",
        f"{fault} ({meaning})",
        "look at the network",
        "tried 4 times",
    )


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (TimeoutError("The read operation timed out"), "nothing arrives from Google Cloud Storage (TimeoutError)"),
        (ssl.SSLEOFError(8, "EOF occurred"), "Google Cloud Storage cannot be reached (SSLEOFError)"),
        (socket.gaierror(-3, "Temporary failure"), "Google Cloud Storage cannot be reached (gaierror)"),
        (OSError(113, "No route to host"), "Google Cloud Storage cannot be reached (OSError)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_the_system_says_of_a_connection_is_explained(error, fault):
    must_name(str(cloud_errors.explained("gs://bucket/a", error)), "gs://bucket/a:", fault, "look at the network")


@pytest.mark.parametrize("message", ["", "No such file: /out/train", f"Incompatible shapes{READING}"])
def test_what_is_not_about_the_service(message):
    assert cloud_errors.in_message(message) is None
