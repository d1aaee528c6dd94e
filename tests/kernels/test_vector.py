import math
from itertools import pairwise

import numba
import numpy as np
import pytest

from feste_dp.kernels.vector.exponential import exp
from feste_dp.kernels.vector.moves import (
    transpose_rows,
    transpose_rows_bf16,
    transpose_some_rows,
    transpose_some_rows_bf16,
    transpose_square,
    transpose_square_bf16,
)
from feste_dp.kernels.vector.registers import (
    constant_like,
    lane_numbers,
    load_vector,
    maximum,
    spread,
    store_vector,
    sum_of_lanes,
    where_less,
)
from feste_dp.kernels.vector.target import FLOAT_BYTES, LANES, ROW_STEP, ROW_TILE, TILE_COLUMNS, TILE_ROWS
from tests.kernels.operands import PRECISIONS, WRITTEN_ONLY_BY_A_BUG, bfloat16_bits, random_matrix

MAX_ULP = 2.0  # as the docstring of exp promises


@numba.njit
def exp_of_each(out, x):
    for i in range(x.size):
        out[i] = exp(x[i])


@numba.njit
def exp_of_vectors(out, x):
    for i in range(0, x.size, LANES):
        at = FLOAT_BYTES * i
        store_vector(out.ctypes.data + at, exp(load_vector(x.ctypes.data + at)))


def exp_float32(x):
    """e**x, one by one and by vectors, which must agree to the last bit."""
    out, whole = np.zeros_like(x), np.zeros(x.size + -x.size % LANES, np.float32)
    exp_of_each(out, x)
    whole[: x.size] = x
    exp_of_vectors(whole, whole)
    numbers = ~np.isnan(x)
    by_vectors = whole[: x.size]
    np.testing.assert_array_equal(out[numbers].view(np.uint32), by_vectors[numbers].view(np.uint32))
    assert np.isnan(by_vectors[~numbers]).all()
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


def test_exp_is_within_two_ulp_on_every_thousandth_float_there_is():
    x = np.arange(0, 1 << 32, 997, dtype=np.uint64).astype(np.uint32).view(np.float32)
    out, inside = exp_float32(x), (x >= -87.3) & (x <= 88)
    exact = np.exp(x[inside].astype(np.float64))
    ulp = np.spacing(exact.astype(np.float32)).astype(np.float64)
    assert (np.abs(out[inside] - exact) <= MAX_ULP * ulp).all()
    assert np.isnan(out[np.isnan(x)]).all() and inside.sum() > 1_000_000


@numba.njit
def maximum_of_each(out, x, y):
    for i in range(x.size):
        out[i] = maximum(x[i], y[i])


@numba.njit
def maximum_of_vectors(out, x, y):
    value = maximum(load_vector(x.ctypes.data), load_vector(y.ctypes.data))
    store_vector(out.ctypes.data, value)


@pytest.mark.parametrize("kernel", [maximum_of_each, maximum_of_vectors])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_maximum_is_the_larger_one_and_a_nan_on_either_side_stays(kernel, dtype):
    if kernel is maximum_of_vectors:
        dtype = np.float32  # the only type of a vector
    values = np.array([np.nan, -np.inf, -2, -0.5, 0, 1e-40, 1, 3e38, np.inf], dtype)
    x, y = (pairs.ravel() for pairs in np.meshgrid(values, values))
    for i in range(x.size):
        # each pair in each lane, between other numbers
        for lane in range(LANES) if i % 7 == 0 else (i % LANES,):
            left, right, out = (np.full(LANES, number, dtype) for number in (1, 2, 0))
            left[lane], right[lane] = x[i], y[i]
            kernel(out, left, right)
            np.testing.assert_array_equal(out, np.maximum(left, right))


def test_maximum_of_a_row_with_a_nan_at_any_place_is_nan():
    @numba.njit
    def highest(x):
        found = x[0]
        for i in range(x.size):
            found = maximum(found, x[i])
        return found

    for length in (1, LANES, 4 * LANES + 3, 200):
        x = np.arange(length, dtype=np.float32)
        assert highest(x) == length - 1
        for place in range(length):
            x[:] = np.arange(length)
            x[place] = np.nan
            assert np.isnan(highest(x))


@numba.njit
def vector_operations(out, x, y, z):
    to, width = out.ctypes.data, FLOAT_BYTES * LANES
    a, b, c = load_vector(x.ctypes.data), load_vector(y.ctypes.data), load_vector(z.ctypes.data)
    store_vector(to, a + b)
    store_vector(to + width, a - b)
    store_vector(to + 2 * width, a * b)
    store_vector(to + 3 * width, a / b)
    store_vector(to + 4 * width, where_less(a, b, c, a))
    store_vector(to + 5 * width, spread(z[0]) + lane_numbers())
    store_vector(to + 6 * width, constant_like(a, 0.3))


def test_every_operation_of_a_vector_is_that_of_its_floats(rng):
    x, y, z = random_matrix(rng, 3, LANES)
    x[1], y[2] = np.nan, np.nan
    out = np.full((8, LANES), WRITTEN_ONLY_BY_A_BUG)
    vector_operations(out, x, y, z)
    numbers = np.arange(LANES, dtype=np.float32)
    expected = [x + y, x - y, x * y, x / y, np.where(x < y, z, x), z[0] + numbers, np.full_like(x, 0.3)]
    np.testing.assert_array_equal(out, [*expected, np.full_like(x, WRITTEN_ONLY_BY_A_BUG)])


def test_the_lanes_of_a_vector_are_summed_by_halves(rng):
    @numba.njit
    def total(x):
        return sum_of_lanes(load_vector(x.ctypes.data))

    x = random_matrix(rng, 1, LANES)[0]
    halves = x
    while halves.size > 1:
        halves = halves[: halves.size // 2] + halves[halves.size // 2 :]
    assert total(x) == halves[0]
    x[LANES - 1] = np.nan
    assert np.isnan(total(x))


def test_a_constant_takes_the_type_of_its_like():
    @numba.njit
    def third_like(x):
        return constant_like(x, 1 / 3)

    assert third_like(np.float32(1)) == np.float32(1 / 3) == constant_like(np.float32(1), 1 / 3)
    assert third_like(1.0) == 1 / 3 == constant_like(1.0, 1 / 3)


TRANSPOSES = {
    "rows": (transpose_rows, ROW_TILE, False),
    "square": (transpose_square, LANES, False),
    "rows of bf16": (transpose_rows_bf16, ROW_TILE, True),
    "square of bf16": (transpose_square_bf16, LANES, True),
}


@pytest.mark.parametrize("name", [name for name, (_, _, bf16) in TRANSPOSES.items() if bf16 in PRECISIONS])
def test_a_transposed_tile_is_written_where_it_belongs_and_nowhere_else(name, rng):
    transpose, height, bf16 = TRANSPOSES[name]

    @numba.njit
    def call(target, source):
        address = target.ctypes.data + FLOAT_BYTES * 3
        transpose(address, target.shape[1], source.ctypes.data + FLOAT_BYTES * 5, source.shape[1])

    width = LANES * (2 if bf16 else 1)
    source = np.full((height, width + 11), np.nan, np.float32)
    source[:, 5 : 5 + width] = tile = random_matrix(rng, height, width)
    target = np.full((LANES, height + 7), WRITTEN_ONLY_BY_A_BUG)
    expected = target.copy()
    if bf16:
        bits = bfloat16_bits(tile).astype(np.uint32)
        tile = (bits[:, 0::2] | bits[:, 1::2] << 16).view(np.float32)
    expected[:, 3 : 3 + height] = tile.T
    call(target, source)
    np.testing.assert_array_equal(target.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("bf16", PRECISIONS)
@pytest.mark.parametrize("present", [-1, 0, 1, ROW_TILE - 1, ROW_TILE])
def test_a_transposed_tile_of_fewer_rows_reads_these_alone_and_has_zeros_for_the_rest(present, bf16, rng):
    transpose = transpose_some_rows_bf16 if bf16 else transpose_some_rows

    @numba.njit
    def call(target, source, present):
        transpose(target.ctypes.data, target.shape[1], source.ctypes.data, source.shape[1], present)

    source = np.full((ROW_TILE, LANES * (2 if bf16 else 1)), np.nan, np.float32)
    source[: max(0, present)] = tile = random_matrix(rng, max(0, present), source.shape[1])
    target, expected = (
        np.full((LANES, ROW_TILE), WRITTEN_ONLY_BY_A_BUG),
        np.zeros((LANES, ROW_TILE), np.float32),
    )
    if bf16:
        bits = bfloat16_bits(tile).astype(np.uint32)
        tile = (bits[:, 0::2] | bits[:, 1::2] << 16).view(np.float32)
    expected[:, : max(0, present)] = tile.T
    call(target, source, present)
    np.testing.assert_array_equal(target.view(np.uint32), expected.view(np.uint32))


def test_the_register_tile_fits_the_vectors():
    assert TILE_COLUMNS % LANES == 0
    assert TILE_ROWS * TILE_COLUMNS <= 32 * LANES
    assert TILE_ROWS % ROW_STEP == 0 and TILE_ROWS % ROW_TILE == 0 and ROW_STEP % 2 == 0
