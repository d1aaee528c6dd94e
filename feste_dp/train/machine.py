"""The machine a run is on, as the run remembers it: CPU, memory, versions. No host name."""

import importlib.metadata
import os
import platform

from feste_dp import __version__
from feste_dp.config.schema import Config
from feste_dp.data.tokens import TokenData
from feste_dp.model.parameters import parameter_count
from feste_dp.runtime.cpus import cpu_name, usable_cpus

_PACKAGES = ("numpy", "numba", "llvmlite", "pyzmq")


def start_facts(config: Config, data: TokenData, workers: int) -> dict[str, object]:
    """What events.jsonl says at each start of the process."""
    return {
        "workers": workers,
        "parameters": parameter_count(config.model),
        "train_tokens": len(data.train),
        "val_tokens": len(data.val),
        "machine": machine_facts(),
    }


def machine_facts() -> dict[str, object]:
    """The part on the machine."""
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
