"""The history and the trackers of real runs: resumed, interrupted, and with trackers that fail."""

import json
from pathlib import Path

import pytest

from feste_dp.run.metrics import comparable_rows
from feste_dp.run.trackers import json_lines
from feste_dp.run.trackers.tracker import RunFacts


def history(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]


def turns(run: Path) -> list[tuple[object, object]]:
    kinds = ("start", "resume", "finish", "stop", "fail")
    return [(line["kind"], line["step"]) for line in history(run) if line["kind"] in kinds]


def test_a_resume_is_an_event_after_those_of_the_run_before(runs, straight):
    stopped = runs.launch(runs.config(), stop_after=13)
    assert turns(stopped.run) == [("start", 0), ("stop", 13)]
    resumed = runs.resume(stopped.run, workers=1, overrides=["train.steps=40"])
    assert resumed.status == 0
    assert turns(stopped.run) == [("start", 0), ("stop", 13), ("resume", 13), ("finish", 40)]
    (resume,) = [line for line in history(stopped.run) if line["kind"] == "resume"]
    assert resume["workers"] == 1 and resume["text"] == "resumed from step-00000013, 1 worker"
    assert comparable_rows(stopped.run / "metrics.csv") == comparable_rows(straight.run / "metrics.csv")


def test_a_run_that_has_nothing_to_do_adds_nothing_to_its_history(runs, straight):
    before = (straight.run / "events.jsonl").read_bytes()
    assert runs.resume(straight.run).status == 0
    assert (straight.run / "events.jsonl").read_bytes() == before


def test_a_history_that_cannot_be_written_is_a_warning_and_the_run_goes_on(runs, straight, monkeypatch):
    def full(self: object, line: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("feste_dp.files.growing.LineFile.append", full)
    outcome = runs.launch(runs.config(run__workers=1))
    assert outcome.status == 0
    assert outcome.warnings.count("events.jsonl not written: No space left on device") == 1
    assert comparable_rows(outcome.run / "metrics.csv") == comparable_rows(straight.run / "metrics.csv")


def test_a_tracker_gets_every_step_and_sample(runs):
    outcome = runs.launch(runs.config(run__trackers=["jsonl"], run__workers=1))
    lines = [json.loads(line) for line in (outcome.run / "tracker.jsonl").read_text().splitlines()]
    losses = [line["step"] for line in lines if line["type"] == "scalars" and "loss/train" in line]
    validated = [line["step"] for line in lines if line["type"] == "scalars" and "loss/validation" in line]
    samples = [line["step"] for line in lines if line["type"] == "text"]
    assert (losses, validated, samples) == (list(range(1, 41)), [8, 16, 24, 32, 40], [10, 20, 30, 40])
    assert lines[0]["config"]["train.seed"] == 5
    assert lines[-1]["kind"] == "finish"


@pytest.mark.parametrize("method", ["start", "scalars", "close"])
def test_a_tracker_that_fails_stops_nothing_and_changes_no_exit_status(runs, straight, monkeypatch, method):
    def fail(self: object, *arguments: object) -> None:
        raise ConnectionError("the service is down")

    monkeypatch.setattr(json_lines.JsonLines, method, fail)
    outcome = runs.launch(runs.config(run__trackers=["jsonl"], run__workers=1))
    assert outcome.status == 0
    assert outcome.warnings.count("the service is down") == 1
    assert comparable_rows(outcome.run / "metrics.csv") == comparable_rows(straight.run / "metrics.csv")


def test_a_tracker_is_told_where_a_resumed_run_goes_on(runs, monkeypatch):
    told: list[RunFacts] = []
    started = json_lines.JsonLines.start

    def start(self: json_lines.JsonLines, run: RunFacts) -> None:
        told.append(run)
        started(self, run)

    monkeypatch.setattr(json_lines.JsonLines, "start", start)
    stopped = runs.launch(runs.config(run__trackers=["jsonl"], run__workers=1), stop_after=13)
    runs.resume(stopped.run)
    assert [facts.first_step for facts in told] == [0, 13]


def test_a_worker_that_is_killed_and_replaced_is_in_the_history(runs, straight, monkeypatch):
    monkeypatch.setenv("FESTE_DP_FAULT", "worker1:step3:compute:kill")
    outcome = runs.launch(runs.config())
    assert outcome.status == 0
    told = [(line["kind"], line["step"], line["worker"]) for line in history(outcome.run) if "worker" in line]
    assert told[0] == ("worker_lost", 2, 1)
    assert comparable_rows(outcome.run / "metrics.csv") == comparable_rows(straight.run / "metrics.csv")
