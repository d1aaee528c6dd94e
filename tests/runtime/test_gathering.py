"""What gathering costs, counted: reports need no look at all workers, nor at all items, each."""

import time
from types import SimpleNamespace

import pytest

from feste_dp.runtime import messages as m
from feste_dp.runtime.crew import Said
from feste_dp.runtime.gathering import Gathering, Task
from feste_dp.runtime.ledger import Ledger


class CountedMembers(dict):
    """A dictionary that counts how often all of it is walked through."""

    walks = 0

    def items(self):
        self.walks += 1
        return super().items()


class ReadyCrew:
    """Workers that do what they are told at once; one report at a time is heard, as in a busy run."""

    def __init__(self, workers: int) -> None:
        now = time.monotonic()
        self.members = CountedMembers({worker: SimpleNamespace(heard_at=now) for worker in range(workers)})
        self.orders: list[tuple[int, m.Message]] = []
        self.reports: list[Said] = []

    def ready(self):
        return sorted(self.members)

    def starting(self):
        return []

    def send(self, worker, message):
        self.orders.append((worker, message))
        if isinstance(message, m.Compute):
            for shard in range(message.first, message.last):
                self.reports.append(Said(worker, m.ShardsDone(message.step, shard, (shard / 8,), 0.5)))
        else:
            for first in range(message.first, message.last, m.MAX_LOSSES):
                losses = tuple(unit / 8 for unit in range(first, min(first + m.MAX_LOSSES, message.last)))
                self.reports.append(Said(worker, m.UnitsDone(message.step, first, losses, 0.5)))

    def wait(self, deadline):
        return self.reports.pop()


@pytest.fixture
def gather():
    def gather(workers, items, report, order):
        crew = ReadyCrew(workers)
        ledger = Ledger(items)
        Gathering(crew, workers, 600.0, print).gather(ledger, Task("phase", 1, "item", report, order))
        assert ledger.losses() == [item / 8 for item in range(items)]
        return crew

    return gather


@pytest.mark.parametrize("workers", [2, 16, 256])
def test_all_workers_are_walked_through_as_often_for_256_of_them_as_for_two(gather, workers):
    crew = gather(workers, 256, m.ShardsDone, lambda first, last: m.Compute(1, first, last, 1))
    assert len(crew.orders) == workers
    assert crew.members.walks <= 3


def test_a_million_units_are_ordered_in_as_many_messages_as_there_are_workers(gather):
    crew = gather(4, 1_000_000, m.UnitsDone, lambda first, last: m.Evaluate(1, first, last, 0, 8, 1))
    assert len(crew.orders) == 4 and crew.members.walks <= 3
    assert max(len(m.encode(order)) for _, order in crew.orders) <= m.MAX_ORDER_BYTES
