"""Each library's version against the range that pronk is tested with.

What pronk asks for stands in pyproject.toml alone and is read from the installed metadata; TESTED says how far of
that range the tests have been, where that is less.
"""

from __future__ import annotations

import importlib.metadata
import platform
import sys

from pronk.doctor.health.finding import Line

TESTED = {"torch": ("2.11", "2.13"), "transformers": ("5.17", "5.23"), "triton": ("3.6", "3.9")}
OLDEST_PYTHON = (3, 11)
NEEDED_WITH_A_GPU = "triton"  # comes with PyTorch's CUDA builds


def python_line() -> Line:
    """Python itself."""
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < OLDEST_PYTHON:
        return Line("Python", "failed", found, "pronk needs Python 3.11 or newer: make a new virtual environment")
    return Line("Python", "ok", found)


def version_lines() -> list[Line]:
    """A line for each library that pronk asks for, in the order of pyproject.toml, and one for Triton."""
    from packaging.requirements import Requirement

    try:
        asked = [Requirement(line) for line in importlib.metadata.requires("pronk") or []]
    except importlib.metadata.PackageNotFoundError:
        return [Line("pronk", "failed", "not installed as a package, so the ranges are not known", "pip install pronk")]
    needed = [one for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})]
    lines = [library_line(one.name, str(one.specifier)) for one in needed]
    if (found := installed(NEEDED_WITH_A_GPU)) is not None:
        lines.append(_within(NEEDED_WITH_A_GPU, found, ""))
    return lines


def library_line(name: str, specifier: str) -> Line:
    """One library: whether it is there, in the range that is asked for, and as far as the tests have been."""
    found = installed(name)
    if found is None:
        return Line(name, "failed", "not installed", _install(name, specifier))
    return _within(name, found, specifier)


def installed(name: str) -> str | None:
    """The version of an installed distribution; None where it is not there. Nothing is imported."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _within(name: str, found: str, specifier: str) -> Line:
    from packaging.specifiers import SpecifierSet
    from packaging.version import InvalidVersion, Version

    try:
        version = Version(found)
    except InvalidVersion:
        return Line(name, "failed", f"its version {found!r} is none", _install(name, specifier))
    if not SpecifierSet(specifier).contains(version, prereleases=True):
        return Line(name, "failed", f"{found}; pronk needs {_spaced(specifier)}", _install(name, specifier))
    oldest, newest = TESTED.get(name, (None, None))
    if oldest and newest and not _minor(oldest) <= version.release[:2] <= _minor(newest):
        remedy = f'if something breaks: pip install "{name}=={newest}.*"'
        return Line(name, "note", f"{found}; tested with {oldest} to {newest}", remedy)
    tested = f"tested with {oldest} to {newest}" if oldest else _spaced(specifier)
    return Line(name, "ok", f"{found} ({tested})" if tested else found)


def _minor(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def _install(name: str, specifier: str) -> str:
    return f'pip install -U "{name}{specifier}"'


def _spaced(specifier: str) -> str:
    """`>=2.11, <2.14`: the lower bound first."""
    return ", ".join(sorted(specifier.split(","), key=lambda part: not part.startswith(">")))
