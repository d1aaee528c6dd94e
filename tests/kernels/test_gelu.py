import numpy as np
import pytest

from feste_dp.kernels.gelu import gelu_backward_block, gelu_forward_block
from feste_dp.kernels.vector.target import LANES
from tests.kernels.finite_differences import assert_gradients_match
from tests.kernels.gelu_formula import DERIVATIVE_ERROR, FORWARD_ERROR, gelu, gelu_derivative
from tests.kernels.operands import WRITTEN_ONLY_BY_A_BUG

SHAPES = [(1, 1), (6, 5), (4, 33)]


def forward(x):
    out = np.full_like(x, np.nan)
    gelu_forward_block(out, x, 0, x.shape[0], 0, x.shape[1])
    return out


def backward(dout, x):
    dx = dout.copy()
    again = np.full_like(x, np.nan)
    gelu_backward_block(dx, again, x, 0, x.shape[0], 0, x.shape[1])
    wide = x.astype(np.float64)
    error = FORWARD_ERROR if x.itemsize == 4 else 1e-12
    np.testing.assert_array_equal(np.isnan(again), np.isnan(x))
    assert (np.abs(again - gelu(wide)) <= error * np.abs(wide))[~np.isnan(x)].all()
    return dx


@pytest.mark.parametrize("shape", SHAPES)
def test_forward_is_the_tanh_form(shape, rng):
    x = 3 * rng.standard_normal(shape)
    np.testing.assert_allclose(forward(x), gelu(x), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("shape", SHAPES)
def test_backward_turns_the_gradient_into_that_of_finite_differences(shape, rng):
    x, dout = 2 * rng.standard_normal(shape), rng.standard_normal(shape)

    def loss():
        return float((forward(x) * dout).sum())

    assert_gradients_match(loss, [x], [backward(dout, x)])


def whole_range(sign):
    """Each exponent from 2^-120 to 2^33 with 1024 mantissas, and the bend finely."""
    mantissas = np.linspace(1, 2, 1024, endpoint=False, dtype=np.float32)
    exponents = np.concatenate([np.ldexp(mantissas, exponent) for exponent in range(-120, 33)])
    return sign * np.concatenate([exponents, np.linspace(0, 16, 1 << 20, dtype=np.float32)])


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("width", [1 << 10, LANES - 1])
def test_float32_is_within_its_bounds_over_the_whole_range(sign, width):
    # whole vectors of rows of 1024, one by one in rows that are too short for a vector
    x = whole_range(sign)
    x = x[: x.size // width * width].reshape(-1, width)
    wide = x.astype(np.float64)
    assert (np.abs(forward(x) - gelu(wide)) <= FORWARD_ERROR * np.abs(wide)).all()
    assert np.abs(backward(np.ones_like(x), x) - gelu_derivative(wide)).max() <= DERIVATIVE_ERROR


@pytest.mark.parametrize("columns", [1, LANES - 1, LANES, 3 * LANES + 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_only_the_block_is_read_and_written(columns, dtype, rng):
    i0, j0, rows = 2, 3, 4
    block = np.s_[i0 : i0 + rows, j0 : j0 + columns]
    bounds = (i0, i0 + rows, j0, j0 + columns)
    x = np.full((i0 + rows + 1, j0 + columns + LANES), np.nan, dtype)
    x[block] = 2 * rng.standard_normal((rows, columns))
    out, dx, again = (np.full_like(x, WRITTEN_ONLY_BY_A_BUG) for _ in range(3))
    dx[block] = 1
    gelu_forward_block(out, x, *bounds)
    gelu_backward_block(dx, again, x, *bounds)
    wide = x[block].astype(np.float64)
    np.testing.assert_allclose(out[block], gelu(wide), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(again[block], gelu(wide), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(dx[block], gelu_derivative(wide), rtol=1e-5, atol=1e-5)
    for array in (out, dx, again):
        array[block] = WRITTEN_ONLY_BY_A_BUG
        np.testing.assert_array_equal(array, np.full_like(array, WRITTEN_ONLY_BY_A_BUG))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("repeats", [1, LANES])
def test_far_from_zero_it_is_the_identity_or_zero(dtype, repeats):
    x = np.array([[20, 1e3, 1e6, 1e10, -20, -1e3, -1e6, -1e10, 0]] * repeats, dtype).T.copy()
    out, dx = forward(x), backward(np.ones_like(x), x)
    np.testing.assert_array_equal(out[:4], x[:4])
    np.testing.assert_allclose(out[4:], 0, atol=1e-27)
    np.testing.assert_array_equal(dx[:4], 1)
    np.testing.assert_allclose(dx[4:8], 0, atol=1e-7)
    assert (dx[8] == 0.5).all()


@pytest.mark.parametrize("columns", [1, LANES, LANES + 3])
def test_nan_stays_nan_at_any_place(columns, rng):
    for place in range(columns):
        x = rng.standard_normal((1, columns)).astype(np.float32)
        x[0, place] = np.nan
        for result in (forward(x), backward(np.ones_like(x), x), backward(x, np.ones_like(x))):
            assert np.isnan(result[0, place])
            assert np.isfinite(np.delete(result, place)).all()
