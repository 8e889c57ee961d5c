"""What this machine is told by Google Cloud, and that nobody is asked who cannot know."""

import pytest

from records.storage import metadata
from tests.cloud.metadata import FLAVOUR, running


@pytest.fixture(autouse=True)
def nowhere(monkeypatch, tmp_path):
    monkeypatch.delenv("NO_GCE_CHECK", raising=False)
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:1")
    monkeypatch.setattr(metadata, "_PRODUCT", tmp_path / "product_name")


def test_a_value(monkeypatch):
    with running({"instance/preempted": "FALSE\n"}) as server:
        monkeypatch.setenv("GCE_METADATA_HOST", server.address)
        assert metadata.answers()
        assert metadata.get("instance/preempted") == "FALSE"
        assert metadata.get("instance/nonsense") is None
    assert server.asked == ["/", "/computeMetadata/v1/instance/preempted", "/computeMetadata/v1/instance/nonsense"]


@pytest.mark.parametrize("headers", [{}, {"Metadata-Flavor": "Other"}])
def test_whoever_else_answers_in_its_place_is_not_believed(monkeypatch, headers):
    with running({"instance/preempted": "TRUE"}, headers) as server:
        monkeypatch.setenv("GCE_METADATA_HOST", server.address)
        assert not metadata.answers()
        assert metadata.get("instance/preempted") is None


def test_where_nobody_answers():
    assert not metadata.answers()
    assert metadata.get("instance/preempted") is None


def test_one_that_must_not_be_looked_for(monkeypatch):
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with running(headers=FLAVOUR) as server:
        monkeypatch.setenv("GCE_METADATA_HOST", server.address)
        assert not metadata.answers()
        assert not metadata.is_expected()
    assert server.asked == []


@pytest.mark.parametrize(
    ("product", "is_googles"),
    [(b"Google Compute Engine\n", True), (b"Google\n", True), (b"A Laptop\n", False), (b"Ger\xe4t \xff\n", False)],
)
def test_a_machine_says_itself_whose_it_is(monkeypatch, tmp_path, product, is_googles):
    monkeypatch.delenv("GCE_METADATA_HOST")
    monkeypatch.delenv("GCE_METADATA_IP", raising=False)
    assert not metadata.is_expected()
    (tmp_path / "product_name").write_bytes(product)
    assert metadata.is_expected() is is_googles


def test_a_machine_that_does_not_say_what_it_is(monkeypatch, tmp_path):
    monkeypatch.delenv("GCE_METADATA_HOST")
    monkeypatch.delenv("GCE_METADATA_IP", raising=False)
    (tmp_path / "product_name").mkdir()  # so that to read it is an error, whoever runs the tests
    assert not metadata.is_expected()


def test_an_answer_that_is_no_text(monkeypatch):
    with running({"instance/name": "caf\udce9"}) as server:
        monkeypatch.setenv("GCE_METADATA_HOST", server.address)
        assert metadata.get("instance/name") == "caf\ufffd"


def test_an_address_in_the_environment_is_taken_for_one():
    assert metadata.is_expected()
