"""Keeps two jobs off one folder: the one that begins leaves a claim there, and the next one finds it.

At its end a job looks whether the claim is still its own, and only then writes the manifest.
"""

import contextlib
import getpass
import glob
import json
import os
import socket
import uuid
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from records import storage
from records.errors import Changed, RemaskError

_CLAIM = "job.json"


def take(folder: str, *, take_over: bool, ends_with_us: bool) -> str:
    """Claim a folder, and return what tells this job from all others.

    A claim of a job that has died with its process on this machine is no hindrance.

    Args:
        folder: of `.work`; it is emptied.
        take_over: whether to disregard another job's claim.
        ends_with_us: whether the job ends when this process does, and nobody reads the claim on another machine.

    Raises:
        RemaskError: another job has claimed it.
    """
    path, job = storage.join(folder, _CLAIM), uuid.uuid4().hex
    generation, held = storage.generation(path), _read(folder)
    if held and not take_over and not _is_dead(held):
        raise _refusal(folder, held)
    claim = {
        "job": job,
        "host": socket.gethostname(),
        **({"pid": os.getpid()} if ends_with_us else {}),
        "user": _user(),
        "since": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    try:
        storage.write_bytes(path, json.dumps(claim).encode(), generation=generation)
    except Changed:
        raise _refusal(folder, _read(folder)) from None
    try:
        _remove_others(folder)  # not before: the claim of a job that has just begun would be among them
    except BaseException:
        release(folder, job)
        raise
    return job


def is_ours(folder: str, job: str) -> bool:
    """Say whether a folder is still claimed by a job."""
    return _read(folder).get("job") == job


def check(folder: str, job: str) -> None:
    """Refuse to go on where another job has taken a folder over.

    Raises:
        RemaskError: it has.
    """
    if not is_ours(folder, job):
        raise RemaskError(lost(folder.rpartition("/")[0], "has taken it over"))


def lost(folder: str, what: str) -> str:
    """Return what to say where another job has come in between."""
    return f"{folder}: another job {what}, so this one has made no data set; run it again with another OUT="


def release(folder: str, job: str) -> None:
    """Give a folder back, if it is still claimed by this job; what lies there otherwise stays.

    It is given back because something else went wrong, which is to be told: that this goes wrong, too, is not.
    """
    with contextlib.suppress(RemaskError):
        if is_ours(folder, job):
            storage.remove(storage.join(folder, _CLAIM))


def _remove_others(folder: str) -> None:
    """Remove what earlier jobs have left in the folders below."""
    left = (path for below in ("*/*", "*/*/*") for path in storage.matching(storage.join(glob.escape(folder), below)))
    for name in {path.removeprefix(f"{folder}/").partition("/")[0] for path in left}:
        storage.remove(storage.join(folder, name))


def _read(folder: str) -> Mapping[str, Any]:
    """Return the claim in a folder, an empty one where there is none."""
    path = storage.join(folder, _CLAIM)
    try:
        read = json.loads(storage.read_bytes(path))
    except ValueError:
        return {}
    except RemaskError:
        if storage.generation(path):  # it is there: who cannot read it does not know whose it is
            raise
        return {}
    return read if isinstance(read, dict) else {}


def _is_dead(claim: Mapping[str, Any]) -> bool:
    """Say whether a claim's job has ended with its process on this machine; of others nothing is known."""
    if claim.get("host") != socket.gethostname() or "pid" not in claim:
        return False
    try:
        os.kill(int(claim["pid"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, TypeError, ValueError):
        return False
    return False


def _refusal(folder: str, claim: Mapping[str, Any]) -> RemaskError:
    who = f"{claim.get('user', 'somebody')} on {claim.get('host', 'another machine')}"
    return RemaskError(
        f"{folder.rpartition('/')[0]}: another job writes there, begun by {who} at {claim.get('since', 'some time')}; "
        f"wait for it, choose another folder with OUT=, or, if that job is dead, take over with ARGS=--overwrite"
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        return str(os.getuid())
