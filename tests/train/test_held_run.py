"""A run's directory that others move, remove or empty while the run trains."""

import errno
import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from feste_dp.checkpoint.listing import step_directories
from feste_dp.errors import UsageError
from feste_dp.run import held as held_run
from feste_dp.run.directory import RunDirectory
from feste_dp.run.events import decode_event
from feste_dp.run.held import HeldRun
from feste_dp.run.history import History
from feste_dp.run.lock import RunLock
from feste_dp.run.metrics import MetricsRow, MetricsWriter, read_metrics
from feste_dp.run.trackers.tracker import RunFacts

CONFIG, TOKENIZER = b"run: {name: x}\n", b"{}"


def row(step):
    return MetricsRow(step, step * 1.0, 1e-3, 3.0, 1.0, 1000.0)


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)
    run.config.write_bytes(CONFIG)
    run.tokenizer.write_bytes(TOKENIZER)
    return run


@pytest.fixture
def metrics(run):
    with MetricsWriter(run.metrics) as metrics:
        metrics.append(row(1))
        yield metrics


@pytest.fixture
def history(run):
    with History(run.events, pytest.fail) as history:
        history.open(RunFacts(run.path, {}, "", 0))
        history.event(1, "start", "here")
        yield history


@pytest.fixture
def lock(run):
    with RunLock(run, datetime.now(UTC)) as lock:
        yield lock


@pytest.fixture
def held(run, metrics, history, lock):
    with HeldRun(run) as held:
        held.keep(CONFIG, TOKENIZER, metrics, history, lock)
        yield held


def test_a_directory_that_is_left_alone_is_not_worth_a_line(run, held):
    run.config.write_bytes(b"run: {name: y}\n")  # the user's own
    assert held.look(at_once=True) == []
    assert (held.path, held.is_gone) == (run.path, False)
    assert run.config.read_bytes() != CONFIG


def test_a_directory_that_is_moved_is_written_to_where_it_is(tmp_path, run, held):
    (tmp_path / "other").mkdir()
    run.path.rename(tmp_path / "other/new")
    (held.inside.checkpoints / "step-00000001").mkdir()
    assert held.look(at_once=True) == [
        f"{run.path} was moved while the run trains: the run goes on in {tmp_path / 'other/new'}"
    ]
    assert held.look(at_once=True) == [] and held.holds(1) and not held.holds(2)
    assert (tmp_path / "other/new/checkpoints/step-00000001").is_dir() and not run.path.exists()
    (tmp_path / "other").rename(tmp_path / "once more")  # a folder above it
    assert len(held.look(at_once=True)) == 1
    assert held.path == tmp_path / "once more/new"


def test_another_directory_in_its_place_is_not_taken_for_it(tmp_path, run, held):
    run.path.rename(tmp_path / "new")
    shutil.copytree(tmp_path / "new", run.path)
    assert len(held.look(at_once=True)) == 1
    assert held.path == tmp_path / "new"


def test_a_directory_over_which_another_is_mounted_is_written_to_below_it(run, held, monkeypatch):
    covered = run.path.absolute()
    real = HeldRun._is_ours
    monkeypatch.setattr(HeldRun, "_is_ours", lambda self, path: path != covered and real(self, path))
    (line,) = held.look(at_once=True)
    assert line.startswith(f"{run.path} is covered") and held.look(at_once=True) == []
    assert held.path == run.path and held.holds(1) is False


def test_a_directory_that_is_removed_is_told_once_and_not_made_anew(run, held):
    shutil.rmtree(run.path)
    (line,) = held.look(at_once=True)
    assert line.startswith(f"{run.path} was removed while the run trains (process {os.getpid()}): ")
    assert held.is_gone and held.look(at_once=True) == []
    assert not run.path.exists()


@pytest.mark.parametrize(
    "name", ["config.yaml", "tokenizer.json", "metrics.csv", "checkpoints", "lock", "events.jsonl"]
)
def test_what_is_missing_is_put_back(run, held, metrics, history, name):
    path = run.path / name
    path.rmdir() if path.is_dir() else path.unlink()
    (line,) = held.look(at_once=True)
    assert line.startswith(f"{path} was removed while the run trains: it is put back")
    assert held.look(at_once=True) == []
    metrics.append(row(2))
    assert [each.step for each in read_metrics(run.metrics)] == [1, 2]
    assert (run.config.read_bytes(), run.tokenizer.read_bytes()) == (CONFIG, TOKENIZER)
    assert run.checkpoints.is_dir()
    history.event(2, "best", "there")
    assert [decode_event(line).text for line in run.events.read_text().splitlines()] == ["here", "there"]
    with pytest.raises(UsageError, match=f"in use by process {os.getpid()}"):
        RunLock(run, datetime.now(UTC))


def test_another_writer_that_came_while_the_lock_was_gone_is_named(run, held):
    run.lock.unlink()
    with RunLock(run, datetime.now(UTC)):
        (line,) = held.look(at_once=True)
        assert line.startswith(f"{run.lock} was removed while the run trains, and cannot be put back: run ")
        assert f"in use by process {os.getpid()}" in line
        assert held.look(at_once=True) == []


def test_when_proc_goes_the_run_is_written_to_by_its_path(tmp_path, run, metrics, history, lock, monkeypatch):
    proc, followed = tmp_path / "proc", []
    proc.symlink_to("/proc/self/fd")
    monkeypatch.setattr(held_run, "_DESCRIPTORS", proc)
    with HeldRun(run) as held:
        held.keep(CONFIG, TOKENIZER, metrics, history, lock)
        held.follow(lambda inside: followed.append(inside.path))
        proc.unlink()
        (line,) = held.look(at_once=True)
        assert line.startswith("/proc is gone") and held.look(at_once=True) == []
        assert followed[0].parent == proc and followed[1:] == [run.path] == [held.inside.path]


def test_another_file_in_the_place_of_the_metrics_is_kept_beside_them(run, held, metrics):
    run.metrics.unlink()
    run.metrics.write_text("mine")
    assert len(held.look(at_once=True)) == 1
    metrics.append(row(2))
    assert [each.step for each in read_metrics(run.metrics)] == [1, 2]
    assert (run.path / "metrics.csv.replaced").read_text() == "mine"


def test_what_cannot_be_put_back_is_told_once(run, held, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(held_run, "write_whole", full)
    run.config.unlink()
    assert held.look(at_once=True) == [
        f"{run.config} was removed while the run trains, and cannot be put back: No space left on device"
    ]
    assert held.look(at_once=True) == []


def test_it_is_looked_at_once_a_second(run):
    now = [0.0]
    with HeldRun(run, clock=lambda: now[0]) as held:
        shutil.rmtree(run.path)
        now[0] = 0.9
        assert held.look() == []
        now[0] = 1.1
        assert len(held.look()) == 1


def test_without_proc_a_moved_directory_is_not_found_and_nothing_is_made_in_its_place(
    tmp_path, run, monkeypatch
):
    monkeypatch.setattr(held_run, "_DESCRIPTORS", tmp_path / "no proc")
    with HeldRun(run) as held:
        assert held.inside == run
        run.path.rename(tmp_path / "new")
        assert held.look(at_once=True) == [] and not run.path.exists()


def test_lines_show_the_path_that_people_know(run, held):
    assert held.shown(f"checkpoint {held.inside.checkpoints}/x was not saved") == (
        f"checkpoint {run.checkpoints}/x was not saved"
    )


def remove(path):
    """Also what a save under way is putting there."""
    while path.exists():
        shutil.rmtree(path, ignore_errors=True)


def at_step(step, act):
    return lambda number: act() if number == step else None


def test_a_run_that_is_moved_while_it_trains_is_whole_where_it_is_now(runs, straight):
    path = runs.new_path()
    new = path.with_name(f"{path.name}-moved")
    outcome = runs.launch(
        runs.config(run__workers=1), path=path, on_step=at_step(15, lambda: path.rename(new))
    )
    assert outcome.status == 1
    assert outcome.warnings.count("warning") == 1 and f"goes on in {new}" in outcome.warnings
    assert f"saved in {new}" in outcome.result and not path.exists()
    assert replace(outcome, run=new).state(40) == straight.state(40)
    assert len(read_metrics(new / "metrics.csv")) == 40
    assert "goes on in" in (new / "log.txt").read_text()


def test_a_run_that_is_removed_while_it_trains_says_that_nothing_is_saved(runs):
    path = runs.new_path()
    outcome = runs.launch(runs.config(run__workers=1), path=path, on_step=at_step(15, lambda: remove(path)))
    assert outcome.status == 1
    assert outcome.warnings.count("warning") == 1 and f"{path} was removed" in outcome.warnings
    assert outcome.result.splitlines()[1:] == [
        f"finished after step 40, which is NOT saved: {path} was removed"
    ]
    assert not path.exists()


def test_a_run_whose_files_vanish_can_be_resumed_and_says_so(runs):
    path = runs.new_path()

    def empty():
        for name in ("config.yaml", "tokenizer.json", "metrics.csv"):
            (path / name).unlink()
        remove(path / "checkpoints")

    outcome = runs.launch(runs.config(train__steps=24, run__workers=1), path=path, on_step=at_step(15, empty))
    assert outcome.status == 1 and outcome.warnings.count("put back") == 4
    assert len(read_metrics(path / "metrics.csv")) == 24
    assert [step for step, _ in step_directories(path / "checkpoints")] == [16, 20, 24]
    assert runs.resume(path, overrides=["train.steps=26"]).status == 0
