"""How the logical CPUs of this machine share cores, sockets and caches."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from feste_dp.machine.proc import numbers_of_list, text_of

_ROOT = Path("/")


@dataclass(frozen=True)
class Cache:
    """One kind of cache."""

    level: int
    kind: str
    bytes: int
    shared_by: int
    """Logical CPUs that share one."""
    instances: int
    """How many of them the usable CPUs have."""


def core_of(cpu: int, root: Path = _ROOT) -> str:
    """What the logical CPUs of one core have in common; a core of its own where the kernel does not tell."""
    return text_of(_directory(cpu, root) / "topology/thread_siblings_list") or str(cpu)


def physical_cores(cpus: Sequence[int], root: Path = _ROOT) -> int:
    """How many cores these logical CPUs are, siblings counted once."""
    return len({core_of(cpu, root) for cpu in cpus})


def threads_per_core(cpus: Sequence[int], root: Path = _ROOT) -> int:
    """The most logical CPUs that one core has."""
    return max([1, *(len(numbers_of_list(core_of(cpu, root))) for cpu in cpus)])


def sockets(cpus: Sequence[int], root: Path = _ROOT) -> int:
    return len({text_of(_directory(cpu, root) / "topology/physical_package_id") for cpu in cpus})


def numa_nodes(root: Path = _ROOT) -> int:
    return max(1, len(list((root / "sys/devices/system/node").glob("node[0-9]*"))))


def caches(cpus: Sequence[int], root: Path = _ROOT) -> list[Cache]:
    """Each kind of cache that the CPUs have, the nearest first."""
    found: dict[tuple[int, str, int, int], set[str]] = {}
    for cpu in cpus:
        for index in sorted((_directory(cpu, root) / "cache").glob("index*")):
            level, size = text_of(index / "level"), text_of(index / "size")
            shared = text_of(index / "shared_cpu_list")
            if not level.isdigit() or size[-1:] not in ("K", "M"):
                continue
            size_bytes = int(size[:-1]) * {"K": 1 << 10, "M": 1 << 20}[size[-1]]
            key = (int(level), text_of(index / "type"), size_bytes, len(numbers_of_list(shared)))
            found.setdefault(key, set()).add(shared)
    return [Cache(*key, instances=len(instances)) for key, instances in sorted(found.items())]


def _directory(cpu: int, root: Path) -> Path:
    return root / f"sys/devices/system/cpu/cpu{cpu}"
