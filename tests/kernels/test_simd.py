import math
from itertools import pairwise

import numba
import numpy as np
import pytest

from feste_dp.kernels.compilation import FASTMATH
from feste_dp.kernels.simd import LANES, TILE_COLUMNS, TILE_ROWS, exp

MAX_ULP = 2.0  # as the docstring of exp promises


@numba.njit(fastmath=FASTMATH)
def exp_of_each(out, x):
    for i in range(x.size):
        out[i] = exp(x[i])


def exp_float32(x):
    out = np.zeros_like(x)
    exp_of_each(out, x)
    return out


def error_in_ulp(x):
    exact = np.exp(x.astype(np.float64))
    return np.abs(exp_float32(x) - exact) / np.spacing(exact.astype(np.float32)).astype(np.float64)


def test_exp_is_within_two_ulp_over_its_whole_range():
    worst = 0.0
    edges = np.linspace(-87.3, 88, 41).astype(np.float32)
    edges[0] = -87.3
    for low, high in pairwise(edges):
        x = np.linspace(low, high, 200_000, dtype=np.float32)
        worst = max(worst, error_in_ulp(x).max())
    assert worst <= MAX_ULP


def test_exp_is_within_two_ulp_for_every_size_of_argument():
    # 2048 mantissas of each exponent from 2^-40 to 2^6, both signs
    mantissas = np.linspace(1, 2, 2048, endpoint=False, dtype=np.float32)
    x = np.concatenate([np.ldexp(mantissas, exponent) for exponent in range(-40, 6)])
    for signed in (x, -x):
        assert error_in_ulp(signed).max() <= MAX_ULP


def test_exp_is_within_two_ulp_where_the_power_of_two_changes():
    x = np.array([(n + 0.5) * math.log(2) for n in range(-125, 126)], np.float32)
    for _ in range(20):
        x = np.nextafter(x, np.float32(-np.inf))
    for _ in range(40):
        assert error_in_ulp(x).max() <= MAX_ULP
        x = np.nextafter(x, np.float32(np.inf))


def test_exp_of_zero_is_one():
    np.testing.assert_array_equal(exp_float32(np.array([0.0, -0.0], np.float32)), 1)


def test_exp_is_clamped_outside_its_range():
    lowest, highest = exp_float32(np.array([-87.3, 88], np.float32))
    below = np.array([-87.4, -1e3, -1e30, -np.inf], np.float32)
    above = np.array([88.1, 1e3, 1e30, np.inf], np.float32)
    np.testing.assert_array_equal(exp_float32(below), lowest)
    np.testing.assert_array_equal(exp_float32(above), highest)
    assert np.finfo(np.float32).tiny < lowest < highest < np.finfo(np.float32).max


@pytest.mark.parametrize("length", [1, LANES, LANES + 1, 5 * LANES + 3])
def test_exp_keeps_a_nan_at_any_place(length):
    for place in range(length):
        x = np.zeros(length, np.float32)
        x[place] = np.nan
        out = exp_float32(x)
        assert np.isnan(out[place])
        assert (np.delete(out, place) == 1).all()


def test_exp_never_falls_as_its_argument_grows():
    out = exp_float32(np.linspace(-90, 90, 100_000, dtype=np.float32))
    assert (np.diff(out) >= 0).all()


def test_exp_of_float64_is_the_c_librarys(rng):
    x = rng.uniform(-700, 700, 1000)
    out = np.zeros_like(x)
    exp_of_each(out, x)
    np.testing.assert_array_equal(out, [math.exp(value) for value in x])
    assert exp(1.0) == math.e


def test_the_register_tile_fits_the_vectors():
    assert TILE_COLUMNS % LANES == 0
    assert TILE_ROWS * TILE_COLUMNS <= 32 * LANES
