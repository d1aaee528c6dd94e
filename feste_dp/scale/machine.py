"""What the machine is, what of it this process may use, and how busy it was. Reads /proc and /sys only.

`root` stands for the file system's root, so that tests can make up other machines.
"""

import importlib.metadata
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

from feste_dp import __version__
from feste_dp.runtime.cgroup import groups
from feste_dp.runtime.cpus import cpu_name, pin_plan, usable_cpus
from feste_dp.scale.study import Cache, Machine

# Others' share of the CPUs above which timings cannot be trusted.
BUSY = 0.1
_WATCH_S = 1.0
_NO_LIMIT = 1 << 62  # version 1 of control groups writes the largest number of whole pages
_PACKAGES = ("numpy", "numba", "llvmlite", "pyzmq", "torch")


def read_machine(pin: str | list[int], workers: int, root: Path = Path("/")) -> Machine:
    """Takes a second, to see how busy the CPUs are. Raises UsageError where pinning is impossible."""
    cpus = sorted(os.sched_getaffinity(0))
    topology = [root / f"sys/devices/system/cpu/cpu{cpu}" for cpu in cpus]
    siblings = [_cpu_list(_text(path / "topology/thread_siblings_list")) for path in topology]
    sockets = {_text(path / "topology/physical_package_id") for path in topology}
    cgroup_cpus, cgroup_memory = cgroup_limits(root)
    return Machine(
        cpu=cpu_name(root / "proc/cpuinfo"),
        usable_cpus=usable_cpus(),
        physical_cores=min(usable_cpus(), physical_cores(cpus, root)),
        sockets=len(sockets),
        threads_per_core=max([1, *map(len, siblings)]),
        numa_nodes=max(1, len(list((root / "sys/devices/system/node").glob("node[0-9]*")))),
        caches=_caches(topology),
        memory_bytes=_memory(root),
        cgroup_cpus=cgroup_cpus,
        cgroup_memory_bytes=cgroup_memory,
        pin=pin if isinstance(pin, str) else ",".join(map(str, pin)),
        pinned_cpus=pin_plan(pin, workers),
        load_before=_load(root),
        busy_before=busy_share(cpus, root),
        versions=versions(),
    )


def physical_cores(cpus: Sequence[int], root: Path = Path("/")) -> int:
    """How many cores these logical CPUs are, siblings counted once."""
    cores = {
        _text(root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") or str(cpu)
        for cpu in cpus
    }
    return len(cores)


def cgroup_limits(root: Path = Path("/")) -> tuple[float | None, int | None]:
    """The tightest CPU quota, in CPUs, and memory limit, in bytes, of this process's control groups; None
    where there is none."""
    quotas, limits = [], []
    for group in groups("cpu", root):
        if group.version == 2:
            quota, _, period = _text(group.directory / "cpu.max").partition(" ")
        else:
            quota = _text(group.directory / "cpu.cfs_quota_us")
            period = _text(group.directory / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):
            quotas.append(int(quota) / int(period))
    for group in groups("memory", root):
        name = "memory.max" if group.version == 2 else "memory.limit_in_bytes"
        limit = _text(group.directory / name)
        if limit.isdigit() and int(limit) < _NO_LIMIT:
            limits.append(int(limit))
    return min(quotas, default=None), min(limits, default=None)


def busy_share(cpus: Sequence[int], root: Path = Path("/"), seconds: float = _WATCH_S) -> float:
    """Share of the CPUs' time that went to others while this process slept so long; time that a hypervisor
    took away counts. 0 where the kernel does not tell."""
    before = _ticks(cpus, root)
    time.sleep(seconds)
    after = _ticks(cpus, root)
    total = after[1] - before[1]
    return (after[0] - before[0]) / total if total > 0 else 0.0


class Bystanders:
    """What others took of the CPUs since this was made: the CPUs' busy time less that of this process and of
    its children that have ended."""

    def __init__(self, cpus: Sequence[int], root: Path = Path("/")) -> None:
        self._cpus, self._root = cpus, root
        self._busy, self._total = _ticks(cpus, root)
        self._own = _own_ticks()

    def share(self) -> float:
        """0 where the kernel does not tell."""
        busy, total = _ticks(self._cpus, self._root)
        passed = total - self._total
        others = (busy - self._busy) - (_own_ticks() - self._own)
        return min(1.0, max(0.0, others / passed)) if passed > 0 else 0.0


def _own_ticks() -> float:
    return sum(os.times()[:4]) * os.sysconf("SC_CLK_TCK")


def versions() -> dict[str, str]:
    """Of feste-dp, of what computes with it, and of the kernel."""
    found = {"feste-dp": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found | {"linux": platform.release()}


def _caches(topology: Sequence[Path]) -> list[Cache]:
    """Each kind of cache that the CPUs have, the nearest first."""
    found: dict[tuple[int, str, int, int], set[str]] = {}
    for cpu in topology:
        for index in sorted((cpu / "cache").glob("index*")):
            level, size = _text(index / "level"), _text(index / "size")
            shared = _text(index / "shared_cpu_list")
            if not level.isdigit() or size[-1:] not in ("K", "M"):
                continue
            size_bytes = int(size[:-1]) * {"K": 1 << 10, "M": 1 << 20}[size[-1]]
            key = (int(level), _text(index / "type"), size_bytes, len(_cpu_list(shared)))
            found.setdefault(key, set()).add(shared)
    return [Cache(*key, instances=len(instances)) for key, instances in sorted(found.items())]


def _cpu_list(text: str) -> list[int]:
    """The numbers of `0-2,8`."""
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            numbers.extend(range(int(first), int(last or first) + 1))
    return numbers


def _ticks(cpus: Sequence[int], root: Path) -> tuple[int, int]:
    """Busy and all ticks of the CPUs since the start of the machine."""
    busy = total = 0
    for line in _text(root / "proc/stat").splitlines():
        name, *fields = line.split()
        if name.removeprefix("cpu").isdigit() and int(name[3:]) in cpus:
            # user nice system idle iowait irq softirq steal; guest time is in user already
            numbers = list(map(int, fields[:8]))
            total += sum(numbers)
            busy += sum(numbers) - sum(numbers[3:5])
    return busy, total


def _load(root: Path) -> float:
    words = _text(root / "proc/loadavg").split()
    return float(words[0]) if words else 0.0


def _memory(root: Path) -> int:
    for line in _text(root / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def _text(path: Path) -> str:
    """What a small file says; empty where it is not there."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
