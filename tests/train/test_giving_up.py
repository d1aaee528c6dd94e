"""A signal in the middle of long work: the work is given up, and done again on resume with the same bits."""

import os
import signal
import threading
import time

import pytest

from feste_dp.checkpoint.filesystem import Filesystem
from feste_dp.checkpoint.loading import read_manifest
from feste_dp.interruption import Interrupted
from feste_dp.model.sampling import Sampler
from feste_dp.run.metrics import comparable_rows, read_metrics
from feste_dp.runtime.coordinator import Coordinator
from feste_dp.train.signals import REPEAT_S

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def assert_equal_runs(first, second):
    for step in (10, 20, 30, 40):
        assert first.state(step) == second.state(step), f"the weights, m or v differ after step {step}"
    assert comparable_rows(first.run / "metrics.csv") == comparable_rows(second.run / "metrics.csv")
    manifests = [read_manifest(run.run / "checkpoints/step-00000040").train for run in (first, second)]
    for field in ("best_val_loss", "best_step", "evals_since_best", "val_loss", "unmeasured"):
        assert len({getattr(manifest, field) for manifest in manifests}) == 1, field


def newest(run):
    return read_manifest(run / "checkpoints/latest")


@pytest.fixture
def signal_in(monkeypatch):
    """signal_in(Class, "method", step, signum): send the signal while that step is in the method."""

    def arrange(owner, name, step, signum):
        real = getattr(owner, name)

        def patched(self, *given, **named):
            if step == (named["step"] if "step" in named else given[0]):
                monkeypatch.setattr(owner, name, real)
                os.kill(os.getpid(), signum)
            return real(self, *given, **named)

        monkeypatch.setattr(owner, name, patched)

    return arrange


@pytest.mark.parametrize(
    ("owner", "name", "step", "signum"),
    [
        (Coordinator, "validation_loss", 8, signal.SIGINT),
        pytest.param(Coordinator, "validation_loss", 16, signal.SIGTERM, marks=pytest.mark.long),
        (Sampler, "draw", 10, signal.SIGHUP),
        (Coordinator, "validation_loss", 40, signal.SIGTERM),
        pytest.param(Sampler, "draw", 40, signal.SIGINT, marks=pytest.mark.long),
    ],
)
def test_a_measurement_that_is_given_up_is_made_on_resume(
    owner, name, step, signum, runs, straight, signal_in
):
    signal_in(owner, name, step, signum)
    stopped = runs.launch(runs.config())
    assert stopped.status == STATUS[signum]
    manifest = newest(stopped.run)
    assert manifest.step == step and manifest.train.unmeasured is not None
    last = read_metrics(stopped.run / "metrics.csv")[-1]
    assert (last.step, last.val_loss, last.sample) == (step, None, "")
    resumed = runs.resume(stopped.run, 1)
    assert resumed.status == 0
    assert_equal_runs(resumed, straight)


@pytest.mark.long
def test_it_may_be_given_up_again_and_again(runs, straight, signal_in):
    signal_in(Coordinator, "validation_loss", 8, signal.SIGTERM)
    stopped = runs.launch(runs.config())
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal_in(Coordinator, "validation_loss", 8, signum)
        stopped = runs.resume(stopped.run)
        assert stopped.status == STATUS[signum]
        assert newest(stopped.run).step == 8
        assert [row.step for row in read_metrics(stopped.run / "metrics.csv")] == list(range(1, 9))
    assert_equal_runs(runs.resume(stopped.run, 1), straight)


@pytest.mark.parametrize("signum", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.long)])
def test_a_gradient_that_is_given_up_is_computed_on_resume(signum, runs, straight, signal_in):
    signal_in(Coordinator, "gradient", 14, signum)
    stopped = runs.launch(runs.config())
    assert stopped.status == STATUS[signum]
    assert newest(stopped.run).step == 13 and newest(stopped.run).train.unmeasured is None
    assert_equal_runs(runs.resume(stopped.run, 3), straight)


def test_the_step_is_finished_after_ctrl_c(runs, signal_in):
    signal_in(Coordinator, "gradient", 14, signal.SIGINT)
    stopped = runs.launch(runs.config())
    assert (stopped.status, newest(stopped.run).step) == (130, 14)


@pytest.mark.long
def test_a_signal_in_the_first_step_leaves_a_run_that_starts_again(runs, straight, signal_in):
    signal_in(Coordinator, "gradient", 1, signal.SIGTERM)
    stopped = runs.launch(runs.config())
    assert stopped.status == 143 and "stopped after step 0 of 40, nothing to save yet" in stopped.result
    assert_equal_runs(runs.resume(stopped.run, 1), straight)


@pytest.mark.parametrize(
    ("owner", "name"),
    [(Coordinator, "validation_loss"), pytest.param(Sampler, "draw", marks=pytest.mark.long)],
)
def test_a_save_asked_for_during_a_measurement_is_made_then_and_can_be_resumed_from(
    owner, name, runs, straight, monkeypatch
):
    saved = threading.Event()
    real_measure, real_rename = getattr(owner, name), Filesystem.rename

    def measure(self, *given, **named):
        if (named["step"] if "step" in named else given[0]) == 40:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert saved.wait(60), "the save does not wait for the end of the measurement"
            monkeypatch.setattr(owner, name, real_measure)
            os.kill(os.getpid(), signal.SIGTERM)
        return real_measure(self, *given, **named)

    def rename(self, old, new):
        real_rename(self, old, new)
        if new.name == "step-00000040":
            saved.set()

    monkeypatch.setattr(owner, name, measure)
    monkeypatch.setattr(Filesystem, "rename", rename)
    stopped = runs.launch(runs.config())
    assert stopped.status == 143
    assert_equal_runs(runs.resume(stopped.run, 1), straight)


@pytest.mark.long
def test_after_a_save_in_the_middle_of_a_measurement_the_run_goes_on(runs, straight, signal_in):
    signal_in(Coordinator, "validation_loss", 16, signal.SIGUSR1)
    outcome = runs.launch(runs.config())
    assert (outcome.status, outcome.warnings) == (0, "")
    assert_equal_runs(outcome, straight)


def test_a_second_signal_does_not_wait_for_a_save_in_flight(runs, straight, monkeypatch):
    stuck, go_on = threading.Event(), threading.Event()
    real = Filesystem.sync

    def sync(self, descriptor):
        if not stuck.is_set():
            stuck.set()
            threading.Timer(2 * REPEAT_S, os.kill, (os.getpid(), signal.SIGTERM)).start()
            assert go_on.wait(60)
            raise OSError("the process would have ended here")
        real(self, descriptor)

    monkeypatch.setattr(Filesystem, "sync", sync)
    config = runs.config(eval__every=0, checkpoint__every=0)
    with pytest.raises(Interrupted):
        runs.launch(config, stop_after=13)
    assert stuck.is_set()
    run = runs.newest_path
    assert not (run / "checkpoints/step-00000013").exists()
    go_on.set()
    time.sleep(0.1)  # the thread of the save is still in this process, and what it leaves goes at the resume
    resumed = runs.resume(run, 1)
    assert resumed.status == 0 and resumed.state(40) == straight.state(40)
