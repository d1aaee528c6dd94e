"""What the control groups above this process allow and what they have counted. Reads files, changes nothing.

Version 2 has one hierarchy (`0::/path`), version 1 one per controller (`4:memory:/path`); a machine may have
both. Each limit holds for the group that has it and all below, so every group from the process's own up to
the root of the mount is looked at. A container may see its own group as that root, while /proc still names
the path outside: a directory that is not there is passed over.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from feste_dp.machine.proc import counters, number_in

UNLIMITED = 1 << 128  # more than any need that can be counted
_MOUNT = Path("sys/fs/cgroup")
_NO_LIMIT = 1 << 62  # version 1 writes the largest number of whole pages where there is no limit


class Group(NamedTuple):
    """A group of one controller, and which version's files it has."""

    directory: Path
    version: int


def groups(controller: str, root: Path = Path("/")) -> Iterator[Group]:
    """The groups that hold for this process, its own first, in version 2 and in version 1."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            for mount in (_MOUNT, _MOUNT / "unified"):
                yield from (Group(place, 2) for place in _upwards(root / mount, path))
        elif controller in controllers.split(","):
            for mount in dict.fromkeys((_MOUNT / controllers, _MOUNT / controller)):
                yield from (Group(place, 1) for place in _upwards(root / mount, path))


def memory_left(root: Path = Path("/")) -> int:
    """Bytes below the tightest memory limit, UNLIMITED without one. Page cache that can be dropped does not
    count as used."""
    names = {
        2: ("memory.max", "memory.current", "inactive_file"),
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    }
    left = UNLIMITED
    for group in groups("memory", root):
        limit_name, used_name, droppable_name = names[group.version]
        limit, used = number_in(group.directory / limit_name), number_in(group.directory / used_name)
        counted = counters(group.directory / "memory.stat")
        if limit is not None and limit < _NO_LIMIT and used is not None and counted is not None:
            left = min(left, max(0, limit - used + counted.get(droppable_name, 0)))
    return left


def memory_limit(root: Path = Path("/")) -> int | None:
    """Bytes of the tightest memory limit, None without one."""
    names = {2: "memory.max", 1: "memory.limit_in_bytes"}
    limits = [number_in(group.directory / names[group.version]) for group in groups("memory", root)]
    return min((limit for limit in limits if limit is not None and limit < _NO_LIMIT), default=None)


def cpu_limit(root: Path = Path("/")) -> float | None:
    """CPUs of the tightest quota, None without one."""
    quotas = []
    for group in groups("cpu", root):
        if group.version == 2:
            limit, period = _pair(group.directory / "cpu.max")
        else:
            limit = number_in(group.directory / "cpu.cfs_quota_us")
            period = number_in(group.directory / "cpu.cfs_period_us")
        if limit is not None and period and limit > 0:
            quotas.append(limit / period)
    return min(quotas, default=None)


def cpu_quota(root: Path = Path("/")) -> int:
    """Whole CPUs of the tightest quota, rounded up; UNLIMITED without one."""
    limit = cpu_limit(root)
    return UNLIMITED if limit is None else math.ceil(limit)


def processes_left(root: Path = Path("/")) -> int:
    """Processes and threads below the tightest limit on their number, UNLIMITED without one."""
    left = UNLIMITED
    for group in groups("pids", root):
        limit, used = number_in(group.directory / "pids.max"), number_in(group.directory / "pids.current")
        if limit is not None and used is not None:
            left = min(left, max(0, limit - used))
    return left


def oom_kills(root: Path = Path("/")) -> int | None:
    """Processes killed for memory in this process's own group since it was made; None where nothing counts.

    A group's memory.events includes those below it, so the topmost that can be read would count the rest of
    the machine too.
    """
    names = {2: "memory.events", 1: "memory.oom_control"}
    for group in groups("memory", root):
        counted = counters(group.directory / names[group.version])
        if counted is not None and "oom_kill" in counted:
            return counted["oom_kill"]
    return None


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    directory = mount / path.lstrip("/")
    while directory.is_relative_to(mount):
        yield directory
        directory = directory.parent


def _pair(path: Path) -> tuple[int | None, int | None]:
    try:
        first, second = path.read_text().split()
        return int(first), int(second)
    except (OSError, ValueError):
        return None, None
