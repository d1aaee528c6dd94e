"""The limit follows from the phases by the rule that the study prints."""

from dataclasses import replace

import pytest

from feste_dp.scale.limit import find_limit, lost_time
from tests.scale.studies import made_up_count

PHASES = {"compute": 800.0, "wait": 0.0, "reduce": 10.0, "update": 20.0, "control": 2.0}


def count(workers, *, peak=100.0, above=False, **phases):
    step = sum((PHASES | phases).values())
    return replace(
        made_up_count(workers, 1000.0, step),
        phases_ms=PHASES | phases,
        peak_gflops_per_second_per_core=peak,
        above_cores=above,
    )


PERFECT = {"compute": 400.0, "reduce": 5.0, "update": 10.0, "control": 1.0}


@pytest.mark.parametrize(
    ("phases", "cause"),
    [
        (PERFECT, "arithmetic"),
        (PERFECT | {"wait": 60.0}, "stragglers"),
        (PERFECT | {"control": 60.0}, "control"),
        (PERFECT | {"reduce": 60.0}, "memory bandwidth"),
        (PERFECT | {"update": 60.0}, "memory bandwidth"),
        (PERFECT | {"compute": 460.0}, "memory bandwidth"),
    ],
)
def test_the_phase_that_grew_most_names_the_limit(phases, cause):
    limit = find_limit("strong", [count(1), count(2, **phases)])
    assert limit.cause == cause and cause in limit.sentence and limit.at_workers == 2
    assert "largest is the limit" in limit.rule


def test_compute_that_grew_as_the_bare_kernel_slowed_is_arithmetic():
    lost = lost_time("strong", count(1, peak=115.0), count(2, peak=100.0, **PERFECT | {"compute": 460.0}))
    assert {part.cause: part.milliseconds for part in lost} == pytest.approx(
        {"arithmetic": 60.0, "memory bandwidth": 0.0, "stragglers": 0.0, "control": 0.0}
    )


def test_only_as_much_is_arithmetic_as_the_bare_kernel_explains():
    lost = lost_time("strong", count(1, peak=105.0), count(2, peak=100.0, **PERFECT | {"compute": 460.0}))
    assert {part.cause: round(part.milliseconds) for part in lost} == {
        "memory bandwidth": 40,
        "arithmetic": 20,
        "stragglers": 0,
        "control": 0,
    }


def test_weak_scaling_expects_the_same_step_not_a_shorter_one():
    assert find_limit("weak", [count(1), count(4)]).cause == "arithmetic"
    assert find_limit("weak", [count(1), count(4, wait=200.0)]).cause == "stragglers"


def test_more_workers_than_cores_is_said_with_the_limit_within_the_cores():
    counts = [count(1), count(2, **PERFECT | {"wait": 60.0}), count(4, above=True)]
    limit = find_limit("strong", counts)
    assert limit.cause == "more workers than cores" and limit.at_workers == 4
    assert "At 2 workers the limit is stragglers" in limit.sentence


def test_time_gained_is_not_lost_and_one_count_has_no_limit():
    lost = lost_time("strong", count(1), count(2, **PERFECT | {"compute": 300.0}))
    assert all(part.milliseconds == 0 for part in lost)
    assert find_limit("strong", [count(1)]) is None
