import pytest

from feste_dp.run.metrics import MetricsRow
from feste_dp.run.pace import Pace


def row(step: int, elapsed_seconds: float, val_loss: float | None = None) -> MetricsRow:
    return MetricsRow(step, elapsed_seconds, 1e-3, 7.0, 1.25, 1000.0, val_loss)


def paced(eval_every: int, steps: int, step_s: float = 1.0, eval_s: float = 5.0) -> Pace:
    pace, elapsed = Pace(), 1000.0
    for step in range(1, steps + 1):
        validates = eval_every > 0 and step % eval_every == 0
        elapsed += step_s + eval_s * validates
        pace.add(row(step, elapsed, 1.0 if validates else None))
    return pace


def test_no_eta_is_given_before_two_steps() -> None:
    assert paced(0, 1).eta_seconds(10) is None
    assert paced(0, 2).eta_seconds(10) == pytest.approx(10)


def test_the_time_of_validation_is_spread_over_the_steps_to_come() -> None:
    assert paced(0, 101).eta_seconds(100) == pytest.approx(100)
    assert paced(10, 101).eta_seconds(100) == pytest.approx(150)
    assert paced(1, 101).eta_seconds(100) == pytest.approx(600)


def test_one_slow_step_does_not_move_the_eta() -> None:
    pace = paced(0, 50)
    pace.add(row(51, 1000.0 + 50 + 60))
    assert pace.eta_seconds(10) == pytest.approx(10)
