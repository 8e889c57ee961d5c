"""What memory a process can still get, of the machine and of the container that it runs in."""

from pathlib import Path

GIB = 1 << 30

_CONTAINER = ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current", "sys/fs/cgroup/memory.stat")


def available(root: Path = Path("/")) -> int | None:
    """Return the bytes that are free, or None where the system does not say.

    What a container has read of files counts as free: it is given up when memory is asked for.

    Args:
        root: of the file system of a Linux machine.
    """
    machine = root / "proc/meminfo"
    if not machine.exists():
        return None
    free = _named(machine)["MemAvailable:"] << 10
    limit, held, kinds = (root / name for name in _CONTAINER)
    if not limit.exists() or (most := limit.read_text(encoding="ascii").strip()) == "max":
        return free
    used = int(held.read_text(encoding="ascii")) - _named(kinds)["inactive_file"]
    return min(free, max(0, int(most) - used))


def _named(file: Path) -> dict[str, int]:
    """Return the numbers of a file that has a name and a number in each line."""
    lines = (line.split() for line in file.read_text(encoding="ascii").splitlines())
    return {name: int(number) for name, number, *_ in lines}
