"""What a path may be: one on the local disk, or an object in a bucket of Google Cloud Storage."""

import os
import posixpath
import re
from pathlib import Path
from typing import NamedTuple

from records.errors import RemaskError

CLOUD = "gs://"

TEMPORARY = ".partial"
"""Suffix of a file that is still being written. Readers never look at it; an interrupted run leaves only such files."""


def partial(path: str, writer: str, part: int | None = None) -> str:
    """Return what a file is called while it is written, or a part of it.

    Args:
        path: of the file.
        writer: 8 hexadecimal digits, which tell who writes it from others who do.
        part: which one.

    >>> partial("out/manifest.json", "0123abcd"), partial("gs://bucket/weights", "0123abcd", 7)
    ('out/manifest.json.0123abcd.partial', 'gs://bucket/weights.0123abcd-7.partial')
    """
    return f"{path}.{writer}{'' if part is None else f'-{part}'}{TEMPORARY}"


def is_partial(name: str) -> bool:
    """Say whether a file is called so.

    >>> is_partial("manifest.json.0123abcd.partial"), is_partial("weights.0123abcd-7.partial"), is_partial("a.partial")
    (True, True, False)
    """
    return re.fullmatch(r".+\.[0-9a-f]{8}(-[0-9]+)?\.partial", name, re.DOTALL) is not None


class File(NamedTuple):
    """What a listing says of a file."""

    size: int
    crc32c: str  # 8 hexadecimal digits; "" where it would have to be computed


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Say whether a path lies in a bucket.

    >>> is_remote("gs://bucket/records"), is_remote("out/records")
    (True, False)
    """
    return os.fspath(path).startswith(CLOUD)


def is_same(folder: str, other: str) -> bool:
    """Say whether two names lead to one folder.

    >>> is_same("gs://bucket/records/", "gs://bucket/records"), is_same("out/../out", "out"), is_same("out", "gs://out")
    (True, True, False)
    """
    if is_remote(folder) or is_remote(other):
        return folder.rstrip("/") == other.rstrip("/")
    return os.path.realpath(folder) == os.path.realpath(other)


def local(path: str | os.PathLike[str]) -> Path:
    """Return the path on the local disk.

    >>> local("out/sample").name
    'sample'

    Raises:
        RemaskError: a URL.
    """
    text = os.fspath(path)
    scheme, colon, _ = text.partition("://")
    if colon and scheme.isalnum():
        raise RemaskError(
            f"{text}: found a {scheme}:// URL, expected a path on the local disk, or one like gs://BUCKET/a"
        )
    return Path(text)


def parts(path: str) -> tuple[str, str]:
    """Return the bucket and the object's name of a path in a bucket.

    >>> parts("gs://bucket/records/manifest.json")
    ('bucket', 'records/manifest.json')

    Raises:
        RemaskError: it names no bucket.
    """
    bucket, _, name = path.removeprefix(CLOUD).partition("/")
    if not bucket:
        raise RemaskError(f"{path}: names no bucket, expected one like gs://BUCKET/records")
    return bucket, name


def join(folder: str, *names: str) -> str:
    """Return the path of a file in a folder.

    >>> join("out/records/", "manifest.json")
    'out/records/manifest.json'
    """
    return posixpath.join(folder, *names)
