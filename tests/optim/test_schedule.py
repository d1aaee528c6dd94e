"""The learning-rate schedule at its corners and along its slopes."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feste_dp.optim.schedule import Kind, learning_rate

KINDS: tuple[Kind, ...] = ("cosine", "linear", "constant")


def rates(steps: int, warmup_steps: int, kind: Kind, lr: float = 1e-3, min_lr: float = 1e-4) -> list[float]:
    return [
        learning_rate(step, lr=lr, min_lr=min_lr, warmup_steps=warmup_steps, steps=steps, kind=kind)
        for step in range(1, steps + 1)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_warm_up_climbs_in_equal_parts_to_exactly_lr(kind: Kind) -> None:
    assert rates(100, 4, kind)[:4] == [1e-3 * 1 / 4, 1e-3 * 2 / 4, 1e-3 * 3 / 4, 1e-3]


@pytest.mark.parametrize("kind", ["cosine", "linear"])
@pytest.mark.parametrize("warmup_steps", [0, 1, 7])
def test_decay_ends_at_exactly_min_lr(kind: Kind, warmup_steps: int) -> None:
    assert rates(50, warmup_steps, kind)[-1] == 1e-4


def test_cosine_and_linear_are_half_way_between_at_half_time() -> None:
    for kind in ("cosine", "linear"):
        assert math.isclose(rates(101, 1, kind)[50], (1e-3 + 1e-4) / 2, rel_tol=1e-12)


def test_cosine_follows_its_formula() -> None:
    expected = [1e-4 + 9e-4 * 0.5 * (1 + math.cos(math.pi * k / 10)) for k in range(10)] + [1e-4]
    assert rates(11, 1, "cosine") == pytest.approx(expected, rel=1e-12)


def test_constant_stays_at_lr_after_the_warm_up() -> None:
    assert set(rates(20, 5, "constant")[4:]) == {1e-3}
    assert learning_rate(21, lr=1e-3, min_lr=0.0, warmup_steps=5, steps=20, kind="constant") == 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_no_warm_up_starts_at_lr_as_one_step_of_warm_up_does(kind: Kind) -> None:
    assert rates(30, 0, kind)[0] == 1e-3
    assert rates(30, 0, kind) == rates(30, 1, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_warm_up_over_all_steps_ends_at_lr(kind: Kind) -> None:
    assert rates(8, 8, kind)[-1] == 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("warmup_steps", [0, 1])
def test_a_run_of_one_step_has_lr(kind: Kind, warmup_steps: int) -> None:
    assert rates(1, warmup_steps, kind) == [1e-3]


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_steps_after_the_last_have_min_lr(kind: Kind) -> None:
    for step in (11, 12, 10**9):
        rate = learning_rate(step, lr=1e-3, min_lr=1e-4, warmup_steps=10, steps=10, kind=kind)
        assert rate == 1e-4


@given(
    steps=st.integers(1, 300),
    warmup=st.integers(0, 300),
    lr=st.floats(1e-8, 10),
    part=st.floats(0, 1),
    kind=st.sampled_from(KINDS),
)
def test_the_rate_climbs_then_never_climbs_again_and_stays_within_bounds(
    steps: int, warmup: int, lr: float, part: float, kind: Kind
) -> None:
    warmup = min(warmup, steps)
    min_lr = lr * part
    values = rates(steps, warmup, kind, lr, min_lr)
    peak = max(warmup, 1) - 1
    slack = lr * 1e-12
    assert values[peak] == lr
    assert all(0 < value <= lr + slack for value in values[: peak + 1])
    assert all(min_lr - slack <= value <= lr + slack for value in values[peak:])
    assert all(a < b for a, b in pairwise(values[: peak + 1]))
    assert all(a >= b - slack for a, b in pairwise(values[peak:]))
