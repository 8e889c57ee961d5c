"""A notice of this machine's end stops a run as SIGTERM does."""

import signal

import pytest

from records.storage import metadata
from tests import processes
from tests.cloud.metadata import running
from trainer.run import notices

QUIET = {"instance/preempted": "FALSE", "instance/maintenance-event": "NONE"}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv("NO_GCE_CHECK", raising=False)
    monkeypatch.setattr(notices, "SECONDS", 0.01)
    with running(QUIET) as server:
        monkeypatch.setenv("GCE_METADATA_HOST", server.address)
        yield server


@pytest.mark.parametrize(
    ("key", "value"),
    [("instance/preempted", "TRUE"), ("instance/maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE")],
)
def test_a_notice_is_remembered_and_announced_once(server, key, value):
    said = []
    with notices.watched(said.append) as noticed:
        processes.wait_for(lambda: len(server.asked) > 4)
        assert noticed() == 0
        server.values[key] = value
        processes.wait_for(noticed)
        assert noticed() == signal.SIGTERM
    assert said == [
        f"Google Cloud gives notice ({key} is {value}): finishing the steps that are under way, then saving"
    ]


def test_a_machine_that_migrates_lives_on(server):
    server.values["instance/maintenance-event"] = "MIGRATE_ON_HOST_MAINTENANCE"
    assert notices.given() == ""


def test_a_server_that_is_gone_for_a_while_is_no_notice(server, monkeypatch):
    given, asked = notices.given, []

    def counted():
        asked.append(given())
        return asked[-1]

    monkeypatch.setattr(notices, "given", counted)
    with notices.watched(print) as noticed:
        processes.wait_for(lambda: server.asked)
        monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:1")
        for value in ("FALSE", "TRUE"):  # at the second change a question from before the first has had its answer
            server.values["instance/preempted"] = value
            before = len(asked)
            processes.wait_for(lambda before=before: len(asked) > before + 1)
        assert noticed() == 0
        monkeypatch.setenv("GCE_METADATA_HOST", server.address)
        processes.wait_for(noticed)


def test_elsewhere_nobody_is_asked(server, monkeypatch):
    monkeypatch.setattr(metadata, "is_expected", lambda: False)
    server.values["instance/preempted"] = "TRUE"
    with notices.watched(print) as noticed:
        assert noticed() == 0
    assert server.asked == []
