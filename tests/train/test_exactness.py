"""The worker count never changes the result: not one bit of it."""

import pytest

from feste_dp.run.metrics import comparable_rows, read_metrics

SAVED_STEPS = (10, 20, 30, 40)


def assert_equal_runs(first, second, steps=SAVED_STEPS):
    for step in steps:
        assert first.state(step) == second.state(step), f"the weights, m or v differ after step {step}"
    assert comparable_rows(first.run / "metrics.csv") == comparable_rows(second.run / "metrics.csv")


@pytest.mark.parametrize("workers", [1, 3, pytest.param(5, marks=pytest.mark.long), 8])
def test_any_worker_count_gives_the_bits_of_two_workers(runs, straight, workers):
    outcome = runs.launch(runs.config(run__workers=workers))
    assert outcome.status == 0
    assert_equal_runs(outcome, straight)


@pytest.mark.long  # so does one with other pinning, below
def test_a_second_run_gives_the_same_bits(runs, straight):
    assert_equal_runs(runs.launch(runs.config()), straight)


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.long), 5])
def test_a_resume_in_the_middle_with_another_worker_count_gives_the_same_bits(runs, straight, workers):
    stopped = runs.launch(runs.config(), stop_after=13)
    assert stopped.status == 143
    resumed = runs.resume(stopped.run, workers)
    assert resumed.status == 0
    assert_equal_runs(resumed, straight)


@pytest.mark.parametrize("precision", ["bf16"])
def test_in_bfloat16_too_any_worker_count_and_a_resume_give_the_same_bits(runs, straight, precision):
    def config(workers):
        return runs.config(train__precision=precision, train__steps=20, run__workers=workers)

    two, *others = [runs.launch(config(workers)) for workers in (2, 1, 3)]
    stopped = runs.launch(config(1), stop_after=7)
    assert (two.status, stopped.status) == (0, 143)
    for other in (*others, runs.resume(stopped.run, 3)):
        assert other.status == 0
        assert_equal_runs(other, two, steps=(10, 20))
    first_losses = [read_metrics(run.run / "metrics.csv")[0].train_loss for run in (two, straight)]
    assert first_losses[0] != first_losses[1] == pytest.approx(first_losses[0], rel=1e-3)


def test_pinning_and_the_length_of_the_timeout_change_nothing(runs, straight):
    outcome = runs.launch(runs.config(run__pin="auto", run__step_timeout_s=99.0, run__name="other"))
    assert_equal_runs(outcome, straight)


def test_the_run_learns_and_uses_dropout(runs, straight):
    losses = [row.train_loss for row in read_metrics(straight.run / "metrics.csv")]
    assert len(losses) == 40 and sum(losses[-5:]) < 0.85 * sum(losses[:5])
    without = runs.launch(runs.config(model__dropout=0.0, train__steps=2, run__workers=1))
    assert [row.train_loss for row in read_metrics(without.run / "metrics.csv")] != losses[:2]


def test_another_seed_gives_other_weights(runs, straight):
    other = runs.launch(runs.config(train__seed=6, run__workers=1))
    assert not {other.state(step) for step in SAVED_STEPS} & {straight.state(step) for step in SAVED_STEPS}


def test_the_states_that_are_compared_differ_from_step_to_step(straight):
    assert len({straight.state(step) for step in SAVED_STEPS}) == len(SAVED_STEPS)
