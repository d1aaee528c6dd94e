"""Which CPUs a run may use, how many workers they are good for, and which of them a worker is bound to."""

import os
from collections.abc import Sequence
from pathlib import Path

from feste_dp.errors import UsageError
from feste_dp.machine.cgroup import cpu_quota
from feste_dp.machine.proc import text_of
from feste_dp.machine.topology import core_of
from feste_dp.wording import counted


def usable_cpus() -> int:
    """CPUs this process may run on: its affinity mask, less where the cgroup's quota allows less."""
    return max(1, min(len(os.sched_getaffinity(0)), cpu_quota()))


def usable_cores() -> int:
    """Physical cores this process may run on. Hardware threads of one core share its multipliers, which one
    worker keeps busy."""
    return min(len(usable_cpus_by_core()), usable_cpus())


def usable_cpus_by_core() -> list[set[int]]:
    """The CPUs of each physical core this process may run on."""
    cores: dict[str, set[int]] = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        cores.setdefault(core_of(cpu), set()).add(cpu)
    return list(cores.values())


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The CPU as it names itself."""
    lines = text_of(cpuinfo).splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else "unknown CPU"


# What the kernels can make use of, and what tells CPUs apart that look alike, as x86 and arm64 name it.
_FEATURES = ("avx", "avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16", "asimd", "sve", "bf16")


def cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """Those of the first CPU that matter here; none where the kernel does not tell."""
    lines = text_of(cpuinfo).splitlines()
    found = [line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))]
    return [name for name in _FEATURES if found and name in found[0]]


def default_workers(shards: int) -> int:
    """One worker a usable core, at most one a shard."""
    return min(usable_cores(), shards)


def crowding(workers: int) -> str | None:
    """What to say of more workers than there is room for; None where there is."""
    cpus, cores, quota = usable_cpus(), usable_cores(), cpu_quota()
    if workers <= cores:
        return None
    if workers > cpus:
        where = f"{counted(cpus, 'usable CPU')}"
        if cpus == quota:
            where += " (the quota of the control group)"
    else:
        where = f"{counted(cores, 'physical core')}"
    fewer = "1 worker takes less memory and is" if cores == 1 else f"{cores} take less memory and are"
    return f"{workers} workers share {where}: {fewer} hardly slower"


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
            raise UsageError(f"CPU {unusable[0]} is not among the usable ones, {allowed}", about="run.pin")
        if len(set(pin)) != len(pin):
            twice = next(cpu for cpu in pin if pin.count(cpu) > 1)
            raise UsageError(f"CPU {twice} is named twice: name it once", about="run.pin")
        if len(pin) < workers:
            raise UsageError(
                f"{workers} workers need {workers} CPUs, {len(pin)} named: "
                f"name more, or set run.workers to {len(pin)}",
                about="run.pin",
            )
        return list(pin[:workers])
    order = _one_per_core_first(allowed)
    return [order[worker] if worker < len(order) else None for worker in range(workers)]


def _one_per_core_first(cpus: Sequence[int]) -> list[int]:
    seen: set[str] = set()
    first: list[int] = []
    siblings: list[int] = []
    for cpu in cpus:
        core = core_of(cpu)
        (siblings if core in seen else first).append(cpu)
        seen.add(core)
    return first + siblings
