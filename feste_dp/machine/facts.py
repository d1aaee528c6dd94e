"""The machine as a run remembers it: CPU, memory, versions. No host name."""

import os

from feste_dp.machine.cpus import cpu_name, usable_cpus
from feste_dp.machine.limits import total_memory
from feste_dp.machine.versions import versions


def machine_facts() -> dict[str, object]:
    """Values that JSON can hold."""
    return {
        "cpu": cpu_name(),
        "cpus": os.cpu_count() or 1,
        "usable_cpus": usable_cpus(),
        "memory_bytes": total_memory(),
        "versions": versions(),
    }
