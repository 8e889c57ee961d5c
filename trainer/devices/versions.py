"""What is installed, held against what it says it needs."""

import importlib.metadata
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SHOWN = ("tensorflow", "tensorflow-tpu", "keras", "numpy", "tokenizers", "apache-beam", "google-cloud-storage")
"""What one wants to know of an installation at a glance."""

_SAME_FILES = ("tensorflow", "tensorflow-cpu", "tensorflow-tpu", "tf-nightly")
"""Distributions that all hold the package `tensorflow`: the last one installed wins, and the first one uninstalled
takes files of the others along."""

_OUR_PACKAGES = ("pipelines", "records", "trainer")


class Distribution(NamedTuple):
    """A distribution that is installed."""

    version: str
    requires: Sequence[str]
    packages: Collection[str] = ()  # top-level ones, where it matters


def installed() -> dict[str, Distribution]:
    """Return what is installed, by canonical name."""
    packages: dict[str, list[str]] = {}
    for package, names in importlib.metadata.packages_distributions().items():
        for name in names:
            packages.setdefault(canonicalize_name(name), []).append(package)
    return {
        name: Distribution(each.version, each.requires or (), packages.get(name, ()))
        for each in importlib.metadata.distributions()
        if (name := canonicalize_name(each.name or ""))
    }


def conflicts(held: Mapping[str, Distribution], *, of: Sequence[str], extras: Collection[str] = ()) -> Iterator[str]:
    """Yield what does not fit: what some distributions need and do not find, and what does not go together.

    Args:
        held: what is installed.
        of: the distributions whose needs count.
        extras: of theirs, that are wanted.

    >>> held = {"keras": Distribution("2.15.0", ["numpy>=1.26"]), "remask": Distribution("1", ["keras>=3.10,<4"])}
    >>> list(conflicts(held, of=["remask", "keras"]))
    ['keras 2.15.0, remask needs <4,>=3.10', 'numpy is missing, keras needs >=1.26']
    """
    for needs in of:
        for line in held[needs].requires if needs in held else ():
            wanted = Requirement(line)
            if wanted.marker and not any(wanted.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                continue
            found = held.get(canonicalize_name(wanted.name))
            if found is None:
                yield f"{wanted.name} is missing, {needs} needs {wanted.specifier or 'it'}"
            elif not wanted.specifier.contains(found.version, prereleases=True):
                yield f"{wanted.name} {found.version}, {needs} needs {wanted.specifier}"
    twice = [name for name in _SAME_FILES if name in held]
    if len(twice) > 1:
        yield f"{' and '.join(twice)} are both installed and share their files: uninstall both, then install one"
    for package in _OUR_PACKAGES:
        others = sorted(name for name, each in held.items() if package in each.packages and name != "remask")
        if others:
            yield f"{' and '.join(others)} has a package '{package}', too: uninstall it, or use another environment"
