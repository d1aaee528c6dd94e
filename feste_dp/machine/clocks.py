"""What the clocks of this machine are good for."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from feste_dp.machine.proc import text_of

_READINGS = 2000


@dataclass(frozen=True)
class Clocks:
    """`source` is the kernel's clock source, `governor` how it sets the CPUs' frequency; empty where it does
    not tell."""

    source: str
    reading_s: float
    """What a look at the clock takes."""
    governor: str
    mhz: float | None
    """Of the CPU that runs fastest now."""
    now: float
    """Seconds since 1970."""


def read_clocks(root: Path = Path("/")) -> Clocks:
    source = root / "sys/devices/system/clocksource/clocksource0/current_clocksource"
    cpu = min(os.sched_getaffinity(0))
    governor = root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"
    return Clocks(text_of(source), _reading_s(), text_of(governor), _mhz(root), time.time())


def _reading_s() -> float:
    started = time.perf_counter()
    for _ in range(_READINGS):
        time.perf_counter()
    return (time.perf_counter() - started) / _READINGS


def _mhz(root: Path) -> float | None:
    lines = text_of(root / "proc/cpuinfo").splitlines()
    found = [line.partition(":")[2].strip() for line in lines if line.startswith("cpu MHz")]
    numbers = [float(word) for word in found if word.replace(".", "", 1).isdigit()]
    return max(numbers, default=None)
