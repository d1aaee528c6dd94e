"""What the machine still gives this process now: memory, address space, disk, descriptors, processes.

Measures and judges nothing. `root` is where /proc and /sys are found, another directory in tests.
"""

import os
import resource
import shutil
from dataclasses import dataclass
from pathlib import Path

from feste_dp.machine.cgroup import UNLIMITED, memory_left, processes_left
from feste_dp.machine.proc import sizes


@dataclass(frozen=True)
class Limits:
    """What can still be taken, UNLIMITED where nothing says."""

    memory: int
    """Bytes of memory, over all processes."""
    address_space: int
    """Bytes that one process may still map (ulimit -v)."""
    disk: int
    """Bytes for checkpoints: free ones, and those of the checkpoints that are there, which will make room."""
    descriptors: int
    """Open files in all that one process may have."""
    processes: int
    """Processes and threads that may still be started."""


def measure_limits(checkpoints: Path | None, root: Path = Path("/")) -> Limits:
    """The limits now; checkpoints is the directory they go to, which may not exist yet, None for none."""
    return Limits(
        memory=available_memory(root),
        address_space=_address_space_left(root),
        disk=UNLIMITED if checkpoints is None else free_disk(checkpoints) + _held(checkpoints),
        descriptors=soft_limit(resource.RLIMIT_NOFILE),
        processes=min(_own_processes_left(root), processes_left(root)),
    )


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that can still be taken: MemAvailable, or what a cgroup's limit leaves if that is less."""
    return min(sizes(root / "proc/meminfo").get("MemAvailable", UNLIMITED), memory_left(root))


def total_memory(root: Path = Path("/")) -> int:
    """Bytes of memory that the machine has; 0 where the kernel does not tell."""
    return sizes(root / "proc/meminfo").get("MemTotal", 0)


def free_disk(path: Path) -> int:
    """Bytes an ordinary user may still write where `path` is or would be."""
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        usage = shutil.disk_usage(path)
    except OSError:
        return UNLIMITED
    return usage.free if usage.total else UNLIMITED  # some file systems do not know their size


def soft_limit(kind: int) -> int:
    """One of resource's RLIMIT_.., UNLIMITED where there is none."""
    soft, _ = resource.getrlimit(kind)
    return UNLIMITED if soft == resource.RLIM_INFINITY else soft


def _held(checkpoints: Path) -> int:
    """Bytes of the checkpoints in a directory."""
    try:
        return sum(file.lstat().st_size for file in checkpoints.glob("step-*/*"))
    except OSError:
        return 0


def _address_space_left(root: Path) -> int:
    limit = soft_limit(resource.RLIMIT_AS)
    if limit == UNLIMITED:
        return UNLIMITED
    return max(0, limit - sizes(root / "proc/self/status").get("VmSize", UNLIMITED))


def _own_processes_left(root: Path) -> int:
    """RLIMIT_NPROC counts the threads of all processes of the user; the superuser is not held to it."""
    limit = soft_limit(resource.RLIMIT_NPROC)
    if limit == UNLIMITED or os.getuid() == 0:
        return UNLIMITED
    return max(0, limit - _threads_of(os.getuid(), root))


def _threads_of(user: int, root: Path) -> int:
    count = 0
    for process in (root / "proc").glob("[0-9]*"):
        try:
            if process.stat().st_uid == user:
                count += sum(1 for _ in (process / "task").iterdir())
        except OSError:  # it has ended
            continue
    return count
