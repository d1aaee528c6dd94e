"""A replayed step has the bits of the run's step, whatever the workers and wherever it starts from."""

import math
import os
import shutil
from datetime import UTC, datetime

import numpy as np
import pytest

from feste_dp.checkpoint.listing import step_directories
from feste_dp.errors import RunError, UsageError
from feste_dp.replay.replay import replay
from feste_dp.run.directory import RunDirectory
from feste_dp.run.lock import RunLock
from feste_dp.run.metrics import read_metrics
from feste_dp.runtime.faults import FAULT_VARIABLE
from feste_dp.train.signals import StopSignals
from feste_dp.train.start import Surroundings
from tests.train.conftest import Watched


@pytest.fixture
def again(runs):
    """replay() with the surroundings of a command; the warnings it gives are in `again.warnings`."""

    def call(run, step, shard=None, workers=1):
        progress = Watched(lambda step: None)
        call.warnings = progress.warnings
        return replay(
            run, step, shard, workers, Surroundings(os.environ, runs.cache, progress, StopSignals())
        )

    return call


@pytest.fixture(scope="module")
def step_25(runs, straight):
    """The replay of that step, with two workers."""
    around = Surroundings(os.environ, runs.cache, Watched(lambda step: None), StopSignals())
    return replay(straight.run, 25, None, 2, around)


def content_of(run):
    return {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}


def row_of(run, step):
    return next(row for row in read_metrics(run / "metrics.csv") if row.step == step)


@pytest.mark.parametrize(
    ("step", "workers", "start"),
    [
        pytest.param(5, 1, 0, marks=pytest.mark.long),
        (15, 3, 10),
        pytest.param(1, 2, 0, marks=pytest.mark.long),
        pytest.param(11, 2, 10, marks=pytest.mark.long),
        pytest.param(40, 8, 32, marks=pytest.mark.long),
    ],
)
def test_loss_and_norm_are_those_of_the_run_to_the_last_digit(step, workers, start, straight, again):
    before = content_of(straight.run)
    result = again(straight.run, step, workers=workers)
    row = row_of(straight.run, step)
    assert (result.loss, result.grad_norm) == (row.train_loss, row.grad_norm)
    assert (result.recorded_loss, result.recorded_grad_norm) == (row.train_loss, row.grad_norm)
    assert result.matches is True and result.first_difference is None
    assert result.from_step == start
    assert content_of(straight.run) == before


def test_the_tensors_add_up_to_the_gradient_norm_and_the_sequences_to_the_loss(step_25):
    result = step_25
    total = math.sqrt(math.fsum(facts.gradient_norm**2 for facts in result.tensors))
    assert total == pytest.approx(result.grad_norm, rel=1e-6)
    assert all(facts.gradient_norm >= facts.gradient_max_abs > 0 for facts in result.tensors)
    assert all(facts.weight_norm > 0 and facts.gradient_nonfinite == 0 for facts in result.tensors)
    for facts in result.tensors:
        if facts.layer_norms is not None:
            assert len(facts.layer_norms) == 2
            assert math.hypot(*facts.layer_norms) == pytest.approx(facts.gradient_norm, rel=1e-9)
    assert [facts.sequence for facts in result.sequences] == list(range(16))
    assert [facts.shard for facts in result.sequences] == [number // 2 for number in range(16)]
    assert np.mean([facts.loss for facts in result.sequences]) == pytest.approx(result.loss, rel=1e-6)
    worst = max(result.sequences, key=lambda facts: facts.loss)
    assert result.worst_sequence == worst.sequence
    assert worst.offset < worst.hardest_token <= worst.offset + 32
    assert worst.hardest_loss >= worst.loss


def test_the_text_shown_is_the_text_of_the_corpus(step_25, runs):
    assert step_25.worst_text + step_25.worst_next in runs.corpus.read_text()


def test_a_shard_by_itself_has_its_sequences_and_its_share(straight, again, step_25):
    whole, part = step_25, again(straight.run, 25, 5)
    assert part.sequences == [facts for facts in whole.sequences if facts.shard == 5]
    assert (part.loss, part.grad_norm) == (whole.loss, whole.grad_norm)
    assert part.shard_loss == pytest.approx(np.mean([facts.loss for facts in part.sequences]), rel=1e-6)
    assert part.tensors != whole.tensors


def test_the_step_that_ended_a_run_can_be_replayed(runs, again, monkeypatch):
    config = runs.config(
        optim__lr=10.0, optim__warmup_steps=0, optim__weight_decay=10.0, optim__schedule="constant"
    )
    with pytest.raises(RunError) as caught, np.errstate(all="ignore"):
        runs.launch(config)
    run = runs.newest_path
    step = len(read_metrics(run / "metrics.csv")) + 1
    assert str(caught.value).startswith(f"step {step}: ")
    assert f"; to see why: feste-dp replay {run} --step {step}; to go on after step {step - 1}: " in str(
        caught.value
    )
    result = again(run, step)
    assert result.from_step == step - 1 and result.matches is None
    assert not math.isfinite(result.loss) or not math.isfinite(result.grad_norm)
    assert sum(facts.gradient_nonfinite for facts in result.tensors) > 0
    named = next(facts for facts in result.sequences if facts.nonfinite_from or facts.gradient_nonfinite)
    assert result.worst_sequence == named.sequence
    assert f"from sequence {named.sequence} of the batch (token {named.offset} of" in str(caught.value)


def test_steps_beyond_those_tried_and_shards_beyond_the_last_are_refused(straight, runs, again, tmp_path):
    stopped = runs.launch(runs.config(train__steps=40), stop_after=3)
    for run, step, shard, message in (
        (straight.run, 41, None, "step: 41 is not a step that the run has tried; it has 1 to 40"),
        (stopped.run, 5, None, "step: 5 is not a step that the run has tried; it has 1 to 4"),
        (stopped.run, 0, None, "step: 0 is not a step that the run has tried; it has 1 to 4"),
        (stopped.run, 2, 8, "shard: 8 is not a shard of the run; it has 0 to 7"),
    ):
        with pytest.raises(UsageError) as caught:
            again(run, step, shard)
        assert str(caught.value) == message
    refused = (
        r"^workers: 9 is more than train\.shards 8, which a run keeps; use at most 8, or start a new run"
    )
    with pytest.raises(UsageError, match=refused):
        again(stopped.run, 2, workers=9)
    with pytest.raises(UsageError, match="there is no such directory"):
        again(tmp_path / "nowhere", 2)
    assert again(stopped.run, 4).matches is None


@pytest.fixture
def copy(straight, tmp_path):
    return shutil.copytree(straight.run, tmp_path / "run", symlinks=True)


def test_a_run_that_is_training_can_be_replayed(copy, again):
    with RunLock(RunDirectory(copy), datetime.now(UTC)):
        assert again(copy, 25).matches is True


def test_a_damaged_checkpoint_is_named_and_an_older_one_is_taken(copy, again):
    damaged = copy / "checkpoints/step-00000020/shard-03-of-08.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    result = again(copy, 23)
    assert (result.from_step, result.matches) == (16, True)
    assert str(damaged) in again.warnings.getvalue()


def test_without_any_checkpoint_it_starts_where_the_run_did(copy, again):
    for _, path in step_directories(copy / "checkpoints"):
        shutil.rmtree(path)
    result = again(copy, 5)
    assert (result.from_step, result.matches) == (0, True)


def test_numbers_that_are_not_the_runs_are_said_so_with_the_first_such_step(copy, again):
    metrics = copy / "metrics.csv"
    row = row_of(copy, 22)
    metrics.write_text(metrics.read_text().replace(repr(row.train_loss), "4.25"))
    result = again(copy, 23)
    assert result.matches is False and result.first_difference == 22
    metrics.unlink()
    assert again(copy, 23).matches is None


@pytest.mark.long
def test_a_changed_schedule_is_replayed_as_each_part_of_the_run_had_it(runs, again):
    stopped = runs.launch(runs.config(), stop_after=13)
    changed = runs.resume(stopped.run, None, ["optim.lr=0.01"])
    assert changed.status == 0
    assert again(stopped.run, 12).matches is True
    assert again(stopped.run, 17).matches is True


@pytest.mark.long
def test_skipped_steps_on_the_way_are_skipped_again(runs, again, monkeypatch):
    monkeypatch.setenv(FAULT_VARIABLE, "any:step12:shard2:nan:always,any:step15:shard0:nan:always")
    run = runs.launch(runs.config(run__on_nonfinite="skip", train__steps=20)).run
    assert [row.step for row in read_metrics(run / "metrics.csv") if math.isnan(row.grad_norm)] == [12, 15]
    for step in (12, 18):
        assert again(run, step).matches is True
