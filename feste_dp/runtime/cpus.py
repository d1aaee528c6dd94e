"""Which CPUs a run may use, and which of them a worker is bound to."""

import os
from collections.abc import Sequence
from pathlib import Path

from feste_dp.errors import UsageError


def usable_cpus() -> int:
    """CPUs this process may run on: its affinity mask, less where the cgroup's quota allows less."""
    return max(1, min(len(os.sched_getaffinity(0)), _quota()))


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The CPU as it names itself."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else "unknown CPU"


def default_workers(shards: int) -> int:
    """One worker a usable CPU, at most one a shard."""
    return min(usable_cpus(), shards)


def pin_plan(pin: str | list[int], workers: int) -> list[int | None]:
    """The CPU of each worker, None where it is not bound. Raises UsageError.

    "auto" takes one CPU of each physical core first, then their siblings; a list is used in its order and
    must name as many CPUs as there are workers, all of them usable.
    """
    if pin == "none":
        return [None] * workers
    allowed = sorted(os.sched_getaffinity(0))
    if isinstance(pin, list):
        unusable = [cpu for cpu in pin if cpu not in allowed]
        if unusable:
            raise UsageError(f"run.pin: CPU {unusable[0]} is not among the usable ones, {allowed}")
        if len(set(pin)) != len(pin) or len(pin) < workers:
            raise UsageError(
                f"run.pin: {workers} workers need {workers} different CPUs, {len(set(pin))} named"
            )
        return list(pin[:workers])
    order = _one_per_core_first(allowed)
    return [order[worker] if worker < len(order) else None for worker in range(workers)]


def _one_per_core_first(cpus: Sequence[int]) -> list[int]:
    seen: set[str] = set()
    first: list[int] = []
    siblings: list[int] = []
    for cpu in cpus:
        core = _core_of(cpu)
        (siblings if core in seen else first).append(cpu)
        seen.add(core)
    return first + siblings


def _core_of(cpu: int) -> str:
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return path.read_text().strip()
    except OSError:
        return str(cpu)


def _quota(root: Path = Path("/")) -> int:
    """Whole CPUs of the tightest cgroup quota above this process, rounded up."""
    quota = 1 << 16
    try:
        own = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return quota
    path = next((line[3:] for line in own if line.startswith("0::")), "/").lstrip("/")
    directory = root / "sys/fs/cgroup" / path
    while directory.is_relative_to(root / "sys/fs/cgroup"):
        try:
            limit, period = (directory / "cpu.max").read_text().split()
            if limit != "max":
                quota = min(quota, -(-int(limit) // int(period)))
        except (OSError, ValueError):
            pass
        directory = directory.parent
    return quota
