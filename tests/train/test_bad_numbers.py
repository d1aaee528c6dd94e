"""A NaN in a real run: the outcome is the same at any worker count, and the weights stay finite."""

import math

import numpy as np
import pytest

from feste_dp.checkpoint.listing import step_directories
from feste_dp.checkpoint.loading import load_checkpoint
from feste_dp.errors import RunError
from feste_dp.run.metrics import comparable_rows, read_metrics
from feste_dp.runtime.faults import FAULT_VARIABLE

BAD = "any:step12:shard2:nan:always,any:step13:shard0:nan:always,any:step15:shard5:nan:always"


def config_of(runs, workers, policy):
    return runs.config(train__steps=20, run__workers=workers, run__on_nonfinite=policy)


def launch_into_failure(runs, workers, policy):
    with pytest.raises(RunError) as caught:
        runs.launch(config_of(runs, workers, policy))
    run = runs.newest_path
    return run, str(caught.value).replace(str(run), "RUN")


def test_skipped_steps_are_the_same_and_leave_the_same_weights_at_any_worker_count(runs, monkeypatch):
    monkeypatch.setenv(FAULT_VARIABLE, BAD)
    two, *others = [runs.launch(config_of(runs, workers, "skip")) for workers in (2, 3)]
    stopped = runs.launch(config_of(runs, 1, "skip"), stop_after=13)
    others.append(runs.resume(stopped.run, 2))
    rows = read_metrics(two.run / "metrics.csv")
    assert [row.step for row in rows if math.isnan(row.grad_norm)] == [12, 13, 15]
    manifest, arrays = load_checkpoint(two.run / "checkpoints/step-00000020")
    assert manifest.train.skipped_steps == 3
    assert all(np.isfinite(values).all() for values in arrays.values())
    for other in others:
        assert other.status == 0 and other.state(20) == two.state(20)
        assert comparable_rows(other.run / "metrics.csv") == comparable_rows(two.run / "metrics.csv")
    lines = [line for line in (two.run / "log.txt").read_text().splitlines() if "skipped" in line]
    assert [line.split(" warning: ")[1].split(":")[0] for line in lines] == [
        "step 12 skipped (1 so far)",
        "step 13 skipped (2 so far)",
        "step 15 skipped (3 so far)",
    ]


def test_the_run_stops_with_the_same_words_and_the_same_state_at_any_worker_count(runs, monkeypatch):
    monkeypatch.setenv(FAULT_VARIABLE, BAD)
    first, words = launch_into_failure(runs, 1, "stop")
    other, others_words = launch_into_failure(runs, 3, "stop")
    assert others_words == words
    assert [step for step, _ in step_directories(other / "checkpoints")][-1] == 11
    a, b = [load_checkpoint(run / "checkpoints/step-00000011")[1] for run in (first, other)]
    assert all(a[name].tobytes() == b[name].tobytes() for name in ("params", "m", "v"))
    assert words.startswith("step 12: shard 2 has a NaN or infinity in the gradient of wte, ")
    assert "the weights are those of step 11" in words


def test_a_run_that_would_skip_for_ever_ends_at_the_same_step_after_a_resume_too(runs, monkeypatch):
    monkeypatch.setenv(FAULT_VARIABLE, "any:step*:shard3:nan:always")
    _, words = launch_into_failure(runs, 2, "skip")
    assert words.startswith("step 20: shard 3 ")
    assert "the weights are those of step 0, for this is the 20th step in succession to be skipped" in words
    stopped = runs.launch(config_of(runs, 1, "skip"), stop_after=7)
    with pytest.raises(RunError) as caught:
        runs.resume(stopped.run)
    assert str(caught.value).replace(str(stopped.run), "RUN") == words


@pytest.mark.long
def test_a_stopped_run_goes_on_from_the_step_before_once_it_may_skip(runs, monkeypatch):
    monkeypatch.setenv(FAULT_VARIABLE, BAD)
    stopped, _ = launch_into_failure(runs, 2, "stop")
    skipping = runs.launch(config_of(runs, 2, "skip"))
    resumed = runs.resume(stopped, None, ["run.on_nonfinite=skip"])
    assert resumed.status == 0 and resumed.state(20) == skipping.state(20)
    assert comparable_rows(stopped / "metrics.csv") == comparable_rows(skipping.run / "metrics.csv")
