"""What the control groups above this process allow and what they have counted. Reads files, changes nothing.

Version 2 has one hierarchy (`0::/path`), version 1 one per controller (`4:memory:/path`); a machine may have
both. Each limit holds for the group that has it and all below, so every group from the process's own up to
the root of the mount is looked at. A container may see its own group as that root, while /proc still names
the path outside: a directory that is not there is passed over.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

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
        limit, used = _number(group.directory / limit_name), _number(group.directory / used_name)
        counted = _statistics(group.directory / "memory.stat")
        if limit is not None and limit < _NO_LIMIT and used is not None and counted is not None:
            left = min(left, max(0, limit - used + counted.get(droppable_name, 0)))
    return left


def cpu_quota(root: Path = Path("/")) -> int:
    """Whole CPUs of the tightest quota, rounded up; UNLIMITED without one."""
    quota = UNLIMITED
    for group in groups("cpu", root):
        if group.version == 2:
            limit, period = _pair(group.directory / "cpu.max")
        else:
            limit = _number(group.directory / "cpu.cfs_quota_us")
            period = _number(group.directory / "cpu.cfs_period_us")
        if limit is not None and period and limit > 0:
            quota = min(quota, -(-limit // period))
    return quota


def processes_left(root: Path = Path("/")) -> int:
    """Processes and threads below the tightest limit on their number, UNLIMITED without one."""
    left = UNLIMITED
    for group in groups("pids", root):
        limit, used = _number(group.directory / "pids.max"), _number(group.directory / "pids.current")
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
        counted = _statistics(group.directory / names[group.version])
        if counted is not None and "oom_kill" in counted:
            return counted["oom_kill"]
    return None


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    directory = mount / path.lstrip("/")
    while directory.is_relative_to(mount):
        yield directory
        directory = directory.parent


def _number(path: Path) -> int | None:
    """The number in a file; None for `max`, for nonsense and where there is no such file."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _pair(path: Path) -> tuple[int | None, int | None]:
    try:
        first, second = path.read_text().split()
        return int(first), int(second)
    except (OSError, ValueError):
        return None, None


def _statistics(path: Path) -> dict[str, int] | None:
    """The lines `name 123` of a file; None where it cannot be read or holds anything else."""
    try:
        words = [line.split() for line in path.read_text().splitlines()]
        return {name: int(number) for name, number in words}
    except (OSError, ValueError):
        return None
