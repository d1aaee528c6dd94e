"""The trace of several nodes as one: each sends its events to the first, which puts them on its own clock.

Clocks are time.perf_counter, which counts from another moment on every machine and a little faster or slower.
How far apart they are is measured before the steps and after them, by words that go and come back: the answer
was given in the middle, up to half of what the quickest took.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from feste_dp.nodes.link import Link
from feste_dp.nodes.transport import Transport

Events = list[dict[str, Any]]
Clock = Callable[[], float]

_ASK, _ANSWER, _EVENTS = 6, 7, 8
_ROUNDS = 100
_PIECE_BYTES = 4 << 20
_PIDS = 1 << 22
"""More than Linux gives; the process ids of two machines may be the same."""
_MOST_PROCESSES = 1000  # of a node: for the order of the tracks


@dataclass(frozen=True)
class ClockReading:
    """How far each node's clock was ahead of the first's, when that showed `at`."""

    at: list[float]
    ahead: list[float]
    within: float
    """Half of what an answer took, at the node that took longest."""


class Tracks:
    """All nodes make one before the steps, and call gather after them."""

    def __init__(self, link: Link, transport: Transport, clock: Clock = time.perf_counter) -> None:
        """Takes clock readings; events are by the same clock."""
        self._link, self._transport, self._clock = link, transport, clock
        self._before = read_clocks(link, transport, clock)
        self.within_s = 0.0
        """How near the clocks of all nodes are put to the first's."""

    def gather(self, events: Events) -> Events:
        """On the first those of all nodes, each track with the name of its node; elsewhere nothing. Raises
        NodeLostError."""
        after = read_clocks(self._link, self._transport, self._clock)
        self.within_s = max(self._before.within, after.within)
        found: Events = []
        contents = self._contents(json.dumps(events).encode())
        for node, content in enumerate(contents):
            shift = onto_first(self._before, after, node)
            found += of_node(json.loads(content), node, self._link.names[node], shift)
        return found

    def _contents(self, own: bytes) -> list[bytes]:
        """What each node gives, on the first."""
        link, transport = self._link, self._transport
        lengths = link.gather(len(own))
        if not link.is_first:
            for first in range(0, len(own), _PIECE_BYTES):
                link.wait_for([transport.send(own[first : first + _PIECE_BYTES], 0, _EVENTS)])
            return []
        contents = [own]
        for node, length in enumerate(lengths[1:], start=1):
            buffer = np.empty(length, np.uint8)
            for first in range(0, length, _PIECE_BYTES):
                link.wait_for([transport.receive(buffer[first : first + _PIECE_BYTES], node, _EVENTS)])
            contents.append(buffer.tobytes())
        return contents


def read_clocks(link: Link, transport: Transport, clock: Clock = time.perf_counter) -> ClockReading:
    """All nodes call it; what it returns means something on the first. Raises NodeLostError."""
    at, ahead, told, within = [clock()], [0.0], np.zeros(1), 0.0
    for node in range(1, link.size):
        link.meet()
        if link.is_first:
            quickest, apart = min(_ask(link, transport, node, told, clock) for _ in range(_ROUNDS))
            at.append(clock())
            ahead.append(apart)
            within = max(within, quickest / 2)
        elif link.rank == node:
            for _ in range(_ROUNDS):
                link.wait_for([transport.receive(told, 0, _ASK)])
                told[0] = clock()
                link.wait_for([transport.send(told, 0, _ANSWER)])
    return ClockReading(at, ahead, within)


def of_node(events: Events, node: int, name: str, shift: Callable[[float], float]) -> Events:
    """Events as they are among those of other nodes: on the first's clock, with process ids, flows and names
    of their own."""
    found = []
    for event in events:
        own = event | {"pid": node * _PIDS + event["pid"], "tid": node * _PIDS + event["tid"]}
        if event["ph"] != "M":
            own["ts"] = shift(event["ts"])
        elif event["name"] == "process_name":
            own["args"] = {"name": f"{name} {event['args']['name']}"}
        elif event["name"] == "process_sort_index":
            own["args"] = {"sort_index": node * _MOST_PROCESSES + event["args"]["sort_index"]}
        if "id" in event:
            own["id"] = f"{node} {event['id']}"
        found.append(own)
    return found


def onto_first(before: ClockReading, after: ClockReading, node: int) -> Callable[[float], float]:
    """Microseconds of this node's clock as those of the first's; between readings clocks run evenly."""
    start, end = 1e6 * before.at[node], 1e6 * after.at[node]
    first, last = 1e6 * before.ahead[node], 1e6 * after.ahead[node]

    def shift(ts: float) -> float:
        passed = (ts - first - start) / max(end - start, 1.0)
        return ts - (first + min(1.0, max(0.0, passed)) * (last - first))

    return shift


def _ask(
    link: Link, transport: Transport, node: int, told: "np.ndarray[Any, Any]", clock: Clock
) -> tuple[float, float]:
    """How long the answer took, and how far that node's clock is ahead."""
    started = clock()
    link.wait_for([transport.send(np.zeros(1), node, _ASK), transport.receive(told, node, _ANSWER)])
    ended = clock()
    return ended - started, float(told[0]) - (started + ended) / 2
