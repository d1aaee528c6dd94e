"""A tracker that is slow, stuck or broken costs the run nothing but a warning."""

import threading
from pathlib import Path

import pytest

from feste_dp.run.trackers.courier import Courier
from feste_dp.run.trackers.tracker import RunFacts, Tracker

FACTS = RunFacts(Path("runs/one"), {"train.seed": 1}, "train: {seed: 1}\n", 0)


class Remembering(Tracker):
    name = "remembering"

    def __init__(self) -> None:
        self.calls: list[object] = []

    def start(self, run: RunFacts) -> None:
        self.calls.append(("start", run.name))

    def scalars(self, step: int, values: object) -> None:
        self.calls.append(("scalars", step, values))

    def close(self) -> None:
        self.calls.append("close")


def raising(where: str, error: BaseException) -> Remembering:
    """A tracker of which one method raises."""

    def act(*arguments: object) -> None:
        raise error

    tracker = Remembering()
    setattr(tracker, where, act)
    return tracker


def problems(courier: Courier) -> list[str]:
    found = []
    while (problem := courier.problem()) is not None:
        found.append(problem)
    return found


def test_all_calls_arrive_in_order_before_close_returns() -> None:
    tracker = Remembering()
    courier = Courier(tracker, FACTS)
    for step in range(1, 101):
        courier.send("scalars", step, {"loss": 1.0})
    courier.close()
    steps = [("scalars", step, {"loss": 1.0}) for step in range(1, 101)]
    assert tracker.calls == [("start", "one"), *steps, "close"]
    assert problems(courier) == []


@pytest.mark.parametrize("where", ["start", "scalars", "close"])
@pytest.mark.parametrize("error", [RuntimeError("no\nnetwork"), SystemExit(3), KeyboardInterrupt()])
def test_a_tracker_that_raises_is_named_once_and_left_alone(where: str, error: BaseException) -> None:
    tracker = raising(where, error)
    courier = Courier(tracker, FACTS)
    for step in range(50):
        courier.send("scalars", step, {})
    courier.close()
    (line,) = problems(courier)
    assert line.startswith("tracker remembering failed, the run goes on without it: ")
    assert "\n" not in line
    if str(error) == "no\nnetwork":
        assert line.endswith("no network")
    if where != "close":
        assert tracker.calls == ([] if where == "start" else [("start", "one")])


def test_a_tracker_that_hangs_holds_up_neither_a_step_nor_the_end() -> None:
    hang, hanging = threading.Event(), threading.Event()

    class Hanging(Remembering):
        def scalars(self, step: int, values: object) -> None:
            hanging.set()
            hang.wait()
            super().scalars(step, values)

    tracker = Hanging()
    courier = Courier(tracker, FACTS, queue_size=5)
    courier.send("scalars", 0, {})
    hanging.wait()
    for step in range(1, 1000):
        courier.send("scalars", step, {})
    courier.close(timeout_s=0.05)
    first, second = problems(courier)
    assert first.startswith("tracker remembering does not keep up")
    assert second.startswith("tracker remembering did not end within 0.05 s")
    hang.set()
