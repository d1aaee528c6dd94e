"""How a run is doing, seen from outside; looking disturbs no run."""

import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from feste_dp.report.status import status_of
from feste_dp.run.directory import RunDirectory
from feste_dp.run.lock import RunLock, is_locked
from tests.report.conftest import NOON, event

RUN = Path("data/my run")


def test_a_run_is_locked_while_its_process_holds_it_and_no_longer(tmp_path: Path) -> None:
    assert not is_locked(RunDirectory(tmp_path))
    with RunLock(RunDirectory(tmp_path), NOON):
        assert is_locked(RunDirectory(tmp_path))
    assert (tmp_path / "lock").exists()
    assert not is_locked(RunDirectory(tmp_path))


def test_who_looks_does_not_keep_a_run_from_starting(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    looking = os.open(tmp_path / "lock", os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    done = threading.Timer(0.02, lambda: os.close(looking))
    done.start()
    with RunLock(RunDirectory(tmp_path), NOON):
        pass
    done.join()


def test_looking_all_the_time_lets_runs_start(tmp_path: Path) -> None:
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            is_locked(RunDirectory(tmp_path))
            time.sleep(0.001)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for _ in range(100):
            with RunLock(RunDirectory(tmp_path), NOON):
                pass
    finally:
        stop.set()
        watcher.join()


@pytest.mark.parametrize(
    ("locked", "kinds", "state"),
    [
        (True, ["start"], "training"),
        (True, ["start", "stop"], "training"),
        (False, ["start", "finish"], "finished"),
        (False, ["start", "stop"], "stopped"),
        (False, ["start", "save", "fail"], "failed"),
        (False, ["start", "save"], "interrupted"),
        (False, ["start", "stop", "resume"], "interrupted"),
        (False, ["start", "finish", "resume", "finish"], "finished"),
    ],
)
def test_the_state_follows_from_the_lock_and_the_last_turn(
    locked: bool, kinds: list[str], state: str
) -> None:
    events = [event(step, kind, "said") for step, kind in enumerate(kinds)]
    assert status_of(locked, events, 5, 40, RUN).state == state


def test_a_lost_run_says_since_when_and_what_to_do() -> None:
    text = status_of(False, [event(0, "start"), event(7, "times")], 7, 40, RUN).text
    assert "after step 7" in text and "2026-01-31 12:00:07 UTC" in text
    assert text.endswith(": feste-dp resume 'data/my run'")


def test_a_failed_run_says_why() -> None:
    text = status_of(False, [event(0, "start"), event(7, "fail", "worker 1 died")], 7, 40, RUN).text
    assert text == "failed after step 7: worker 1 died"


def test_a_run_without_history_is_judged_by_its_steps() -> None:
    assert status_of(False, [], 40, 40, RUN).state == "finished"
    assert status_of(False, [], 7, 40, RUN).state == "stopped"


def test_the_file_finished_speaks_where_the_history_does_not() -> None:
    assert status_of(False, [], 7, 40, RUN, marked=True).text == "finished after step 7"
    cut = [event(0, "start"), event(7, "save")]  # killed between the file and the last event
    assert status_of(False, cut, 7, 40, RUN, marked=True).state == "finished"
    assert status_of(True, cut, 7, 40, RUN, marked=True).state == "training"
