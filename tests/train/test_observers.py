"""What only watches cannot end a run: each fault of it is told once."""

import io
from pathlib import Path

import pytest

from feste_dp.run.history import History
from feste_dp.run.log import RunLog
from feste_dp.run.metrics import MetricsRow
from feste_dp.run.screen import Progress
from feste_dp.run.step_times import StepTimes
from feste_dp.runtime.gathering import Notice
from feste_dp.train.notices import teller
from feste_dp.train.observers import Observers
from feste_dp.train.observing import Observing
from feste_dp.train.signals import Abandoned
from feste_dp.train.step import StepResult
from feste_dp.train.stragglers import Stragglers

ROW = MetricsRow(7, 1.0, 1e-3, 4.0, 1.0, 100.0, val_loss=4.0, sample="To be")
RESULT = StepResult(4.0, 1.0, 1e-3, StepTimes(0.1, [0.1, 0.1], [0.01], 0.01, [4, 4]))


class Broken:
    """Every method of it raises."""

    def __getattr__(self, name: str) -> object:
        def method(*arguments: object, **named: object) -> None:
            raise ZeroDivisionError("float division by zero")

        return method


class Shown(Progress):
    def __init__(self) -> None:
        super().__init__(io.StringIO(), io.StringIO())
        self.warnings: list[str] = []

    def warning(self, text: str) -> None:
        self.warnings.append(text)


def use_all(observers: Observers) -> None:
    observers.remember(5, [4.0, 4.1])
    for step in (6, 7):
        observers.step(step, RESULT)
        observers.row(ROW, 10, True)
        observers.event(step, "best", "the best so far")
        observers.tell("something")
        observers.warn("something bad")
        observers.note("for the log")


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        ("_progress", ["the display"]),
        ("_log", ["the log"]),
        ("_history", ["the record of times", "the history"]),
        ("_stragglers", ["the watch for slow workers"]),
        ("_spikes", ["the watch for loss spikes"]),
    ],
)
def test_an_observer_that_raises_is_one_warning(broken: str, named: list[str], tmp_path: Path) -> None:
    shown = Shown()
    with History(tmp_path / "events.jsonl", shown.warning) as history:
        observers = Observers(shown, RunLog(tmp_path / "log.txt"), history, Stragglers())
        setattr(observers, broken, Broken())
        use_all(observers)
        history.event(7, "finish")
    told = [line for line in shown.warnings if line != "something bad"]
    assert told == [
        f"{name} failed, the run goes on: ZeroDivisionError: float division by zero" for name in named
    ]


def test_all_observers_may_be_broken_at_once() -> None:
    use_all(Observers(Broken(), Broken(), Broken(), Broken()))  # type: ignore[arg-type]


def test_a_request_to_stop_passes() -> None:
    with pytest.raises(Abandoned), Observing()("anything"):
        raise Abandoned(lambda: None)


def test_a_notice_that_cannot_be_told_does_not_end_the_step_it_comes_in() -> None:
    shown = Shown()
    tell = teller(shown, None, Broken())  # type: ignore[arg-type]
    tell(Notice("lost", 1, "worker 1 was killed"))
    tell(Notice("lost", 2, "worker 2 was killed"))
    assert [line.partition(" failed")[0] for line in shown.warnings] == [
        "worker 1 was killed",
        "telling what happens to the workers",
        "worker 2 was killed",
    ]
