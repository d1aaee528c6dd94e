"""How fast the links between the nodes are, used as the exchange uses them: all nodes send to all at once."""

import statistics
import time

import numpy as np

from feste_dp.nodes.array_sum import CHUNK_FLOATS, WINDOW
from feste_dp.nodes.link import Link
from feste_dp.nodes.link_speed import LinkSpeed
from feste_dp.nodes.transport import Request, Transport

PROBE_S = 2.0
_PROBE = 5
_LEAST, _MOST_MEETINGS, _MOST_PIECES = 4, 2000, 1 << 14
_FOR_LATENCY = 0.3  # of the time


def measure_links(link: Link, transport: Transport, seconds: float = PROBE_S) -> LinkSpeed:
    """Takes about so long, longer where a few messages do. All nodes call it. Raises NodeLostError."""
    _meetings(link, _LEAST)  # connections are made at the first words
    trial = max(link.gather(_meetings(link, _LEAST)))
    count = int(min(_MOST_MEETINGS, max(_LEAST, _FOR_LATENCY * seconds / max(trial, 1e-6))))
    latency = max(link.gather(_meetings(link, count)))
    _stream(link, transport, _LEAST)
    trial = max(link.gather(_stream(link, transport, _LEAST)))
    count = int(min(_MOST_PIECES, max(_LEAST, (1 - _FOR_LATENCY) * seconds * _LEAST / max(trial, 1e-6))))
    taken = max(link.gather(_stream(link, transport, count)))
    return LinkSpeed(latency, count * 4 * CHUNK_FLOATS * len(link.peers) / max(taken, 1e-9))


def _meetings(link: Link, count: int) -> float:
    """The median time of so many."""
    times = []
    for _ in range(count):
        started = time.perf_counter()
        link.meet()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _stream(link: Link, transport: Transport, pieces: int) -> float:
    """Seconds until every node has so many pieces from every other."""
    given = np.zeros(CHUNK_FLOATS, np.float32)
    taken = np.empty((WINDOW, CHUNK_FLOATS), np.float32)  # who sent it is nobody's concern
    left = {(node, way): pieces for node in link.peers for way in ("to", "from")}
    under_way: dict[tuple[int, str], list[Request]] = {flow: [] for flow in left}

    def advance() -> bool | None:
        happened = False
        for (node, way), requests in under_way.items():
            done = [request for request in requests if request.done()]
            for request in done:
                requests.remove(request)
            while left[node, way] and len(requests) < WINDOW:
                left[node, way] -= 1
                if way == "to":
                    requests.append(transport.send(given, node, _PROBE))
                else:
                    requests.append(transport.receive(taken[left[node, way] % WINDOW], node, _PROBE))
                happened = True
            happened = happened or bool(done)
        if not any(left.values()) and not any(under_way.values()):
            return True
        return False if happened else None

    link.meet()
    started = time.perf_counter()
    link.drive(advance)
    return time.perf_counter() - started
