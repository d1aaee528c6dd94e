"""The versions of this program and of what computes with it."""

import importlib.metadata
import platform
import re

from feste_dp import __version__

_PACKAGES = ("numpy", "numba", "llvmlite", "pyzmq")


def versions(also: tuple[str, ...] = ()) -> dict[str, str]:
    """Of feste-dp, Python, the packages that are installed, those in `also` too, and the kernel."""
    found = {"feste-dp": __version__, "python": platform.python_version()}
    for package in (*_PACKAGES, *also):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found | {"linux": platform.release()}


def unmet_requirements() -> list[str]:
    """A line for each package that this program needs and that is missing or too old here."""
    try:
        needed = importlib.metadata.requires("feste-dp") or []
    except importlib.metadata.PackageNotFoundError:  # run from its sources
        return []
    unmet = []
    for line in needed:
        found = re.match(r"([\w.-]+)>=([\d.]+)$", line)  # extras have a marker after it
        if found is None:
            continue
        name, least = found[1], found[2]
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            unmet.append(f"{name} is missing: pip install '{name}>={least}'")
            continue
        if _numbers(version) < _numbers(least):
            unmet.append(f"{name} {version} is too old: pip install '{name}>={least}'")
    return unmet


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()
