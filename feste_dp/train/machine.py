"""The machine a run is on, as the run remembers it: CPU, memory, versions. No host name."""

import importlib.metadata
import os
import platform

from feste_dp import __version__
from feste_dp.runtime.cpus import cpu_name, usable_cpus

_PACKAGES = ("numpy", "numba", "llvmlite", "pyzmq")


def machine_facts() -> dict[str, object]:
    """What events.jsonl says of the machine at each start."""
    return {
        "cpu": cpu_name(),
        "cpus": os.cpu_count() or 1,
        "usable_cpus": usable_cpus(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "versions": {
            "feste-dp": __version__,
            "python": platform.python_version(),
            **{package: importlib.metadata.version(package) for package in _PACKAGES},
            "linux": platform.release(),
        },
    }
