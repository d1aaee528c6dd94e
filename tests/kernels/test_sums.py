"""The sums over a row against their definition in NumPy, bit for bit, and log against Python's."""

import math

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feste_dp.kernels.adamw import power
from feste_dp.kernels.cross_entropy import cross_entropy_forward
from feste_dp.kernels.layernorm import EPSILON, layernorm_backward, layernorm_forward
from feste_dp.kernels.logarithm import log, log1p
from feste_dp.kernels.normal import fill_normal
from feste_dp.kernels.sums import row_maximum, row_product, row_squares, row_sum
from feste_dp.kernels.vector.exponential import EXP_LOWEST, exp

PARTS = 16

lengths = st.integers(1, 5000)
seeds = st.integers(0, 2**32 - 1)


def defined_sum(terms):
    """16 partial sums, element i to partial i mod 16, padded with zeros; these by halves upon halves."""
    padded = np.concatenate([terms, np.zeros(-len(terms) % PARTS, np.float32)])
    partial = np.zeros(PARTS, np.float32)
    for terms_of_all in padded.reshape(-1, PARTS):
        partial = partial + terms_of_all
    while partial.size > 1:
        half = partial.size // 2
        partial = partial[:half] + partial[half:]
    return partial[0]


def random_row(length, seed):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(length) * 10.0 ** rng.integers(-3, 4, length)).astype(np.float32)


def bits(x):
    return np.asarray(x, np.float32).tobytes()


def at(x):
    return x.ctypes.data


@settings(max_examples=200, deadline=None)
@given(lengths, seeds)
def test_sums_over_a_row_are_their_definition(length, seed):
    x, y = random_row(length, seed), random_row(length, seed + 1)
    mean = np.float32(0.3)
    assert bits(row_sum(at(x), length)) == bits(defined_sum(x))
    assert bits(row_product(at(x), at(y), length)) == bits(defined_sum(x * y))
    assert bits(row_squares(at(x), length, mean)) == bits(defined_sum((x - mean) * (x - mean)))
    assert row_maximum(at(x), length) == x.max()


@pytest.mark.parametrize("length", [1, 15, 16, 17, 67, 200])
def test_a_nan_in_a_row_is_its_maximum_and_its_sum(length):
    for place in range(length):
        x = random_row(length, 5)
        x[place] = np.nan
        assert np.isnan(row_maximum(at(x), length)) and np.isnan(row_sum(at(x), length))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 900), seeds)
def test_layer_norm_is_its_definition(channels, seed):
    x, weight, bias, dout, dx = (random_row(channels, seed + i).reshape(1, 1, -1) for i in range(5))
    out, mean, rstd = np.empty_like(x), np.empty((2, 1, 1), np.float32)[0], np.empty((1, 1), np.float32)
    layernorm_forward(out, mean, rstd, x, weight[0, 0], bias[0, 0])
    row, count = x[0, 0], np.float32(channels)
    m = defined_sum(row) / count
    squares = defined_sum((row - m) * (row - m))
    r = np.float32(1.0 / math.sqrt(float(squares) / channels + EPSILON))
    assert bits(mean[0, 0]) == bits(m) and bits(rstd[0, 0]) == bits(r)
    assert bits(out) == bits((row - m) * r * weight[0, 0] + bias[0, 0])

    dweight, dbias, before = np.ones(channels, np.float32), np.ones(channels, np.float32), dx.copy()
    layernorm_backward(dx, dweight, dbias, dout, x, weight[0, 0], mean, rstd)
    xhat, dxhat = (row - m) * r, dout[0, 0] * weight[0, 0]
    first, second = defined_sum(dxhat) / count, defined_sum(dxhat * xhat) / count
    assert bits(dx) == bits(before[0, 0] + r * (dxhat - first - xhat * second))
    assert bits(dweight) == bits(1 + dout[0, 0] * xhat) and bits(dbias) == bits(1 + dout[0, 0])


@numba.njit
def exp_of_each(x):
    out = np.empty_like(x)
    for i in range(x.size):
        out[i] = exp(x[i])
    return out


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 3000), seeds)
def test_the_sum_in_cross_entropy_is_its_definition(tokens, seed):
    logits = (10 * random_row(tokens, seed) / 1000).reshape(1, 1, -1)
    target = seed % tokens
    losses, highest, others = np.empty((3, 1, 1), np.float32)
    kept = logits.copy()
    cross_entropy_forward(losses, highest, others, logits, np.array([[target]]))
    distance = kept[0, 0] - kept.max()
    terms = np.where(distance < np.float32(EXP_LOWEST), np.float32(0), exp_of_each(distance))
    terms[target] = 0
    assert bits(others) == bits(defined_sum(terms)) and bits(kept) == bits(logits)


def ulps(found, expected):
    return abs(found - expected) / math.ulp(expected) if expected else abs(found)


@given(st.floats(min_value=5e-324, allow_nan=False, allow_infinity=False))
def test_log_is_within_one_ulp(x):
    assert ulps(log(x), math.log(x)) <= 1


@given(st.floats(min_value=0, allow_nan=False, allow_infinity=False))
def test_log1p_is_within_four_ulp(x):
    assert ulps(log1p(x), math.log1p(x)) <= 4


def test_log_at_the_ends_of_its_range():
    assert log(0.0) == -math.inf and log(math.inf) == math.inf and log(1.0) == 0.0
    assert math.isnan(log(-1.0)) and math.isnan(log(math.nan)) and math.isnan(log1p(math.nan))
    assert log1p(math.inf) == math.inf


@given(st.floats(0.5, 1.0), st.integers(0, 10**6))
def test_powers_are_those_of_python(base, exponent):
    assert power(base, exponent) == pytest.approx(base**exponent, rel=1e-9, abs=1e-300)


def test_normal_numbers_have_the_moments_and_the_tails_of_the_distribution():
    z = np.empty(1_000_001, np.float32)
    fill_normal(z, 1.0, 3, np.uint64(7))
    wide = z.astype(np.float64)
    assert abs(wide.mean()) < 5e-3 and abs(wide.var() - 1) < 1e-2
    assert abs((wide**3).mean()) < 2e-2 and abs((wide**4).mean() - 3) < 5e-2
    for limit, outside in ((1, 0.31731), (2, 0.04550), (3, 0.00270), (4, 6.33e-5)):
        assert (np.abs(wide) > limit).mean() == pytest.approx(outside, rel=0.02 if limit < 4 else 0.3)
    pairs = np.corrcoef(wide[:-1:2], wide[1::2])[0, 1]
    assert abs(pairs) < 5e-3
    shorter = np.empty(1001, np.float32)
    fill_normal(shorter, 1.0, 3, np.uint64(7))
    np.testing.assert_array_equal(shorter, z[:1001])
    fill_normal(shorter, 1.0, 4, np.uint64(7))
    assert not (shorter == z[:1001]).any()
