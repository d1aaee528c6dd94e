"""What only watches cannot end a run: each fault of it is told once."""

import io
from pathlib import Path

import pytest

from feste_dp.run.history import History
from feste_dp.run.log import RunLog
from feste_dp.run.metrics import MetricsRow
from feste_dp.run.observing import Observing
from feste_dp.run.record import Record
from feste_dp.run.screen import Progress
from feste_dp.run.step_times import StepTimes
from feste_dp.run.trackers.tracker import RunFacts
from feste_dp.runtime.gathering import Notice
from feste_dp.train.observers import Observers
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
    record = observers.record
    observers.remember(5, [4.0, 4.1])
    for step in (6, 7):
        observers.step(step, RESULT)
        record.row(ROW, 10, True)
        record.tell("best", "the best so far", "routine")
        record.tell("early_stop", "something")
        record.warn("something bad")
        record.note("for the log")
        observers.notice(Notice("lost", 1, "worker 1 was killed", "a\ntrace"))


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        ("_progress", ["the display"]),
        ("_log", ["the log"]),
        ("_history", ["the record of times", "the history"]),
        ("_stragglers", ["the watch for slow workers", "telling what happens to the workers"]),
        ("_spikes", ["the watch for loss spikes"]),
    ],
)
def test_an_observer_that_raises_is_one_warning(broken: str, named: list[str], tmp_path: Path) -> None:
    shown = Shown()
    with History(tmp_path / "events.jsonl", shown.warning) as history:
        observers = Observers(Record(shown))
        history.open(RunFacts(tmp_path, {}, "", 5))
        observers.record.log_to(RunLog(tmp_path / "log.txt"))
        observers.record.begin(history, "start", "begun")
        setattr(observers if broken in ("_stragglers", "_spikes") else observers.record, broken, Broken())
        use_all(observers)
        history.event(7, "finish")
    told = [line for line in shown.warnings if line not in ("something bad", "worker 1 was killed")]
    assert told == [
        f"{name} failed, the run goes on: ZeroDivisionError: float division by zero" for name in named
    ]


def test_all_observers_may_be_broken_at_once() -> None:
    observers = Observers(Record(Broken()), Broken())  # type: ignore[arg-type]
    observers.record._log, observers.record._history = Broken(), Broken()  # type: ignore[assignment]
    use_all(observers)


def test_a_request_to_stop_passes() -> None:
    with pytest.raises(Abandoned), Observing()("anything"):
        raise Abandoned(lambda: None)


@pytest.mark.parametrize("kind", ["lost", "slow", "back", "dropped"])
def test_the_next_worker_with_the_number_of_one_that_is_lost_begins_with_a_good_name(kind) -> None:
    stragglers = Stragglers(steps_to_tell=1, seconds_to_tell=0)
    assert stragglers.add([0.2, 0.6, 0.2], [1, 1, 1])
    observers = Observers(Record(Shown()), stragglers)
    observers.notice(Notice(kind, 0, "worker 0"))
    assert stragglers.named == {1}
    observers.notice(Notice(kind, 1, "worker 1"))
    assert stragglers.named == (set() if kind == "lost" else {1})
