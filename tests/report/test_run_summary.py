"""One line a run: what it says, that it reads ends of files only, and that one bad run is its own fault."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from feste_dp.cli.commands import cli
from feste_dp.report import run_summary
from feste_dp.report.run_data import RunReader
from feste_dp.report.run_summary import summaries, summarize
from feste_dp.run.directory import RunDirectory
from feste_dp.run.lock import RunLock
from tests.report.conftest import NOON, event, history, row, times

MakeRun = Callable[..., Path]


@pytest.mark.parametrize(
    ("end", "state"), [("finish", "finished"), ("stop", "stopped"), ("fail", "failed"), ("", "interrupted")]
)
def test_the_line_says_what_the_page_says(make_run: MakeRun, end: str, state: str) -> None:
    path = make_run("one", None, history(40, end=end))
    found, read = summarize("one", path), RunReader(path).read()
    assert (found.state, found.step, found.steps) == (state, 40, 40)
    assert found.state == read.status.state and found.started == read.events[0].time
    assert read.best is not None and found.best_loss == read.best.val_loss
    assert found.problem == ""


def test_a_run_that_trains_is_seen_by_its_lock(make_run: MakeRun) -> None:
    path = make_run("one", None, history(20, end=""))
    with RunLock(RunDirectory(path), NOON):
        assert summarize("one", path).state == "training"


def test_a_long_run_is_read_at_its_ends_alone(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """With samples that look like rows, and no turn in the last events."""
    sample = 'to be\n7,0.070,0.001,"" or\n8,0.080,0.5,1.0,2.0,,,1.0,5.0,\n' * 3
    rows = [row(step, sample=sample if step % 7 == 0 else "") for step in range(1, 3001)]
    told = [event(0, "start"), *(times(step, 1.0, 2.0) for step in range(10, 3001, 10))]
    path = make_run("long", rows, told, train={"steps": 3000})
    read: list[int] = []
    plain = os.fdopen

    def counting(fd: int, *arguments: object) -> object:
        file = plain(fd, *arguments)  # type: ignore[call-overload]
        original = file.read
        read.append(0)

        class Counted:
            def __enter__(self) -> "Counted":
                return self

            def __exit__(self, *raised: object) -> None:
                file.close()

            def read(self, size: int) -> bytes:
                content = original(size)
                read[-1] += len(content)
                return bytes(content)

            def seek(self, place: int) -> None:
                file.seek(place)

            def fileno(self) -> int:
                return int(file.fileno())

        return Counted()

    for size in (1 << 16, 3000, 900):
        monkeypatch.setattr(run_summary, "_TAIL", size)
        monkeypatch.setattr(run_summary.os, "fdopen", counting)
        found = summarize("long", path)
        monkeypatch.setattr(run_summary.os, "fdopen", plain)
        assert (found.state, found.step, found.problem) == ("interrupted", 3000, "")
        assert found.train_loss == rows[-1].train_loss
    assert max(read) < 100_000 < (path / "metrics.csv").stat().st_size


def test_one_bad_run_is_its_own_fault(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("good")
    (make_run("no-config") / "config.yaml").write_text("train: {steps: many}\n")
    (make_run("bad-row") / "metrics.csv").write_bytes(b"step,nonsense\n\xff\x00,\n")
    fifo = make_run("fifo") / "events.jsonl"
    fifo.unlink()
    os.mkfifo(fifo)
    link = make_run("link") / "metrics.csv"
    link.unlink()
    link.symlink_to("/dev/zero")
    result = CliRunner().invoke(cli, ["runs", str(tmp_path), "--json"])
    assert result.exit_code == 0, result.output
    found = {run["name"]: run for run in json.loads(result.output)}
    assert found["good"]["problem"] == "" and found["good"]["best_loss"] == pytest.approx(5.7)
    for name in ("no-config", "bad-row", "fifo", "link"):
        assert found[name]["problem"], name
    table = CliRunner().invoke(cli, ["runs", str(tmp_path)]).output.splitlines()
    assert table[0].split() == ["state", "step", "best", "loss", "tokens/s", "age", "run"]
    assert len(table) == 7 and table[-1] == "5 runs, 0 training now"


def test_the_newest_comes_first(make_run: MakeRun) -> None:
    old = make_run("old", None, [event(0, "start"), event(40, "finish")])
    new = make_run("new", None, [event(1000, "start"), event(1040, "finish")])
    assert [run.name for run in summaries({"old": old, "new": new})] == ["new", "old"]


def test_a_line_takes_milliseconds(make_run: MakeRun) -> None:
    path = make_run("one")
    started = time.process_time()
    for _ in range(20):
        summarize("one", path)
    assert (time.process_time() - started) / 20 < 0.02  # parsing the config alone takes longer


def test_an_empty_directory_and_a_missing_one(tmp_path: Path) -> None:
    assert "no runs in" in CliRunner().invoke(cli, ["runs", str(tmp_path)]).output
    missing = CliRunner().invoke(cli, ["runs", str(tmp_path / "none")])
    assert missing.exit_code != 0
