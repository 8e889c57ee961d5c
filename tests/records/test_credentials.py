"""Who we are is found at once, and so is that we are nobody."""

import http.server
import json
import threading
from collections.abc import Iterator

import pytest

from records import credentials
from records.errors import RemaskError

NOBODY = (
    "no credentials for Google Cloud; run 'gcloud auth application-default login', or name the key file of a service "
    "account in GOOGLE_APPLICATION_CREDENTIALS"
)


class Metadata(http.server.ThreadingHTTPServer):
    """What might answer in place of Google's metadata server."""

    def __init__(self, headers: dict[str, str]) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.server.asked.append(self.path)
                self.send_response(200)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []


@pytest.fixture
def metadata(request, monkeypatch, nobody) -> Iterator[Metadata]:
    with Metadata(request.param) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{server.server_address[1]}")
        yield server
        server.shutdown()


@pytest.fixture
def nobody(monkeypatch, tmp_path) -> None:
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "NO_GCE_CHECK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", "")  # nobody's own gcloud
    for name in ("GCE_METADATA_HOST", "GCE_METADATA_IP"):
        monkeypatch.setenv(name, "127.0.0.1:1")


@pytest.mark.usefixtures("nobody")
def test_nobody():
    with pytest.raises(credentials.Missing) as caught:
        credentials.find()
    assert str(caught.value) == NOBODY


@pytest.mark.parametrize("metadata", [{}, {"Metadata-Flavor": "Other"}], indirect=True)
def test_whoever_else_answers_in_its_place_is_not_the_metadata_server_and_is_asked_once(metadata):
    with pytest.raises(RemaskError, match=NOBODY):
        credentials.find()
    assert metadata.asked == ["/"]


@pytest.mark.parametrize("metadata", [{"Metadata-Flavor": "Google"}], indirect=True)
def test_on_googles_own_machines(metadata):
    assert credentials.on_google_cloud()


@pytest.mark.usefixtures("nobody")
def test_a_metadata_server_that_must_not_be_looked_for(monkeypatch):
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("GCE_METADATA_HOST", "an impossible name")
    assert not credentials.on_google_cloud()


@pytest.mark.usefixtures("nobody")
def test_who_has_logged_in(tmp_path, recwarn, caplog):
    login = {"type": "authorized_user", "client_id": "1", "client_secret": "2", "refresh_token": "3"}
    (tmp_path / "application_default_credentials.json").write_text(json.dumps(login))
    found = credentials.find()
    assert found.refresh_token == "3"
    assert credentials.account(found) == ""
    assert not recwarn.list  # a person at a terminal need not read of quota projects
    assert not caplog.records
