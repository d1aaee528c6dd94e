"""Whole runs whose workers are lost, replaced or changed in number end as a run that nothing happened to."""

import os
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from feste_dp.checkpoint.format import step_directory_name
from feste_dp.errors import RunError, UsageError
from feste_dp.run.directory import RunDirectory
from feste_dp.run.lock import RunLock
from feste_dp.run.metrics import comparable_rows
from feste_dp.run.worker_request import request_workers, take_request
from feste_dp.runtime.faults import FAULT_VARIABLE

STEPS = 40


def log_of(run):
    return (run / "log.txt").read_text()


def assert_same_run(outcome, straight):
    assert outcome.status == 0
    assert outcome.state(STEPS) == straight.state(STEPS)
    assert comparable_rows(outcome.run / "metrics.csv") == comparable_rows(straight.run / "metrics.csv")


def test_killed_workers_leave_weights_metrics_and_samples_unchanged(runs, straight, monkeypatch):
    monkeypatch.setenv(
        FAULT_VARIABLE, "worker0:step8:evaluate:kill,worker1:step20:compute:segv,worker2:step31:wait:raise"
    )
    outcome = runs.launch(runs.config(run__workers=3))
    assert_same_run(outcome, straight)
    log = log_of(outcome.run)
    assert re.search(
        r"warning: worker 0 .* signal 9 .* during validation of step 8; to be done again: unit", log
    )
    assert re.search(r"warning: worker 1 .*SIGSEGV.* during compute of step 20; to be done again: shard", log)
    assert re.search(r"warning: worker 2 .*: InjectedFaultError: ", log)
    assert "warning: Traceback" in log and "another is started" in outcome.warnings


def test_a_worker_that_hangs_is_replaced_and_nothing_changes(runs, straight, monkeypatch):
    monkeypatch.setenv(FAULT_VARIABLE, "worker1:step12:compute:stop")
    outcome = runs.launch(runs.config(run__step_timeout_s=1.0))
    assert_same_run(outcome, straight)
    assert re.search(r"gave no answer within 1 s \(run.step_timeout_s\), and was killed", outcome.warnings)


def test_another_number_of_workers_in_mid_run_changes_nothing(runs, straight):
    run = runs.new_path()

    def ask(step):
        if step in (10, 20, 30):
            (run / "workers.request").write_text({10: "4\n", 20: "1\n", 30: "3\n"}[step])

    outcome = runs.launch(runs.config(), path=run, on_step=ask)
    assert_same_run(outcome, straight)
    log = log_of(run)
    assert "4 workers from step 11 on, 2 before" in log
    assert "1 worker from step 21 on, 4 before" in log
    assert "3 workers from step 31 on, 1 before" in log
    assert not (run / "workers.request").exists()


def test_a_coordinator_killed_in_a_save_loses_steps_and_nothing_else(runs, straight, tmp_path):
    run = tmp_path / "run"
    config = tmp_path / "config.yaml"
    config.write_text(runs.config().model_dump_json())
    program = [sys.executable, "-m", "feste_dp"]
    environ = os.environ | {FAULT_VARIABLE: "coordinator:step20:saved:kill", "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    launched = subprocess.run(
        [*program, "launch", "--config", config, "--out", run, "--quiet"], env=environ, capture_output=True
    )
    assert launched.returncode == -signal.SIGKILL
    assert (run / "checkpoints" / step_directory_name(10)).is_dir()
    assert list((tmp_path / "tmp").iterdir()) == []
    outcome = runs.resume(run, workers=3)
    assert_same_run(outcome, straight)


def test_a_run_that_does_not_train_cannot_be_given_workers(straight):
    with pytest.raises(UsageError, match=r"is not training now: feste-dp resume .* --workers 3"):
        request_workers(straight.run, 3)
    assert not (straight.run / "workers.request").exists()


def test_more_workers_than_shards_are_refused(straight):
    with pytest.raises(
        UsageError,
        match=r"9 is more than train.shards 8, which a run keeps; use at most 8, or start a new run",
    ):
        request_workers(straight.run, 9)


def test_a_request_is_taken_once_and_what_is_no_number_is_dropped(tmp_path):
    run = RunDirectory(tmp_path)
    assert take_request(run) is None
    (tmp_path / "workers.request").write_text("7\n")
    assert take_request(run) == 7 and take_request(run) is None
    for nonsense in ("", "x", "-1", "9" * 1000, "\x00"):
        (tmp_path / "workers.request").write_text(nonsense)
        assert take_request(run) is None or len(nonsense) > 16
        assert not (tmp_path / "workers.request").exists()


def test_a_request_waits_for_the_run_to_take_it_and_says_when_the_run_ended_first(straight):
    run = RunDirectory(straight.run)
    with RunLock(run, datetime.now(UTC)):
        taken = []
        request_workers(straight.run, 2, wait=lambda seconds: taken.append(take_request(run)))
        assert taken == [2]
    lock = RunLock(run, datetime.now(UTC))
    with pytest.raises(RunError, match="ended before it took the request"):
        request_workers(straight.run, 2, wait=lambda seconds: lock.close())
    assert not (straight.run / "workers.request").exists()
