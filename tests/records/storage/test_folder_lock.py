"""One at a time: whoever comes second is told of the first, and a holder that has ended is no hindrance."""

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import re
import select
import signal
import stat
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from records import storage
from records.errors import RemaskError
from records.storage import folder_lock, gcs, lease
from records.storage.holder import Holder
from tests import processes
from tests.said import must_name, one_line

RUN = {"what": "run", "instead": "choose another folder with RUN="}
TAKE_OVER = ("if that run has ended without a data set", "take over", "ARGS=--overwrite")
ELSEWHERE = {"host": "elsewhere", "boot": "another", "user": "ann", "since": "2026-01-01T00:00:00+00:00"}

UNSUPPORTED = """
import errno, fcntl
def unsupported(file, operation):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = unsupported
"""
TAKES = """
import subprocess, sys
from records.storage import folder_lock
from records.errors import RemaskError
print("ready", flush=True)
sys.stdin.readline()
try:
    lock = folder_lock.take(sys.argv[1], what="run", instead="choose another folder with RUN=")
    if sys.argv[2:]:
        child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL)
        print(child.pid, end=" ")
    print("holds", flush=True)
except RemaskError as error:
    print(error, flush=True)
sys.stdin.readline()
lock.release()
"""


@pytest.fixture(params=["kernel", "disk", pytest.param("bucket", marks=pytest.mark.cloud)])
def home(request, monkeypatch) -> str:
    """Say what keeps the lock: the kernel; or a lease, on a disk for which the kernel locks nothing or in a bucket."""
    if request.param == "bucket":
        request.getfixturevalue("cloud")
    if request.param == "disk":
        monkeypatch.setattr(fcntl, "flock", unsupported)
    return request.param


@pytest.fixture
def folder(home, tmp_path) -> str:
    return "gs://bucket/out" if home == "bucket" else f"{tmp_path}/out"


@pytest.fixture
def grown_old(home, folder, request):
    """Return a function that makes the lock older by some seconds, as the clock of where it lies has it."""

    def grown_old(seconds):
        if home == "bucket":
            request.getfixturevalue("cloud").storage.ahead += timedelta(seconds=seconds)
        else:
            written = os.stat(f"{folder}/.lock").st_mtime - seconds
            os.utime(f"{folder}/.lock", (written, written))

    return grown_old


@pytest.fixture
def clock(monkeypatch):
    """Return the holder's own clock, which a test may set."""
    now = [0.0]
    monkeypatch.setattr(lease, "_now", lambda: now[0])
    return now


@pytest.fixture
def process(home, folder):
    """Return a function that starts a process which waits for a line, takes the lock, and waits for another."""
    stack = contextlib.ExitStack()

    def start(*arguments):
        program = (UNSUPPORTED if home == "disk" else "") + TAKES
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        command = [sys.executable, "-c", program, folder, *arguments]
        started = stack.enter_context(processes.started(command, text=True, **pipes))
        assert said_by(started) == "ready"
        return started

    with stack:
        yield start


def unsupported(file, operation):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def said_by(process) -> str:
    """Return the next line of a process, which has not for ever to say it."""
    assert select.select([process.stdout], [], [], processes.LIMIT)[0], "says nothing"
    return process.stdout.readline().strip()


def go_on(process) -> None:
    process.stdin.write("\n")
    process.stdin.flush()


def take(folder, **options):
    return folder_lock.take(folder, **RUN, **options)


def refusal(call, *arguments, **options) -> str:
    with pytest.raises(RemaskError) as caught:
        call(*arguments, **options)
    return str(caught.value)


def leave_lock(folder, **replaced) -> Holder:
    """Leave a lock as a process does that has ended without giving it back."""
    left = dataclasses.replace(Holder.here("run"), **replaced)
    storage.write_bytes(f"{folder}/.lock", left.to_json())
    return left


def content(folder):
    return storage.read_bytes(f"{folder}/.lock")


def seconds_in(said) -> int:
    """Return after how many seconds a lock is said to end by itself; a clock that shows whole ones may be behind."""
    return int(re.search(r"ends by itself in (\d+) s", said)[1])


def ended() -> int:
    """Return the pid of a process that was."""
    with processes.started([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def test_the_second_is_told_who_is_there_and_changes_nothing(folder, home):
    with folder_lock.held(folder, **RUN) as lock:
        before = content(folder)
        holder = json.loads(before)
        assert (holder["id"], holder["pid"], holder["what"]) == (lock.id, os.getpid(), "run")
        said = refusal(take, folder)
        must_name(
            said,
            f"{folder}:",
            "another run writes there",
            f"{holder['user']} on {holder['host']} at {holder['since']}",
            "wait for it",
            f"'kill {os.getpid()}'",
            "another folder with RUN=",
        )
        assert ("its lock ends by itself in " in said) == (home != "kernel")
        assert content(folder) == before
        lock.check()


def test_nothing_stays_behind(folder):
    with folder_lock.held(folder, **RUN):
        assert set(storage.files(folder)) == {".lock"}
    assert not storage.exists(folder)
    storage.write_bytes(f"{folder}/mine", b"")
    with pytest.raises(KeyError), folder_lock.held(folder, **RUN):
        raise KeyError
    assert set(storage.files(folder)) == {"mine"}


def test_a_folder_that_was_there_stays(tmp_path):
    with folder_lock.held(str(tmp_path), **RUN):
        pass
    assert tmp_path.exists()


def test_a_lock_is_a_file_that_others_may_read_and_nobody_run(tmp_path):
    before = os.umask(0o022)
    try:
        with folder_lock.held(str(tmp_path / "run"), what="run", instead=""):
            assert stat.S_IMODE((tmp_path / "run" / ".lock").stat().st_mode) == 0o644
    finally:
        os.umask(before)


def test_a_link_to_what_is_somebodys_is_not_written_through(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(precious)
    with pytest.raises(RemaskError, match=r"^.*run.*: too many levels of symbolic links"):
        folder_lock.take(str(tmp_path / "run"), what="run", instead="", say=pytest.fail)
    assert precious.read_text() == "mine"


def test_a_killed_holder_is_no_hindrance(folder, process):
    holder = process()
    go_on(holder)
    assert said_by(holder) == "holds"
    assert f"'kill {holder.pid}'" in refusal(take, folder)
    holder.kill()
    holder.wait(processes.LIMIT)
    with folder_lock.held(folder, **RUN) as lock:
        assert lock.left.pid == holder.pid
        lock.check()
    assert not storage.files(folder)


def test_a_killed_holder_whose_parent_has_not_looked_is_no_hindrance(folder, process):
    holder = process()
    go_on(holder)
    assert said_by(holder) == "holds"
    holder.kill()
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # and stays a zombie
    take(folder).release()


def test_what_a_holder_has_started_does_not_hold_its_lock(folder, process):
    holder = process("with a child")
    go_on(holder)
    child, _, said = said_by(holder).partition(" ")
    assert said == "holds"
    holder.kill()
    holder.wait(processes.LIMIT)
    os.kill(int(child), 0)  # it lives
    try:
        take(folder).release()
    finally:
        os.kill(int(child), signal.SIGKILL)


@pytest.mark.parametrize("left", [False, True], ids=["free", "left-by-a-dead-one"])
def test_of_many_that_start_at_the_same_time_exactly_one_wins(folder, process, left):
    if left:
        leave_lock(folder, pid=ended())
    many = [process() for _ in range(3)]
    for each in many:
        go_on(each)
    said = [said_by(each) for each in many]
    assert sorted(each == "holds" for each in said) == [False, False, True]
    assert all(each == "holds" or "another run writes there" in each for each in said)
    winner = many[said.index("holds")]
    assert f"'kill {winner.pid}'" in refusal(take, folder)
    go_on(winner)
    winner.wait(processes.LIMIT)
    assert not storage.files(folder)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff", b'{"id": 1}', b"{}"], ids=["empty", "half", "list", "bytes", "types", "none"]
)
def test_a_lock_that_says_nothing_is_held_as_long_as_any(folder, home, content, grown_old):
    storage.write_bytes(f"{folder}/.lock", content)
    if home != "kernel":  # which knows that nobody has it
        assert refusal(take, folder).startswith(f"{folder}: another command writes there, and does not say who it is; ")
        grown_old(lease.EXPIRE_SECONDS + 2)
    with folder_lock.held(folder, **RUN) as lock:
        assert lock.left is None
        lock.check()


@pytest.mark.parametrize("replaced", [ELSEWHERE, {"boot": "before"}, {"namespace": "pid:[1]"}], ids=str)
def test_whether_one_lives_elsewhere_only_time_tells(folder, home, replaced, grown_old):
    """Another machine may have our name, a container that was started again has it, and the same pids."""
    left = leave_lock(folder, pid=ended(), **replaced)  # there is no such process here
    if home != "kernel":
        said, half = refusal(take, folder), lease.EXPIRE_SECONDS / 2
        assert f"begun by {left.user} on {left.host} at " in said
        assert "'kill" not in said
        assert half < seconds_in(said) <= 2 * half + 1
        grown_old(half)
        assert 0 < seconds_in(refusal(take, folder)) <= half + 1
        grown_old(half + 2)
    with folder_lock.held(folder, **RUN) as lock:
        assert lock.left == left


def test_a_pid_that_another_process_has_by_now_is_no_hindrance(folder):
    left = leave_lock(folder, started="1")
    with folder_lock.held(folder, **RUN) as lock:
        assert lock.left == left


def test_where_the_system_tells_nothing_of_processes_only_time_tells(monkeypatch):
    holder = dataclasses.replace(Holder.here("run"), pid=ended())
    assert holder.is_gone()
    assert not dataclasses.replace(holder, boot="").is_gone()
    assert not dataclasses.replace(holder, pid=1 << 70).is_gone()
    assert Holder.here("run").is_here()
    monkeypatch.setattr("records.storage.holder.Path.read_text", lambda path: (_ for _ in ()).throw(PermissionError()))
    assert not Holder.here("run").is_here()  # as one of another machine which tells as little would be
    assert not dataclasses.replace(Holder.here("run"), started="1").is_gone()


def test_who_takes_over_from_one_that_lives_wins_and_the_other_learns_it(folder):
    first = take(folder)
    first.check()
    second = take(folder, take_over=True)
    assert second.left.id == first.id
    first._kind._renewed = -1e9  # to be asked for now, where it is a lease
    said = refusal(first.check)
    assert said.startswith(f"{folder}: another run has taken it over, begun by ")
    first.release()
    second.check()
    assert folder_lock.is_held(folder, second.id)
    assert not folder_lock.is_held(folder, first.id)
    assert "another run writes there" in refusal(take, folder)
    second.release()
    assert not storage.exists(f"{folder}/.lock")


def test_who_gives_back_what_is_anothers_by_now_leaves_it(folder):
    lock = take(folder)
    other = take(folder, take_over=True)
    lock.release()
    other.check()
    assert folder_lock.is_held(folder, other.id)
    other.release()


def test_a_lock_that_is_removed_is_lost(folder):
    lock = take(folder)
    storage.remove(f"{folder}/.lock")
    lock._kind._renewed = -1e9
    assert "another command has taken it over" in refusal(lock.check)
    lock.release()


def test_a_lock_that_outlives_its_holder_lasts_until_it_is_given_back(folder, grown_old):
    lock = take(folder)
    lock.outlive()
    lock.leave()
    grown_old(10 * lease.EXPIRE_SECONDS)
    said = refusal(take, folder)
    assert "another run writes there" in said
    assert "'kill" not in said
    assert "by itself" not in said
    folder_lock.end(folder, "another")
    assert folder_lock.is_held(folder, lock.id)
    folder_lock.end(folder, lock.id)
    take(folder).release()


def test_a_lock_that_outlives_its_holder_does_not_end_with_its_process(folder):
    left = leave_lock(folder, outlives=True, pid=ended())
    said = refusal(take, folder)
    must_name(said, f"{left.user} on {left.host} at {left.since}", "wait for it", *TAKE_OVER)
    assert "'kill " not in said
    take(folder, take_over=True).release()


def test_a_lock_that_outlives_its_holder_can_be_given_back_by_it_and_taken_over_by_others(folder):
    lock = take(folder)
    lock.outlive()
    lock.check()
    lock.release()
    assert not storage.exists(f"{folder}/.lock")
    lock = take(folder)
    lock.outlive()
    lock.leave()
    other = take(folder, take_over=True)
    other.check()
    other.release()


@pytest.mark.parametrize("outlives", [False, True])
def test_a_lock_that_cannot_be_given_back_is_told_of_where_it_outlives_its_holder(
    folder, home, outlives, request, monkeypatch
):
    def forbidden(path, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    said = []
    lock = folder_lock.take(folder, **RUN, say=said.append)
    if outlives:
        lock.outlive()
    if home == "bucket":
        request.getfixturevalue("cloud").fail(lambda sent: sent.method == "DELETE", 403)
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", forbidden)
        lock.release()
    assert storage.exists(f"{folder}/.lock")
    assert len(said) == outlives
    for line in said:
        assert f"{folder}/.lock" in line or f"{folder}: permission denied" in line
        must_name(line, *TAKE_OVER)


def test_the_end_of_a_job_leaves_its_commands_lock_to_that(folder):
    with folder_lock.held(folder, **RUN) as lock:
        folder_lock.end(folder, lock.id)
        lock.check()
        assert folder_lock.is_held(folder, lock.id)


# A kernel's lock


@pytest.fixture
def place(tmp_path) -> str:
    return f"{tmp_path}/out"


def test_a_file_that_was_removed_before_it_was_locked_is_no_lock(place, monkeypatch):
    """The first one gives it back just when the second has opened it."""
    first, lock_file = take(place), fcntl.flock

    def late(file, operation):
        if isinstance(file, int) and os.path.samestat(os.fstat(file), os.stat(f"{place}/.lock")):
            monkeypatch.setattr(fcntl, "flock", lock_file)
            first.release()
        lock_file(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    second = take(place)
    second.check()
    assert "another run writes there" in refusal(take, place)
    second.release()


def test_who_takes_over_waits_for_one_that_is_just_giving_it_back(place, monkeypatch):
    monkeypatch.setattr(folder_lock, "_PATIENCE", processes.LIMIT)
    first, taken, waits = take(place), [], threading.Event()
    other = threading.Thread(target=lambda: taken.append(take(place, take_over=True)))
    unlink, lock_file = os.unlink, fcntl.flock

    def noted(file, operation):
        try:
            lock_file(file, operation)
        except BlockingIOError:
            if stat.S_ISDIR(os.fstat(file).st_mode):
                waits.set()
            raise

    def late(path):
        monkeypatch.setattr(os, "unlink", unlink)
        other.start()
        processes.wait_for(lambda: waits.is_set() or not other.is_alive())  # it comes in between now, if ever
        unlink(path)

    monkeypatch.setattr(fcntl, "flock", noted)
    monkeypatch.setattr(os, "unlink", late)
    first.release()
    other.join(processes.LIMIT)
    taken[0].check()
    taken[0].release()


def test_a_folder_that_somebody_else_has_locked_is_not_waited_for_for_ever(place, monkeypatch):
    monkeypatch.setattr(folder_lock, "_PATIENCE", 0.05)
    lock = take(place)
    folder = os.open(place, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)  # as in `flock out/records make records`
    lock.release()
    os.close(folder)
    assert not Path(place).exists()


def test_a_lock_of_a_moment_ago_does_not_say_whose_it_is(place, monkeypatch):
    monkeypatch.setattr(folder_lock, "_PATIENCE", 0.05)
    os.mkdir(place)
    with open(f"{place}/.lock", "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        must_name(
            refusal(take, place),
            f"{place}:",
            "another command writes there",
            "does not say who it is",
            "wait for it",
            "another folder",
            "RUN=",
        )


@pytest.fixture
def anothers(place, monkeypatch):
    """Return a function that leaves a lock which may be removed and read, and not written."""

    def leave(**replaced):
        left = leave_lock(place, **replaced)
        inode, opened = os.stat(f"{place}/.lock").st_ino, os.open

        def forbidding(path, flags, *mode):
            if flags & os.O_RDWR and os.path.exists(path) and os.stat(path).st_ino == inode:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return opened(path, flags, *mode)

        monkeypatch.setattr(os, "open", forbidding)
        return left

    return leave


def test_what_another_user_has_left_is_removed_as_it_may_not_be_written(place, anothers):
    left = anothers(pid=ended())
    with folder_lock.held(place, **RUN) as lock:
        lock.check()
        assert lock.id != left.id
    assert not storage.files(place)


def test_what_another_users_job_holds_stays(place, anothers):
    left = anothers(outlives=True)
    assert f"begun by {left.user} on {left.host} at {left.since}" in refusal(take, place)
    assert folder_lock.is_held(place, left.id)


def test_a_holder_that_is_called_as_we_are_and_has_ended_is_no_hindrance(place):
    """In a container that is started again all names are as they were, down to the pid."""
    leave_lock(place)
    take(place).release()


def test_it_is_given_back_once(place):
    lock = take(place)
    lock.release()
    file = os.open(os.path.dirname(place), os.O_RDONLY)  # gets its number
    lock.release()
    os.fstat(file)
    os.close(file)
    assert "has taken it over" in refusal(lock.check)


def test_a_folder_that_vanishes_is_made_again(place, monkeypatch):
    opened, gone = os.open, []

    def late(path, flags, *mode):
        if path.endswith(".lock") and not gone:
            gone.append(os.rmdir(place))
        return opened(path, flags, *mode)

    monkeypatch.setattr(os, "open", late)
    with folder_lock.held(place, **RUN) as lock:
        lock.check()
    assert gone


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="there is no /proc, where not even root can make a folder")
def test_a_folder_that_cannot_be_made_is_named():
    assert refusal(take, "/proc/remask") == "/proc/remask: no such file or directory"


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").touch()
    assert refusal(take, f"{tmp_path}/file") == f"{tmp_path}/file: file exists"


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
def test_a_disk_that_does_not_say_whose_lock_it_is_is_named(place, monkeypatch, number):
    def failing(path, **options):
        raise OSError(number, os.strerror(number))

    lock = take(place)
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", failing)
        said = refusal(lock.check)
    assert said.startswith(f"{place}: {os.strerror(number).lower()}")
    lock.check()
    lock.release()


def test_a_lock_whose_file_another_machine_has_removed_is_lost(place, monkeypatch):
    def stale(file):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    lock = take(place)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", stale)
        assert "has taken it over" in refusal(lock.check)
    lock.release()


def test_no_lock_of_the_kernel_is_waited_for(place, monkeypatch):
    lock_file, seen = fcntl.flock, []

    def noted(file, operation):
        seen.append(operation)
        lock_file(file, operation)

    monkeypatch.setattr(fcntl, "flock", noted)
    take(place)
    take(place, take_over=True).release()
    assert seen
    assert all(operation & fcntl.LOCK_NB for operation in seen)


@pytest.fixture
def nfs(monkeypatch):
    """Let the kernel lock as on NFS: exclusively only what is open to be written."""
    lock_file = fcntl.flock

    def strict(file, operation):
        number = file if isinstance(file, int) else file.fileno()
        if operation & fcntl.LOCK_EX and fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        lock_file(file, operation)

    monkeypatch.setattr(fcntl, "flock", strict)


def test_what_another_user_has_left_on_a_network_disk_is_removed(nfs, place, anothers):
    anothers(pid=ended())
    with folder_lock.held(place, **RUN) as lock:
        lock.check()
    assert not storage.files(place)


def test_what_another_user_holds_on_a_network_disk_stays(nfs, place, anothers):
    left = anothers()
    with open(f"{place}/.lock", "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert f"begun by {left.user} on {left.host} at {left.since}" in refusal(take, place)
    assert folder_lock.is_held(place, left.id)


def test_what_another_user_has_left_is_removed_while_nobody_else_may_replace_it(place, anothers, monkeypatch):
    anothers(pid=ended())
    unlink, seen = os.unlink, []

    def noted(path):
        folder = os.open(place, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            seen.append("free")
        except BlockingIOError:
            seen.append("locked")
        finally:
            os.close(folder)
        unlink(path)

    monkeypatch.setattr(os, "unlink", noted)
    take(place).release()
    assert seen == ["locked", "locked"]


def test_who_has_lost_the_race_for_a_dead_ones_lock_is_not_told_of_the_dead_one(place, monkeypatch):
    monkeypatch.setattr(folder_lock, "_PATIENCE", 0.05)
    leave_lock(place, pid=ended(), user="ann")
    pwrite, said = os.pwrite, []

    def late(file, written, offset):
        monkeypatch.setattr(os, "pwrite", pwrite)
        said.append(refusal(take, place))
        return pwrite(file, written, offset)

    monkeypatch.setattr(os, "pwrite", late)
    with folder_lock.held(place, **RUN) as lock:
        assert lock.left.user == "ann"
    assert f"{place}: another command writes there, and does not say who it is" in said[0]


def test_a_folder_that_always_vanishes_is_named_and_not_made_as_fast_as_can_be(place, monkeypatch):
    monkeypatch.setattr(folder_lock, "_PATIENCE", 0.05)
    monkeypatch.setattr(folder_lock, "_PAUSE", 0.02)
    opened, gone = os.open, []

    def late(path, flags, *mode):
        if path.endswith(".lock"):
            gone.append(os.rmdir(place))
        return opened(path, flags, *mode)

    monkeypatch.setattr(os, "open", late)
    assert refusal(take, place) == f"{place}: no such file or directory"
    assert len(gone) < 6


# A lease


BUCKET = pytest.param("bucket", marks=pytest.mark.cloud)
LEASED = pytest.mark.parametrize("home", ["disk", BUCKET], indirect=True)


@LEASED
def test_it_is_renewed_for_as_long_as_it_is_held(folder, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)
    lock = take(folder)
    for _ in range(3):
        before = storage.generation(f"{folder}/.lock")
        processes.wait_for(lambda before=before: storage.generation(f"{folder}/.lock") != before)
    lock.check()
    lock.release()
    assert not lock._kind._thread.is_alive() or not lock._kind._thread.join(processes.LIMIT)
    assert not storage.files(folder)


@LEASED
def test_it_costs_nothing_to_ask_and_is_renewed_where_that_was_not_done_for_long(folder, clock):
    lock = take(folder)
    before = storage.generation(f"{folder}/.lock")
    clock[0] = lease.EXPIRE_SECONDS / 2
    lock.check()
    assert storage.generation(f"{folder}/.lock") == before
    clock[0] += 1
    lock.check()
    renewed = storage.generation(f"{folder}/.lock")
    assert renewed != before
    lock.check()
    assert storage.generation(f"{folder}/.lock") == renewed
    lock.release()


@LEASED
def test_a_machine_that_slept_while_another_took_over_learns_it_before_it_writes(folder, clock, grown_old):
    lock = take(folder)
    grown_old(lease.EXPIRE_SECONDS + 2)  # our process stands still, and renews nothing
    other = take(folder)
    clock[0] += lease.EXPIRE_SECONDS + 2
    assert "another run has taken it over" in refusal(lock.check)
    assert "another run has taken it over" in refusal(lock.check)
    other.check()
    lock.release()
    other.check()
    other.release()


@pytest.mark.parametrize("home", [BUCKET], indirect=True)
def test_a_machine_that_slept_while_nobody_took_over_goes_on(folder, clock, grown_old):
    lock = take(folder)
    grown_old(10 * lease.EXPIRE_SECONDS)
    clock[0] += 10 * lease.EXPIRE_SECONDS
    lock.check()
    assert "another run writes there" in refusal(take, folder)
    lock.release()


@LEASED
def test_who_takes_over_is_not_stopped_by_a_renewal(folder, monkeypatch):
    lock, look = take(folder), lease._look

    def late(path, *, take_over):
        found = look(path, take_over=take_over)
        monkeypatch.setattr(lease, "_look", look)
        lock._kind._renew()
        return found

    monkeypatch.setattr(lease, "_look", late)
    other = take(folder, take_over=True)
    other.check()
    lock._kind._renewed = -1e9
    assert "another run has taken it over" in refusal(lock.check)
    other.release()


@LEASED
def test_of_two_that_find_it_dead_at_the_same_time_one_wins(folder, monkeypatch):
    """The other one takes it right after this one has looked."""
    leave_lock(folder, pid=ended())
    look, others = lease._look, []

    def late(path, *, take_over):
        found = look(path, take_over=take_over)
        monkeypatch.setattr(lease, "_look", look)
        others.append(take(folder))
        return found

    monkeypatch.setattr(lease, "_look", late)
    assert "another run writes there" in refusal(take, folder)
    others[0].check()
    others[0].release()


@LEASED
def test_a_lock_that_is_given_back_while_its_age_is_asked_for_is_free(folder, monkeypatch):
    first, age = take(folder), storage.age

    def late(path):
        monkeypatch.setattr(storage, "age", age)
        first.release()
        return age(path)

    monkeypatch.setattr(storage, "age", late)
    second = take(folder)
    second.check()
    second.release()


@LEASED
def test_a_lock_of_which_the_age_cannot_be_asked_for_is_not_taken(folder, monkeypatch):
    def unwell(path):
        raise RemaskError(f"{path}: not well")

    lock = take(folder)
    monkeypatch.setattr(storage, "age", unwell)
    assert refusal(take, folder).endswith("not well")
    lock.release()


@LEASED
def test_the_background_learns_it_too(folder, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)
    lock = take(folder)
    leave_lock(folder)
    lock._kind._thread.join(processes.LIMIT)
    assert not lock._kind._thread.is_alive()
    assert "another run has taken it over" in refusal(lock.check)


def test_renewing_does_not_keep_a_program_from_its_end(tmp_path):
    program = UNSUPPORTED + (
        "import sys\n"
        "from records.storage import folder_lock\n"
        'lock = folder_lock.take(sys.argv[1], what="run", instead="choose another folder with RUN=")\n'
        "assert lock._kind._thread.is_alive()\n"
    )
    assert processes.run([sys.executable, "-c", program, f"{tmp_path}/out"]).returncode == 0


@pytest.mark.cloud
def test_without_a_network_it_is_ours_until_it_may_be_anothers(cloud, clock, monkeypatch):
    monkeypatch.setattr(gcs, "PATIENCE", 0.2)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)
    said, tried, write = [], [], storage.write_bytes
    lock = folder_lock.take("gs://bucket/out", **RUN, say=said.append)
    fault = cloud.fail(lambda request: request.path.startswith("/upload/"), 503, times=1 << 20)
    monkeypatch.setattr(storage, "write_bytes", lambda *args, **more: (tried.append(args), write(*args, **more))[1])
    processes.wait_for(lambda: said)
    lock.check()
    tried.clear()
    processes.wait_for(lambda: len(tried) > 2)  # when the third has begun, a second one has failed
    clock[0] = lease.EXPIRE_SECONDS
    assert "is not well (503" in refusal(lock.check)
    fault.times = 0
    lock.check()
    lock.release()
    assert len(said) == 1
    assert said[0].startswith("the lock cannot be renewed at the moment: gs://bucket/out/.lock: ")
    assert cloud.storage.objects("bucket") == {}


@pytest.mark.cloud
def test_a_renewal_of_which_the_answer_is_lost_is_one(cloud, clock):
    lock = take("gs://bucket/out")
    for _ in range(2):
        cloud.fail(lambda request: request.path.startswith("/upload/"), "reset")
        clock[0] += lease.EXPIRE_SECONDS
        lock.check()
    cloud.fail(lambda request: request.method == "DELETE", "reset")
    lock.release()
    assert cloud.storage.objects("bucket") == {}


@pytest.mark.cloud
def test_a_bucket_that_may_not_be_written_is_named(cloud):
    cloud.storage.create_bucket("theirs", writers=set())
    assert "lacks storage.objects.create in bucket theirs" in refusal(take, "gs://theirs/out")


@LEASED
def test_a_lock_that_is_there_and_cannot_be_asked_for_is_not_taken_for_none(folder, monkeypatch):
    def unwell(path):
        raise RemaskError(f"{path}: not well")

    lock = take(folder)
    monkeypatch.setattr(storage, "read_bytes", unwell)
    assert refusal(take, folder).endswith("not well")
    assert refusal(folder_lock.is_held, folder, lock.id).endswith("not well")


def interrupting(asks):
    """Return what fits requests that ask so, and sends us SIGINT with each."""

    def fits(request):
        if asks(request):
            os.kill(os.getpid(), signal.SIGINT)
            return True
        return False

    return fits


@pytest.mark.cloud
def test_a_bucket_that_does_not_answer_is_waited_for_until_the_second_signal(cloud, capsys):
    cloud.fail(interrupting(lambda request: request.path.startswith("/upload/")), 503, times=1 << 20)
    with pytest.raises(KeyboardInterrupt), folder_lock.held("gs://bucket/out", **RUN):
        pytest.fail("holds what it could not write")
    must_name(one_line(capsys.readouterr().err), "SIGINT: waiting for the lock of gs://bucket/out;", "another one")
    assert cloud.storage.objects("bucket") == {}


@pytest.mark.cloud
@pytest.mark.parametrize("outlives", [False, True])
def test_a_lock_that_is_not_given_back_for_a_second_signal_ends_by_itself(cloud, capsys, outlives):
    said, locks = [], []

    def hold():
        with folder_lock.held("gs://bucket/out", say=said.append, **RUN) as lock:
            locks.append(lock)
            if outlives:
                lock.outlive()
            cloud.fail(interrupting(lambda request: request.method == "DELETE"), 503, times=1 << 20)

    with pytest.raises(KeyboardInterrupt):
        hold()
    (lock,) = locks
    must_name(one_line(capsys.readouterr().err), "SIGINT: waiting for the lock of gs://bucket/out;", "another one")
    assert folder_lock.is_held("gs://bucket/out", lock.id)
    assert len(said) == outlives  # which does not end by itself
    for line in said:
        must_name(line, "stays", "signal", *TAKE_OVER)
    cloud.storage.ahead += timedelta(seconds=lease.EXPIRE_SECONDS + 1)
    assert take("gs://bucket/out", take_over=outlives).left.id == lock.id


def test_a_folder_that_was_made_for_a_lock_goes_though_a_second_signal_comes(place, monkeypatch):
    def removed(path):
        remove(path)
        raise KeyboardInterrupt

    remove, lock = os.unlink, take(f"{place}/deep")
    monkeypatch.setattr(os, "unlink", removed)
    with pytest.raises(KeyboardInterrupt):
        lock.release()
    assert not os.path.exists(place)
