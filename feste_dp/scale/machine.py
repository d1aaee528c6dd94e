"""Where a study is measured: the machine, what of it this process may use, and how busy it was.

`root` stands for the file system's root, so that tests can make up other machines.
"""

import os
from pathlib import Path

from feste_dp.machine.cgroup import cpu_limit, memory_limit
from feste_dp.machine.cpus import cpu_name, pin_plan, usable_cpus
from feste_dp.machine.limits import total_memory
from feste_dp.machine.load import busy_share, load_average
from feste_dp.machine.topology import caches, numa_nodes, physical_cores, sockets, threads_per_core
from feste_dp.machine.versions import versions
from feste_dp.scale.study import Machine

BUSY = 0.1
"""Others' share of the CPUs above which timings cannot be trusted."""


def read_machine(pin: str | list[int], workers: int, root: Path = Path("/")) -> Machine:
    """Takes a second, to see how busy the CPUs are. Raises UsageError where pinning is impossible."""
    cpus = sorted(os.sched_getaffinity(0))
    return Machine(
        cpu=cpu_name(root / "proc/cpuinfo"),
        usable_cpus=usable_cpus(),
        physical_cores=min(usable_cpus(), physical_cores(cpus, root)),
        sockets=sockets(cpus, root),
        threads_per_core=threads_per_core(cpus, root),
        numa_nodes=numa_nodes(root),
        caches=caches(cpus, root),
        memory_bytes=total_memory(root),
        cgroup_cpus=cpu_limit(root),
        cgroup_memory_bytes=memory_limit(root),
        pin=pin if isinstance(pin, str) else ",".join(map(str, pin)),
        pinned_cpus=pin_plan(pin, workers),
        load_before=load_average(root),
        busy_before=busy_share(cpus, root),
        versions=versions(also=("torch",)),
    )
