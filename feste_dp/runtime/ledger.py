"""Who has which part of a phase's work, what is done, and what a lost worker leaves to others. Pure.

An item is a shard, a chunk of the sum or a unit of validation, and has a number. Items are dealt and reported
in runs, (first, last + 1): a report costs the same however many items the phase has. Items may be computed
twice: each overwrites its own place with the same bits, so the first report counts and later ones do not.
"""

from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TypeAlias

Run: TypeAlias = tuple[int, int]


def split_range(count: int, parts: int) -> list[Run]:
    """Contiguous parts of 0 .. count - 1, as equal as can be; none is empty."""
    cuts = [count * part // parts for part in range(parts + 1)]
    return [(first, stop) for first, stop in pairwise(cuts) if first < stop]


def numbers_of(runs: Iterable[Run]) -> str:
    """How the items of some runs are named in a line: 0, 1, 5 to 4000."""
    return ", ".join(
        f"{first} to {stop - 1}" if stop - first > 2 else ", ".join(map(str, range(first, stop)))
        for first, stop in runs
    )


class Ledger:
    """The items of one phase of one step, who holds each, and the losses that were reported.

    An item has one holder at a time, and only the holder's report counts: whoever held it before has ended,
    but what it said last may still be on its way while the next one overwrites the same place.
    """

    def __init__(self, count: int, together: int = 1) -> None:
        """Items are dealt, and done again, in aligned runs of `together`, which divides their number."""
        self._left = self._count = count
        self._together = together
        self._free: deque[Run] = deque([(0, count)] if count else [])
        self._free_count, self._untouched = count, True
        # a worker is given one run and does it from front to back; reports by way of letterbox and socket may
        # overtake each other, so that for a moment the rest of it is a few runs
        self._held: dict[int, list[Run]] = {}
        self._losses = array("d", bytes(8 * count))
        self.seconds: dict[int, float] = {}
        """How long each worker says that its items took."""
        self.counts: dict[int, int] = {}
        """How many each has done."""

    def deal(self, idle: Sequence[int], workers: int) -> dict[int, Run]:
        """Give what nobody holds to workers that hold nothing: all of it in equal parts at the start; of what
        a lost worker left half an equal part at a time, so that its replacement, one of `workers`, gets some.
        """
        together = self._together
        cuts = split_range(self._count // together, len(idle)) if self._untouched else []
        parts: dict[int, Run] = {}
        for number, worker in enumerate(idle):
            if self._free:
                most = max(1, self._free_count // together // (2 * workers))
                parts[worker] = self._take(together * (cuts[number][1] - cuts[number][0] if cuts else most))
        self._untouched = False
        for worker, run in parts.items():
            self._held[worker] = [run]
        return parts

    def _take(self, most: int) -> Run:
        first, last = self._free.popleft()
        stop = min(last, first + most)
        if stop < last:
            self._free.appendleft((stop, last))
        self._free_count -= stop - first
        return first, stop

    def done(
        self, worker: int, first: int, last: int, losses: Sequence[float] = (), seconds: float = 0.0
    ) -> bool:
        """Record a run as done. False when any of it is not the worker's, already done, or none of this phase
        (a stale report)."""
        held = self._held.get(worker, [])
        around = next((run for run in held if run[0] <= first < last <= run[1]), None)
        if around is None:
            return False
        place = held.index(around)
        held[place : place + 1] = [run for run in ((around[0], first), (last, around[1])) if run[0] < run[1]]
        self._left -= last - first
        if losses:
            self._losses[first:last] = array("d", losses)
        self.seconds[worker] = self.seconds.get(worker, 0.0) + seconds
        self.counts[worker] = self.counts.get(worker, 0) + last - first
        return True

    def holds(self, worker: int) -> bool:
        """Whether the worker has anything to do."""
        return bool(self._held.get(worker))

    @property
    def has_free(self) -> bool:
        """Whether there is anything that nobody holds."""
        return bool(self._free)

    def unfinished(self, worker: int, item: int = -1) -> int | None:
        """The item that the worker was at: `item`, where it holds that, else the first that it has to do."""
        held = sorted(self._held.get(worker, []))
        if any(first <= item < stop for first, stop in held):
            return item
        return held[0][0] if held else None

    def release(self, worker: int) -> list[Run]:
        """Take the unfinished items of a lost worker from it, and those that are of no use without them; they
        are free to be dealt again."""
        again: list[Run] = []
        for first, stop in sorted(self._held.pop(worker, [])):
            whole = first - first % self._together, -(-stop // self._together) * self._together
            self._left -= stop - first
            if again and again[-1][1] >= whole[0]:
                whole = again.pop()[0], whole[1]
            again.append(whole)
        count = sum(stop - first for first, stop in again)
        self._left += count
        self._free.extend(again)
        self._free_count += count
        return again

    @property
    def complete(self) -> bool:
        return self._left == 0

    def losses(self) -> list[float]:
        """In the order of the items, whoever computed them and whenever they came."""
        return self._losses.tolist()
