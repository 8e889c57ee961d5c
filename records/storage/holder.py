"""Who holds a lock: as the next one is told, and as far as this machine can know whether it still lives."""

import dataclasses
import getpass
import json
import os
import socket
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from records import typed_json
from records.errors import RemaskError


@dataclass(frozen=True)
class Holder:
    """What stands in a lock."""

    id: str  # tells this holder from all others
    what: str  # "run", "records job"
    user: str
    host: str
    pid: int
    since: str  # by the clock of its machine
    boot: str  # of its machine's kernel; "" where the system does not say
    namespace: str  # in which its pid is one
    started: str  # when its process did, by the kernel's own count
    outlives: bool = False  # goes on elsewhere when its process ends, until somebody gives it back

    @classmethod
    def here(cls, what: str) -> "Holder":
        """Return this process, as one that begins something now."""
        return cls(
            id=uuid.uuid4().hex,
            what=what,
            user=_user(),
            host=socket.gethostname(),
            pid=os.getpid(),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            boot=_boot(),
            namespace=_namespace(),
            started=_started(os.getpid()) or "",
        )

    @classmethod
    def read(cls, content: bytes) -> "Holder | None":
        """Return the holder that a lock names; None where its content says nothing that could be relied on."""
        try:
            return typed_json.read(cls, content, name="lock", advice="", others=True)
        except RemaskError:
            return None

    def to_json(self) -> bytes:
        """Return what to write into the lock."""
        return json.dumps(dataclasses.asdict(self)).encode()

    def is_gone(self) -> bool:
        """Say whether its process is known to have ended. Of those of other machines and containers nothing is known.

        A host may have any name and a machine any id, so that of another boot nothing is known either.
        """
        if not self.boot or (self.host, self.boot, self.namespace) != (socket.gethostname(), _boot(), _namespace()):
            return False
        started = _started(self.pid)
        return started is not None and started != self.started

    def is_here(self) -> bool:
        """Say whether its process is known to be one that can be ended from here."""
        here = bool(self.boot) and (self.boot, self.namespace) == (_boot(), _namespace())
        return here and not self.outlives and not self.is_gone()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        return str(os.getuid())


def _boot() -> str:
    """Return what tells this start of the kernel from all others; "" where there is no such thing."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _namespace() -> str:
    """Return in which of the kernel's worlds of processes this one lives: each container has its own."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """Return when a process was started, "" where it has ended; None where the system does not tell."""
    try:
        os.kill(pid, 0)
        state, *others = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except ProcessLookupError:
        return ""
    except (OSError, OverflowError, ValueError):  # another user's, or a system without /proc
        return None
    return "" if state in "ZX" else others[18]  # field 22, of which the name, 2nd and in brackets, was cut off
