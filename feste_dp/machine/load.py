"""How busy the machine is with other work than ours."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from feste_dp.machine.proc import text_of

_WATCH_S = 1.0


def busy_share(cpus: Sequence[int], root: Path = Path("/"), seconds: float = _WATCH_S) -> float:
    """Share of the CPUs' time that went to others while this process slept so long; time that a hypervisor
    took away counts. 0 where the kernel does not tell."""
    before = _ticks(cpus, root)
    time.sleep(seconds)
    after = _ticks(cpus, root)
    total = after[1] - before[1]
    return (after[0] - before[0]) / total if total > 0 else 0.0


class OtherWork:
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


def load_average(root: Path = Path("/")) -> float:
    """Over one minute."""
    words = text_of(root / "proc/loadavg").split()
    return float(words[0]) if words else 0.0


def _ticks(cpus: Sequence[int], root: Path) -> tuple[int, int]:
    """Busy and all ticks of the CPUs since the start of the machine."""
    busy = total = 0
    for line in text_of(root / "proc/stat").splitlines():
        name, *fields = line.split()
        if name.removeprefix("cpu").isdigit() and int(name[3:]) in cpus:
            # user nice system idle iowait irq softirq steal; guest time is in user already
            numbers = list(map(int, fields[:8]))
            total += sum(numbers)
            busy += sum(numbers) - sum(numbers[3:5])
    return busy, total
