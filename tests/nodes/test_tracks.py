"""The traces of several nodes, put on one clock, over links in one process."""

import time
from collections.abc import Callable

import pytest

from feste_dp.nodes import tracks
from feste_dp.nodes.link import Link
from feste_dp.nodes.tracks import ClockReading, Events, Tracks, of_node, onto_first, read_clocks
from tests.nodes.wires import Wires, linked

AHEAD = [0.0, 5000.0, -300.0]
"""Seconds that the clock of each node is ahead of the first's: machines count from their start."""


def clock_of(node: int) -> Callable[[], float]:
    return lambda: time.perf_counter() + AHEAD[node]


def test_how_far_clocks_are_apart_is_known_to_half_of_what_an_answer_takes() -> None:
    ends = Wires(3, delay=lambda source, to, tag: 1e-3).ends()

    def read(link: Link) -> ClockReading:
        return read_clocks(link, ends[link.rank], clock_of(link.rank))

    reading = linked(ends, read)[0]
    assert reading.ahead[0] == 0.0
    assert 1e-3 <= reading.within < 0.1
    for found, true in zip(reading.ahead, AHEAD, strict=True):
        assert abs(found - true) <= reading.within


def events_at(seconds: float) -> Events:
    """A slice of a worker that begins at this time of its machine's clock, and an end of a flow."""
    own = {"pid": 77, "tid": 77}
    return [
        own | {"ph": "M", "name": "process_name", "ts": 0, "args": {"name": "worker 0"}},
        own | {"ph": "M", "name": "process_sort_index", "ts": 0, "args": {"sort_index": 1}},
        own | {"ph": "X", "name": "compute", "cat": "phase", "ts": 1e6 * seconds, "dur": 5.0},
        own | {"ph": "s", "name": "Compute", "cat": "message", "id": "0 Compute 7", "ts": 1e6 * seconds},
    ]


def test_what_happens_at_one_moment_on_all_nodes_does_so_in_the_trace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracks, "_PIECE_BYTES", 100)
    ends = Wires(3).ends()
    moments = [0.0] * 3

    def trace(link: Link) -> tuple[Events, float]:
        clock = clock_of(link.rank)
        together = Tracks(link, ends[link.rank], clock)
        time.sleep(0.05)
        link.meet()
        moments[link.rank] = time.perf_counter()
        events = events_at(clock())
        time.sleep(0.05)
        return together.gather(events), together.within_s

    (found, within), *others = linked(ends, trace)
    assert all(events == [] for events, _ in others)
    slices = [event for event in found if event["ph"] == "X"]
    for node in (1, 2):
        apart = 1e-6 * (slices[node]["ts"] - slices[0]["ts"])
        assert abs(apart - (moments[node] - moments[0])) <= within + 2e-3
    names = [event["args"]["name"] for event in found if event["name"] == "process_name"]
    assert names == ["node 0 worker 0", "node 1 worker 0", "node 2 worker 0"]
    assert len({event["pid"] for event in found}) == 3
    assert len({event["id"] for event in found if "id" in event}) == 3


def test_a_clock_that_runs_fast_is_put_right_between_the_readings() -> None:
    before = ClockReading([100.0, 100.0], [0.0, 50.0], 0.0)
    after = ClockReading([200.0, 200.0], [0.0, 50.1], 0.0)
    shift = onto_first(before, after, 1)
    for first, own in ((100.0, 150.0), (150.0, 200.05), (200.0, 250.1), (90.0, 140.0)):
        assert shift(1e6 * own) == pytest.approx(1e6 * first, abs=100.0)
    assert shift(1e6 * 200.05) == pytest.approx(1e6 * 150.0, abs=60.0)
    assert onto_first(before, after, 0)(7.0) == 7.0


def test_tracks_of_a_node_stand_together_in_their_own_order() -> None:
    placed = of_node(events_at(1.0), 2, "node 2 (gamma)", lambda ts: ts - 10.0)
    assert placed[0]["args"] == {"name": "node 2 (gamma) worker 0"}
    assert placed[1]["args"] == {"sort_index": 2001}
    assert placed[2]["ts"] == 1e6 - 10.0 and placed[0]["ts"] == 0
