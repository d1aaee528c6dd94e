"""Who has which part of a phase's work, what is done, and what a lost worker leaves to others. Pure.

An item is a shard, a stripe or a unit of validation. Items may be computed twice: each overwrites its own
place with the same bits, so the first report counts and later ones are ignored.
"""

from collections.abc import Hashable, Iterable, Sequence
from itertools import pairwise
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)
Result = TypeVar("Result")


def split_evenly(items: Sequence[Item], workers: Sequence[int]) -> dict[int, list[Item]]:
    """Contiguous parts, as equal as can be, for each worker in turn; a worker may get none."""
    count = len(workers)
    return {
        worker: list(items[len(items) * i // count : len(items) * (i + 1) // count])
        for i, worker in enumerate(workers)
    }


def split_range(count: int, parts: int) -> list[tuple[int, int]]:
    """(first, last + 1) of contiguous parts of 0 .. count - 1, as equal as can be; none is empty."""
    cuts = [count * part // parts for part in range(parts + 1)]
    return [(first, stop) for first, stop in pairwise(cuts) if first < stop]


class Ledger(Generic[Item, Result]):
    """The items of one phase of one step, and who holds each.

    An item has one holder at a time, and only the holder's report counts: whoever held it before has ended,
    but what it said last may still be on its way while the next one overwrites the same place.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self._holder: dict[Item, int | None] = dict.fromkeys(items)
        self._results: dict[Item, Result] = {}
        self.untouched = True
        """Whether nothing has been assigned yet."""

    def assign(self, parts: dict[int, list[Item]]) -> None:
        self.untouched = False
        for worker, items in parts.items():
            for item in items:
                self._holder[item] = worker

    def done(self, item: Item, worker: int, result: Result) -> bool:
        """Record a result. False when the item is already done, is not the worker's, or is none of this phase
        (a stale report)."""
        if item in self._results or self._holder.get(item) != worker:
            return False
        self._results[item] = result
        return True

    def unfinished(self, worker: int) -> list[Item]:
        """Items that the worker holds and that are not done, in order."""
        return [
            item for item, holder in self._holder.items() if holder == worker and item not in self._results
        ]

    def free(self) -> list[Item]:
        """Items that nobody holds, in order."""
        return [item for item, holder in self._holder.items() if holder is None]

    def release(self, worker: int) -> list[Item]:
        """Take the unfinished items of a lost worker from it; they are free to be assigned again."""
        items = self.unfinished(worker)
        for item in items:
            self._holder[item] = None
        return items

    @property
    def complete(self) -> bool:
        return len(self._results) == len(self._holder)

    def results(self) -> list[Result]:
        """Results in the order of the items, whoever computed them and whenever they came."""
        return [self._results[item] for item in self._holder]
