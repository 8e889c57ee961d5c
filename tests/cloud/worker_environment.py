"""The Python of a worker: Apache Beam as its container has it, and what a package asks for. Nothing else is there.

It takes no network and a second: the files of the distributions that are installed here are linked, one by one, into
an environment of its own. What is not asked for, directly or by way of others, is not linked.
"""

import email
import importlib.metadata
import sys
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import processes

CONTAINER = ("apache-beam[gcp]",)
"""What Beam's container holds, of that which matters here."""


def make(folder: Path, packages: Iterable[Path] = ()) -> Path:
    """Make an environment in an empty folder, and install packages as source, as the container's boot does.

    Returns:
        its Python.
    """
    packages = list(packages)
    processes.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for name in needed([*CONTAINER, *(wanted for package in packages for wanted in requirements(package))]):
        _link(importlib.metadata.distribution(name), site)
    python = folder / "bin" / "python"
    for package in packages:
        # --python: pip itself is not in there either.
        pip = [
            sys.executable,
            "-m",
            "pip",
            "--python",
            str(python),
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]
        processes.run([*pip, "--no-index", "--no-deps", "--no-build-isolation", str(package)], check=True)
    return python


def requirements(package: Path) -> list[str]:
    """Return what an sdist asks for."""
    with tarfile.open(package) as held:
        top = min(
            (member.name for member in held if member.name.endswith("/PKG-INFO")), key=lambda name: name.count("/")
        )
        content = held.extractfile(top)
        assert content is not None
        return email.message_from_bytes(content.read()).get_all("Requires-Dist", [])


def needed(wanted: Iterable[str]) -> set[str]:
    """Return the names of the distributions that are asked for, directly or by way of others.

    >>> sorted({"google-crc32c", "tensorflow", "grpcio"} & needed(["google-cloud-storage"]))
    ['google-crc32c']
    """
    seen: set[tuple[str, str]] = set()
    waiting = list(_applying(wanted))
    while waiting:
        asked = waiting.pop()
        name = canonicalize_name(asked.name)
        for extra in ("", *asked.extras):
            if (name, extra) not in seen:
                seen.add((name, extra))
                waiting += _applying(importlib.metadata.requires(name) or (), extra)
    return {name for name, _ in seen}


def _applying(wanted: Iterable[str], extra: str = "") -> Iterator[Requirement]:
    """Yield those requirements that apply on this machine, to this Python and to one extra."""
    for each in wanted:
        requirement = Requirement(each)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


def _link(distribution: importlib.metadata.Distribution, site: Path) -> None:
    """Link the files of a distribution; its compiled ones by whole folders, so that nothing is compiled again."""
    for file in distribution.files or ():
        if ".." in file.parts or file.parent.name == "__pycache__":
            continue
        source, target = Path(str(distribution.locate_file(file))), site / file
        if not target.parent.exists():
            target.parent.mkdir(parents=True)
        if source.exists() and not target.exists():
            target.symlink_to(source)
            compiled = source.parent / "__pycache__"
            if source.suffix == ".py" and compiled.is_dir() and not (target.parent / "__pycache__").exists():
                (target.parent / "__pycache__").symlink_to(compiled)
