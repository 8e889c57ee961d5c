"""Two jobs and one folder: the second is told of the first, and nothing is lost."""

import json
import os
import socket
import subprocess
import sys

import pytest

from pipelines import claim
from records import storage
from records.errors import RemaskError


@pytest.fixture(params=["disk", pytest.param("bucket", marks=pytest.mark.cloud)])
def folder(request, tmp_path):
    if request.param == "disk":
        return f"{tmp_path}/out/.work"
    request.getfixturevalue("cloud")
    return "gs://bucket/out/.work"


def held(folder):
    return json.loads(storage.read_bytes(f"{folder}/job.json"))


def write_claim(folder, **replaced):
    claim = {"job": "other", "host": socket.gethostname(), "user": "ann", "since": "2026-01-01T00:00:00+00:00"}
    storage.write_bytes(f"{folder}/job.json", json.dumps({**claim, **replaced}).encode())
    storage.write_bytes(f"{folder}/other/sources.json", b"[]")


def test_a_second_job_is_told_who_holds_the_folder_and_leaves_it_alone(folder):
    job = claim.take(folder, take_over=False, ends_with_us=True)
    before = held(folder)
    assert (before["job"], before["pid"]) == (job, os.getpid())
    with pytest.raises(RemaskError) as refused:
        claim.take(folder, take_over=False, ends_with_us=True)
    assert str(refused.value) == (
        f"{folder.removesuffix('/.work')}: another job writes there, begun by {before['user']} on {before['host']} at "
        f"{before['since']}; wait for it, choose another folder with OUT=, or, if that job is dead, take over with "
        f"ARGS=--overwrite"
    )
    assert held(folder) == before
    assert claim.is_ours(folder, job)


def test_to_take_over_empties_the_folder_and_the_first_job_can_see_it(folder):
    write_claim(folder)
    job = claim.take(folder, take_over=True, ends_with_us=True)
    assert not claim.is_ours(folder, "other")
    assert not storage.exists(f"{folder}/other/sources.json")
    claim.release(folder, "other")  # it may not give back what is no longer its own
    assert claim.is_ours(folder, job)
    claim.release(folder, job)
    assert not storage.exists(f"{folder}/job.json")


def test_a_job_that_died_with_its_process_on_this_machine_is_no_hindrance(folder):
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    write_claim(folder, pid=process.pid)
    assert claim.is_ours(folder, claim.take(folder, take_over=False, ends_with_us=True))


@pytest.mark.parametrize("replaced", [{}, {"host": "elsewhere", "pid": 1}], ids=["not-in-a-process", "elsewhere"])
def test_of_a_job_elsewhere_nobody_knows_whether_it_is_dead(folder, replaced):
    write_claim(folder, **replaced)
    with pytest.raises(RemaskError, match=r"begun by ann on \S+ at 2026-01-01T00:00:00\+00:00; wait for it"):
        claim.take(folder, take_over=False, ends_with_us=True)


def test_a_job_that_outlives_its_command_leaves_no_process_to_look_for(folder):
    claim.take(folder, take_over=False, ends_with_us=False)
    assert "pid" not in held(folder)


def test_what_a_job_has_left_that_gave_its_claim_back_is_removed(folder):
    job = claim.take(folder, take_over=False, ends_with_us=True)
    for left in (f"{job}/sources.json", f"{job}/dead_letters/1.jsonl", "blocks/1.block"):
        storage.write_bytes(f"{folder}/{left}", b"")
    claim.release(folder, job)
    next_job = claim.take(folder, take_over=False, ends_with_us=True)
    assert claim.is_ours(folder, next_job)
    for left in (f"{job}/sources.json", f"{job}/dead_letters/1.jsonl", "blocks/1.block"):
        assert not storage.exists(f"{folder}/{left}")


def test_a_claim_that_cannot_be_read_is_none(folder):
    storage.write_bytes(f"{folder}/job.json", b"{")
    assert claim.is_ours(folder, claim.take(folder, take_over=False, ends_with_us=True))


def test_a_claim_that_is_there_and_cannot_be_asked_for_is_not_taken_for_none(folder, monkeypatch):
    def unwell(path):
        raise RemaskError(f"{path}: not well")

    job = claim.take(folder, take_over=False, ends_with_us=True)
    with monkeypatch.context() as patch:
        patch.setattr(storage, "read_bytes", unwell)
        for ask in (
            lambda: claim.take(folder, take_over=False, ends_with_us=True),
            lambda: claim.check(folder, job),
        ):
            with pytest.raises(RemaskError, match=r"not well$"):
                ask()
    claim.check(folder, job)


def test_a_folder_that_cannot_be_emptied_is_given_back(folder, monkeypatch):
    def forbidden(path):
        raise RemaskError(f"{path}: may not be removed")

    remove = storage.remove
    storage.write_bytes(f"{folder}/other/sources.json", b"[]")
    monkeypatch.setattr(storage, "remove", lambda path: (remove if path.endswith(".json") else forbidden)(path))
    with pytest.raises(RemaskError, match=r"may not be removed$"):
        claim.take(folder, take_over=False, ends_with_us=True)
    assert not storage.exists(f"{folder}/job.json")


def test_of_two_jobs_that_find_the_folder_free_at_the_same_time_one_wins(folder, monkeypatch):
    """The other one writes its claim right after this one has looked."""
    look = claim._read

    def look_and_be_late(where):
        found = look(where)
        write_claim(folder)
        monkeypatch.setattr(claim, "_read", look)
        return found

    monkeypatch.setattr(claim, "_read", look_and_be_late)
    with pytest.raises(RemaskError, match="another job writes there, begun by ann "):
        claim.take(folder, take_over=False, ends_with_us=True)
    assert claim.is_ours(folder, "other")
    assert storage.exists(f"{folder}/other/sources.json")
