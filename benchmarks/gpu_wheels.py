"""Packages that are carried along as wheels, for a machine that reaches no package registry.

Only those that the machine lacks are unpacked, so that none of its own, which go with its GPU, is hidden by another.
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from importlib import metadata
from pathlib import Path

from records.errors import RemaskError

PINS = Path(__file__).with_name("gpu.txt")
"""What is carried, and in which versions."""

_PLATFORMS = [*(f"manylinux_2_{glibc}_x86_64" for glibc in (28, 27, 24, 17, 12, 5)), "manylinux2014_x86_64"]
"""pip takes a wheel by the exact name of its platform."""


def download(folder: str, *, python: str) -> None:
    """Fetch the wheels that `PINS` names, for that version of Python on x86-64 Linux; other files there are deleted.

    Raises:
        RemaskError: pip could not; the text ends with what it said.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--implementation", "cp", "--python-version", python]
    command += [word for platform in _PLATFORMS for word in ("--platform", platform)]
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            [*command, "--dest", scratch, "--requirement", str(PINS)], check=False, capture_output=True, text=True
        )
        if done.returncode:
            raise RemaskError(f"{PINS}: its wheels for Python {python} could not be fetched: {done.stderr.strip()}")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(scratch, folder)
    size = sum(path.stat().st_size for path in Path(folder).iterdir())
    print(f"made {folder}, {size / 1e6:.1f} MB, for Python {python}", flush=True)


def unpack(folder: str, into: str) -> list[str]:
    """Unpack what is not installed; return the wheels, by name. Of a folder that is not there, none.

    Args:
        folder: of the wheels.
        into: a folder for `PYTHONPATH`.

    Raises:
        RemaskError: a wheel that is needed is damaged or for another Python.
    """
    unpacked = []
    for wheel in sorted(Path(folder).glob("*.whl")):
        _, python, _, _ = wheel.stem.rsplit("-", 3)
        if _installed(wheel.stem.partition("-")[0]):
            continue
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        again = (
            f"make it anew of the same text, where there is a network: make bench-gpu-carry CSV=... TOKENIZER=... "
            f'ARGS="--python {version}"'
        )
        if not fits(python, sys.version_info[:2]):
            raise RemaskError(f"{wheel}: it is for {python}, and this is Python {version}; {again}")
        try:
            with zipfile.ZipFile(wheel) as content:
                content.extractall(into)
        except (OSError, zipfile.BadZipFile, zlib.error) as error:
            raise RemaskError(f"{wheel}: it is damaged ({error}); {again}") from error
        unpacked.append(wheel.name)
    return unpacked


def fits(python: str, version: tuple[int, ...]) -> bool:
    """Say whether a wheel's first tag names this Python.

    >>> [fits(tag, (3, 12)) for tag in ("py3", "py2.py3", "cp312", "cp31")]
    [True, True, True, False]
    """
    return bool({"py3", f"cp{version[0]}{version[1]}"} & set(python.split(".")))


def _installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
