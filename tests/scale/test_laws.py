"""The fits find the law that made the figures, say how sure they are, and refuse what they cannot know."""

import numpy as np
import pytest

from feste_dp.scale.laws import AMDAHL, FARTHEST, GUSTAFSON, USL, coefficients, fit_law, fit_laws, parameters

COUNTS = [1, 2, 4, 8]
N = np.array(COUNTS, np.float64)


def amdahl(n, one=1000.0, serial=0.05):
    return one * n / (1 + serial * (n - 1))


def usl(n, one=1000.0, contention=0.05, coherency=0.002):
    return one * n / (1 + contention * (n - 1) + coherency * n * (n - 1))


def gustafson(n, one=1000.0, serial=0.1):
    return one * (n - serial * (n - 1))


def rounds(rates, scatter=0.01, drift=0.05, count=6, seed=3):
    """Rounds with noise of their own, and a drift that all counts of a round share."""
    generator = np.random.default_rng(seed)
    own = generator.normal(0, scatter, (count, len(rates)))
    return rates * np.exp(own + generator.normal(0, drift, (count, 1)))


@pytest.mark.parametrize(
    ("form", "rates", "expected"),
    [
        (AMDAHL, amdahl(N), {"tokens_per_second_of_one": 1000.0, "serial_fraction": 0.05}),
        (GUSTAFSON, gustafson(N), {"tokens_per_second_of_one": 1000.0, "serial_fraction": 0.1}),
        (USL, usl(N), {"tokens_per_second_of_one": 1000.0, "contention": 0.05, "coherency": 0.002}),
        # USL without coherency is Amdahl's law, with the same serial fraction
        (USL, amdahl(N), {"tokens_per_second_of_one": 1000.0, "contention": 0.05, "coherency": 0.0}),
    ],
)
def test_a_fit_finds_the_law_that_made_the_rates(form, rates, expected):
    assert parameters(form, coefficients(form, N, rates)) == pytest.approx(expected, abs=1e-6)


def test_better_than_perfect_scaling_is_no_negative_fraction():
    found = parameters(USL, coefficients(USL, N, 1000 * N**1.05))
    assert found["contention"] == 0 and found["coherency"] == 0
    assert parameters(AMDAHL, coefficients(AMDAHL, N, 1000 * N**1.05))["serial_fraction"] == 0


def test_rates_that_fall_are_a_fraction_of_at_most_one():
    found = parameters(AMDAHL, coefficients(AMDAHL, N, 1000 / N))
    assert found["serial_fraction"] == pytest.approx(1.0)


def test_drift_of_whole_rounds_does_not_widen_the_serial_fraction():
    fit = fit_law(AMDAHL, COUNTS, rounds(amdahl(N), scatter=0.003, drift=0.1))
    serial = fit.parameters["serial_fraction"]
    assert serial.value == pytest.approx(0.05, abs=0.002)
    assert 0 < serial.high - serial.low < 0.005
    one = fit.parameters["tokens_per_second_of_one"]
    assert one.low < 1000 < one.high and one.high - one.low > 100


def test_about_95_percent_of_the_intervals_hold_the_truth():
    fits = [fit_law(AMDAHL, COUNTS, rounds(amdahl(N), count=5, seed=seed)) for seed in range(30)]
    holding = sum(
        fit.parameters["serial_fraction"].low <= 0.05 <= fit.parameters["serial_fraction"].high
        for fit in fits
    )
    assert holding >= 26


def test_the_curve_goes_to_128_workers_and_its_interval_widens_on_the_way():
    fit = fit_law(USL, COUNTS, rounds(usl(N)))
    assert [point.workers for point in fit.curve] == [1, 2, 4, 8, 16, 32, 64, FARTHEST]
    widths = [p.tokens_per_second.high / p.tokens_per_second.low for p in fit.curve]
    assert widths[-1] > widths[3]
    assert fit.parameters["best_count"].value == pytest.approx(np.sqrt(0.95 / 0.002), rel=0.5)
    assert fit.largest_residual is not None and "extrapolated" in fit.note


def test_two_counts_give_amdahl_s_law_untested_and_no_usl():
    n = np.array([1.0, 2.0])
    law, usl_fit = fit_laws("strong", [1, 2], rounds(amdahl(n)))
    assert law.largest_residual is None and "nothing tests the law" in law.note
    assert law.parameters["serial_fraction"].value == pytest.approx(0.05, abs=0.03)
    assert usl_fit.parameters == {} and usl_fit.curve == []
    assert usl_fit.note == (
        "not fitted: 3 parameters need as many counts within the physical cores, there are 2"
    )


def test_one_round_has_no_interval_and_says_so():
    fit = fit_law(AMDAHL, COUNTS, amdahl(N)[None, :])
    assert fit.parameters["serial_fraction"].low is None and fit.curve[0].tokens_per_second.high is None
    assert "one round: no interval" in fit.note


def test_weak_scaling_takes_gustafson_s_law():
    law, other = fit_laws("weak", COUNTS, gustafson(N)[None, :])
    assert (law.law, other.law) == ("Gustafson", "USL")
    assert law.parameters["serial_fraction"].value == pytest.approx(0.1)
