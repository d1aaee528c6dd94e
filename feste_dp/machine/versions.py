"""The versions of this program and of what computes with it."""

import importlib.metadata
import platform

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
