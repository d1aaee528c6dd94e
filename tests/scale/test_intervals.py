import numpy as np
import pytest

from feste_dp.scale.intervals import DRAWS, draws_of_rates, interval, student_t
from feste_dp.scale.study import Interval


@pytest.mark.parametrize(
    ("freedom", "expected"),
    [(1, 12.7062), (2, 4.3027), (4, 2.7764), (6, 2.4469), (9, 2.2622), (19, 2.0930), (99, 1.9842)],
)
def test_student_s_t_is_that_of_the_tables(freedom, expected):
    assert student_t(freedom) == pytest.approx(expected, abs=5e-4)


def test_an_interval_is_of_the_mean_logarithm_around_the_median():
    values = [90.0, 100.0, 110.0]
    found = interval(values)
    logs = np.log(values)
    reach = 4.3027 * logs.std(ddof=1) / np.sqrt(3)
    assert found.value == 100.0
    assert found.low == pytest.approx(np.exp(logs.mean() - reach))
    assert found.high == pytest.approx(np.exp(logs.mean() + reach))


def test_an_interval_always_holds_its_median():
    found = interval([100.0] * 8 + [1.0] * 7)
    assert found.low <= found.value <= found.high


def test_one_value_has_no_interval():
    assert interval([5.0]) == Interval(5.0, None, None)


def test_draws_scatter_as_the_rounds_do_and_are_the_same_each_time():
    generator = np.random.default_rng(1)
    shared = generator.normal(0, 0.1, (20, 1))
    rates = np.exp(np.log([100.0, 190.0]) + shared)
    draws = draws_of_rates(rates)
    assert draws.shape == (DRAWS, 2)
    assert np.array_equal(draws, draws_of_rates(rates))
    assert np.log(draws[:, 0]).std() == pytest.approx(np.log(rates[:, 0]).std(ddof=1) / np.sqrt(20), rel=0.15)
    # what all counts of a round share cancels in their ratio
    assert (draws[:, 1] / draws[:, 0]).std() < 1e-9
