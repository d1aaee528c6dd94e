"""One voice: what is told once reaches screen, log and history, also what was told before these are there."""

import io
import json
from pathlib import Path

import pytest

from feste_dp.run.history import History
from feste_dp.run.log import RunLog
from feste_dp.run.record import Record
from feste_dp.run.screen import Progress
from feste_dp.run.trackers.tracker import RunFacts, Tracker


class Loud(Progress):
    """Prints messages too."""

    def message(self, text: str) -> None:
        self._out.line(text)


class Voices:
    """A record, and what has come where."""

    def __init__(self, folder: Path) -> None:
        self._out, self._err, self._folder = io.StringIO(), io.StringIO(), folder
        self._progress = Loud(self._out, self._err)
        self.record = Record(self._progress)
        self.history = History(folder / "events.jsonl", pytest.fail)
        self.tracked: list[str] = []

    def open_log(self) -> None:
        self.record.log_to(RunLog(self._folder / "log.txt"))

    def begin(self, step: int = 0) -> None:
        tracked = self.tracked

        class Recording(Tracker):
            def event(self, event):
                tracked.append(event.kind)

        self.record.step = step
        self.history.open(RunFacts(self._folder, {}, "", step), [Recording()])
        self.record.begin(self.history, "start", "begun", workers=2)

    @property
    def screen(self) -> list[str]:
        self._progress.close()
        return self._out.getvalue().splitlines() + self._err.getvalue().splitlines()

    @property
    def log(self) -> list[str]:
        path = self._folder / "log.txt"
        return [line.split(" ", 1)[1] for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def events(self) -> list[tuple[object, ...]]:
        found = map(json.loads, (self._folder / "events.jsonl").read_text().splitlines())
        return [(event["step"], event["kind"], event.get("text")) for event in found]


@pytest.fixture
def voices(tmp_path: Path) -> Voices:
    return Voices(tmp_path)


def test_what_is_told_once_reaches_all(voices: Voices) -> None:
    voices.open_log()
    voices.begin()
    voices.record.step = 7
    voices.record.tell("worker_count", "3 workers from step 8 on, 2 before", workers=3)
    voices.record.tell("worker_lost", "worker 1 was killed", "warning", trace="a\nb", worker=1)
    voices.record.tell("save", "saved step 6", "routine", step=6)
    voices.history.close()
    assert voices.screen == ["3 workers from step 8 on, 2 before", "warning: worker 1 was killed"]
    assert voices.log == [
        "info: begun",
        "info: 3 workers from step 8 on, 2 before",
        "warning: worker 1 was killed",
        "warning: a",
        "warning: b",
        "info: saved step 6",
    ]
    assert voices.events == [
        (0, "start", "begun"),
        (7, "worker_count", "3 workers from step 8 on, 2 before"),
        (7, "worker_lost", "worker 1 was killed"),
        (6, "save", "saved step 6"),
    ]
    assert voices.tracked == ["start", "worker_count", "worker_lost", "save"]


def test_what_is_told_before_there_is_a_run_is_written_when_there_is_one(voices: Voices) -> None:
    voices.record.warn("3 workers share 2 CPUs")
    assert voices.screen == ["warning: 3 workers share 2 CPUs"] and voices.log == []
    voices.open_log()
    voices.record.tell("change", "changed: optim.lr")
    voices.begin(step=20)
    voices.history.close()
    assert voices.log == ["warning: 3 workers share 2 CPUs", "info: changed: optim.lr", "info: begun"]
    assert voices.events == [
        (20, "start", "begun"),
        (20, "warning", "3 workers share 2 CPUs"),
        (20, "change", "changed: optim.lr"),
    ]


def test_what_never_becomes_a_run_leaves_no_trace(voices: Voices, tmp_path: Path) -> None:
    voices.record.warn("too little of everything")
    assert list(tmp_path.iterdir()) == []
