"""Which workers are slower than the others, told once when it has lasted, and once when it is over. Pure.

Workers may hold different numbers of shards, so seconds a shard are compared, each worker's with the median
of the others. A worker alone is compared with nobody.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

SLOW_FACTOR = 1.5  # two workers on the hardware threads of one core are 1.3 to 1.6 times slower, both of them
RECOVERED_FACTOR = 1.2
# A few slow steps are a neighbour's burst; so many in a row, that took so long, are a worker that is slow.
STEPS_TO_TELL = 20
SECONDS_TO_TELL = 10.0
REPORT_EVERY = 100
_LEAST_SECONDS = 1e-3  # a shard; below that the scheduler's own noise decides


class Verdict(NamedTuple):
    """That a worker is slow, or no longer, in a line."""

    slow: bool
    line: str


@dataclass
class _Stretch:
    """Steps in a row of which something holds, and the worker's seconds in them."""

    steps: int = 0
    seconds: float = 0.0

    def add(self, holds: bool, seconds: float) -> None:
        self.steps = self.steps + 1 if holds else 0
        self.seconds = self.seconds + seconds if holds else 0.0


class Stragglers:
    """Fed with every step's times; says what is worth a warning, and a line for the log every so often."""

    def __init__(
        self,
        steps_to_tell: int = STEPS_TO_TELL,
        seconds_to_tell: float = SECONDS_TO_TELL,
        report_every: int = REPORT_EVERY,
    ) -> None:
        self._steps_to_tell, self._seconds_to_tell = steps_to_tell, seconds_to_tell
        self._report_every = report_every
        self._slow: dict[int, _Stretch] = {}
        self._fast: dict[int, _Stretch] = {}
        self._named: set[int] = set()
        self._recent: list[list[float]] = []

    @property
    def named(self) -> frozenset[int]:
        """The workers that are held to be slow now."""
        return frozenset(self._named)

    def add(self, worker_seconds: Sequence[float], worker_shards: Sequence[int]) -> list[Verdict]:
        """A step in which each worker computed so many shards in so many seconds; what that decides.

        A worker without a shard says nothing about itself.
        """
        self._recent.append(list(worker_seconds))
        per_shard = {
            worker: seconds / shards
            for worker, (seconds, shards) in enumerate(zip(worker_seconds, worker_shards, strict=True))
            if shards > 0
        }
        verdicts = []
        in_order = sorted(per_shard.values())
        for worker, seconds in per_shard.items():
            if len(in_order) > 1:
                ratio = seconds / max(_median_without(in_order, seconds), 1e-9)
                verdicts += self._judge(worker, seconds, ratio, worker_seconds[worker])
        return verdicts

    def _judge(self, worker: int, seconds: float, ratio: float, in_step: float) -> list[Verdict]:
        slow = self._slow.setdefault(worker, _Stretch())
        fast = self._fast.setdefault(worker, _Stretch())
        slow.add(ratio >= SLOW_FACTOR and seconds >= _LEAST_SECONDS, in_step)
        fast.add(ratio < RECOVERED_FACTOR or seconds < _LEAST_SECONDS, in_step)
        if worker not in self._named and self._lasts(slow):
            self._named.add(worker)
            line = (
                f"worker {worker} has been slow for {slow.steps} steps: {1000 * seconds:.3g} ms a shard, "
                f"{ratio:.1f} times the median of the others; look at what else runs on its CPU"
            )
            return [Verdict(True, line)]
        if worker in self._named and self._lasts(fast):
            self._named.discard(worker)
            return [Verdict(False, f"worker {worker} is as fast as the others again")]
        return []

    def _lasts(self, stretch: "_Stretch") -> bool:
        return stretch.steps >= self._steps_to_tell and stretch.seconds >= self._seconds_to_tell

    def forget(self, worker: int) -> None:
        """Another process has this worker's number now."""
        self._named.discard(worker)
        self._slow.pop(worker, None)
        self._fast.pop(worker, None)

    def report(self) -> str | None:
        """The mean compute time of each worker a step, once every so many steps; None in between."""
        if len(self._recent) < self._report_every:
            return None
        width = max(map(len, self._recent))
        means = []
        for worker in range(width):
            times = [step[worker] for step in self._recent if worker < len(step)]
            means.append(f"{worker}: {1000 * sum(times) / len(times):.3g}")
        line = f"compute, ms a step over {len(self._recent)} steps, by worker: {', '.join(means)}"
        self._recent.clear()
        return line


def _median_without(in_order: Sequence[float], value: float) -> float:
    """The median of the sorted numbers but for one that is `value`, without a list of the others for each."""
    out = bisect_left(in_order, value)
    low, high = ((len(in_order) - 2) // 2, (len(in_order) - 1) // 2)  # the middle of one fewer
    return (in_order[low + (low >= out)] + in_order[high + (high >= out)]) / 2
