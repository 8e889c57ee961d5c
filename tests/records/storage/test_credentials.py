"""Who we are is found at once, and so is that we are nobody."""

import json
from collections.abc import Iterator

import pytest

from records.errors import RemaskError
from records.storage import credentials
from tests.cloud.metadata import Metadata, running
from tests.said import must_name

NOBODY = (
    "no credentials for Google Cloud",
    "'gcloud auth application-default login'",
    "key file of a service account",
    "GOOGLE_APPLICATION_CREDENTIALS",
)


@pytest.fixture
def metadata_server(request, monkeypatch, nobody) -> Iterator[Metadata]:
    with running(headers=request.param) as server:
        monkeypatch.setenv("GCE_METADATA_HOST", server.address)
        yield server


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
    must_name(str(caught.value), *NOBODY)


@pytest.mark.parametrize("metadata_server", [{}, {"Metadata-Flavor": "Other"}], indirect=True)
def test_whoever_else_answers_in_its_place_is_not_the_metadata_server_and_is_asked_once(metadata_server):
    with pytest.raises(RemaskError) as caught:
        credentials.find()
    must_name(str(caught.value), *NOBODY)
    assert metadata_server.asked == ["/"]


@pytest.mark.usefixtures("nobody")
def test_who_has_logged_in(tmp_path, recwarn, caplog):
    login = {"type": "authorized_user", "client_id": "1", "client_secret": "2", "refresh_token": "3"}
    (tmp_path / "application_default_credentials.json").write_text(json.dumps(login))
    found = credentials.find()
    assert found.refresh_token == "3"
    assert credentials.account(found) == ""
    assert not recwarn.list  # a person at a terminal need not read of quota projects
    assert not caplog.records


@pytest.mark.usefixtures("nobody")
def test_a_folder_is_no_key_file(monkeypatch, tmp_path):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path))
    with pytest.raises(credentials.Missing, match=r"cannot be used \(.*Is a directory"):
        credentials.find()
