"""What a run tells beside its metrics, and that no failure of it reaches the run."""

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from feste_dp.errors import RunError
from feste_dp.interruption import Interrupted
from feste_dp.run.history import History
from feste_dp.run.metrics import MetricsRow
from feste_dp.run.step_times import StepTimes
from feste_dp.run.trackers.tracker import RunFacts, Tracker

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Recording(Tracker):
    name = "recording"

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def scalars(self, step: int, values: object) -> None:
        self.calls.append(("scalars", step, values))

    def text(self, step: int, tag: str, text: str) -> None:
        self.calls.append(("text", step, tag, text))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def times(total: float, *workers: float) -> StepTimes:
    return StepTimes(total, list(workers), [0.001], 0.002)


def facts(path: Path, first_step: int = 0) -> RunFacts:
    return RunFacts(path, {}, "", first_step)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., tuple[History, Clock, list[str]]]:
    def history(first_step: int = 0, *trackers: Tracker) -> tuple[History, Clock, list[str]]:
        clock, warnings = Clock(), []
        made = History(tmp_path / "events.jsonl", warnings.append, lambda: NOON, clock)
        made.open(facts(tmp_path, first_step), trackers)
        return made, clock, warnings

    return history


def test_times_are_the_means_of_about_a_second_of_steps(make, tmp_path: Path) -> None:
    history, clock, _ = make()
    for step in range(1, 6):
        clock.now = 0.3 * step
        history.times(step, times(0.1 * step, 0.01 * step, 0.02 * step))
    history.close()
    first, second = lines(tmp_path)
    assert (first["step"], first["steps"], first["step_ms"]) == (4, 4, 250.0)
    assert first["worker_compute_ms"] == [25.0, 50.0]
    assert first["phases_ms"] == {
        "compute": 37.5,
        "wait": 12.5,
        "reduce": 1.0,
        "update": 2.0,
        "control": 197.0,
    }
    assert (second["step"], second["steps"], second["step_ms"]) == (5, 1, 500.0)


def test_another_number_of_workers_begins_another_batch(make, tmp_path: Path) -> None:
    history, _, _ = make()
    history.times(1, times(0.1, 0.01, 0.02))
    history.times(2, times(0.1, 0.01))
    history.close()
    assert [line["worker_compute_ms"] for line in lines(tmp_path)] == [[10.0, 20.0], [10.0]]


def test_the_times_of_several_nodes_have_the_exchange_and_each_nodes_compute(make, tmp_path: Path) -> None:
    recording = Recording()
    history, _, _ = make(0, recording)
    step = StepTimes(
        0.1, [0.02, 0.04], [0.001], 0.002, node_seconds=[0.04, 0.05], node_wait=0.01, exchange=0.03
    )
    history.times(1, times(0.1, 0.02, 0.04))
    history.times(2, step)
    history.close()
    alone, together = lines(tmp_path)
    assert "exchange" not in alone["phases_ms"] and "node_compute_ms" not in alone
    phases = together["phases_ms"]
    assert (phases["exchange"], phases["wait"], phases["compute"]) == (30.0, 20.0, 30.0)
    assert sum(phases.values()) == pytest.approx(100.0)
    assert together["node_compute_ms"] == [40.0, 50.0]
    values = [call[2] for call in recording.calls if call[0] == "scalars"]
    assert "time/exchange_ms" not in values[0]
    assert (values[1]["time/exchange_ms"], values[1]["node/1_compute_ms"]) == (30.0, 50.0)


def test_the_times_before_an_end_are_written_before_it(make, tmp_path: Path) -> None:
    history, _, _ = make()
    history.times(1, times(0.1, 0.01))
    history.event(1, "finish", "finished")
    history.close()
    assert [line["kind"] for line in lines(tmp_path)] == ["times", "finish"]


def test_what_was_never_opened_leaves_no_file(tmp_path: Path) -> None:
    with History(tmp_path / "events.jsonl", pytest.fail):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (RunError("worker 1 died"), "fail", "worker 1 died"),
        (ZeroDivisionError("a fault"), "fail", "a fault"),
        (Interrupted(2), "stop", "stopped at once"),
    ],
)
def test_an_exception_is_the_last_event(
    make, tmp_path: Path, error: BaseException, kind: str, text: str
) -> None:
    history, _, _ = make()
    with pytest.raises(type(error)), history:
        history.event(0, "start")
        history.times(3, times(0.1, 0.01))
        raise error
    last = lines(tmp_path)[-1]
    assert (last["step"], last["kind"], last["text"]) == (3, kind, text)


def test_an_exception_after_the_end_adds_nothing(make, tmp_path: Path) -> None:
    history, _, _ = make()
    with pytest.raises(ZeroDivisionError), history:
        history.event(3, "finish")
        raise ZeroDivisionError
    assert [line["kind"] for line in lines(tmp_path)] == ["finish"]


def test_a_file_that_cannot_be_opened_is_one_warning(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").mkdir()
    warnings: list[str] = []
    with History(tmp_path / "events.jsonl", warnings.append) as history:
        history.open(facts(tmp_path))
        history.event(0, "start")
        history.times(1, times(0.1, 0.01))
    assert warnings == [
        "events.jsonl not written: it is a directory, not a regular file; the report will lack some events"
    ]


def test_a_full_disk_is_one_warning_however_often_it_fails(make, monkeypatch: pytest.MonkeyPatch) -> None:
    history, _, warnings = make()

    def full(line: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(history._file, "append", full)
    for step in range(5):
        history.event(step, "save")
    history.close()
    assert warnings == ["events.jsonl not written: No space left on device; the report will lack some events"]


def test_trackers_get_every_row_its_sample_and_the_times(make) -> None:
    tracker = Recording()
    history, _, warnings = make(0, tracker)
    history.row(MetricsRow(1, 0.5, 1e-3, 2.0, 0.7, 1000.0))
    history.row(MetricsRow(2, 1.0, 1e-3, 1.0, 0.6, 1000.0, val_loss=0.0, sample="To be"))
    history.times(2, times(0.1, 0.01, 0.03))
    history.close()
    first, second, text, timed = tracker.calls
    assert first == (
        "scalars",
        1,
        {
            "loss/train": 2.0,
            "perplexity/train": math.exp(2.0),
            "optim/learning_rate": 1e-3,
            "optim/grad_norm": 0.7,
            "speed/tokens_per_second": 1000.0,
        },
    )
    assert second[2]["loss/validation"] == 0.0 and second[2]["perplexity/validation"] == 1.0
    assert text == ("text", 2, "sample", "To be")
    assert timed[2]["worker/1_compute_ms"] == 30.0 and timed[2]["time/update_ms"] == 2.0
    assert warnings == []


def test_a_failing_tracker_is_a_warning_once(make) -> None:
    class Failing(Tracker):
        name = "failing"

        def scalars(self, step: int, values: object) -> None:
            raise ConnectionError("no route to host")

    history, _, warnings = make(0, Failing())
    for step in range(1, 50):
        history.row(MetricsRow(step, 0.5, 1e-3, 2.0, 0.7, 1000.0))
    history.close()
    assert warnings == ["tracker failing failed, the run goes on without it: no route to host"]
