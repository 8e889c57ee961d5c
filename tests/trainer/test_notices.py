"""A notice of this machine's end stops a run as SIGTERM does."""

import signal
import time

import pytest

from records import metadata
from tests.cloud.metadata import running
from trainer import notices

QUIET = {"instance/preempted": "FALSE", "instance/maintenance-event": "NONE"}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv("NO_GCE_CHECK", raising=False)
    monkeypatch.setattr(notices, "SECONDS", 0.01)
    with running(QUIET) as server:
        monkeypatch.setenv("GCE_METADATA_HOST", server.address)
        yield server


def wait_until(true):
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("key", "value"),
    [("instance/preempted", "TRUE"), ("instance/maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE")],
)
def test_a_notice_is_remembered_and_announced_once(server, key, value):
    said = []
    with notices.watched(said.append) as noticed:
        wait_until(lambda: len(server.asked) > 4)
        assert noticed() == 0
        server.values[key] = value
        wait_until(noticed)
        assert noticed() == signal.SIGTERM
    assert said == [
        f"Google Cloud gives notice ({key} is {value}): finishing the steps that are under way, then saving"
    ]


def test_a_machine_that_migrates_lives_on(server):
    server.values["instance/maintenance-event"] = "MIGRATE_ON_HOST_MAINTENANCE"
    assert notices.given() == ""


def test_a_server_that_is_gone_for_a_while_is_no_notice(server, monkeypatch):
    with notices.watched(print) as noticed:
        wait_until(lambda: server.asked)
        monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:1")
        time.sleep(0.05)
        server.values["instance/preempted"] = "TRUE"
        assert noticed() == 0
        monkeypatch.setenv("GCE_METADATA_HOST", server.address)
        wait_until(noticed)


def test_elsewhere_nobody_is_asked(server, monkeypatch):
    monkeypatch.setattr(metadata, "is_expected", lambda: False)
    server.values["instance/preempted"] = "TRUE"
    with notices.watched(print) as noticed:
        assert noticed() == 0
    assert server.asked == []
