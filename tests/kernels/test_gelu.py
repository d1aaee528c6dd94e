import numpy as np
import pytest

from feste_dp.kernels.gelu import gelu_backward, gelu_forward
from tests.kernels.finite_differences import assert_gradients_match, gradients_added

SHAPES = [(1, 1, 1), (2, 3, 5), (1, 4, 33)]

# exp is good to 2 ulp, and its argument, of size up to 30 where the result is not tiny, is off by a few
# roundings: 30 * 4 * 2^-24 of a result that is itself smaller by that much.
FLOAT32_TOLERANCE = 1e-5


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def gelu_derivative(x):
    t = np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * x**2)


@pytest.mark.parametrize("shape", SHAPES)
def test_forward_is_the_tanh_form(shape, rng):
    x = 3 * rng.standard_normal(shape)
    out = np.zeros_like(x)
    gelu_forward(out, x)
    np.testing.assert_allclose(out, gelu(x), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("shape", SHAPES)
def test_backward_adds_the_gradient_of_finite_differences(shape, rng):
    x, dout = 2 * rng.standard_normal(shape), rng.standard_normal(shape)
    out = np.zeros_like(x)

    def loss():
        gelu_forward(out, x)
        return float((out * dout).sum())

    gradients = gradients_added(lambda dx: gelu_backward(dx, dout, x), [x], rng)
    assert_gradients_match(loss, [x], gradients)


def test_float32_agrees_with_float64():
    x = np.linspace(-12, 12, 40_000, dtype=np.float32).reshape(2, 100, 200)
    out, dx = np.zeros_like(x), np.zeros_like(x)
    gelu_forward(out, x)
    gelu_backward(dx, np.ones_like(x), x)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(out, gelu(wide), rtol=FLOAT32_TOLERANCE, atol=FLOAT32_TOLERANCE)
    np.testing.assert_allclose(dx, gelu_derivative(wide), rtol=FLOAT32_TOLERANCE, atol=FLOAT32_TOLERANCE)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_from_zero_it_is_the_identity_or_zero(dtype):
    x = np.array([[[20, 1e3, 1e6, 1e10, -20, -1e3, -1e6, -1e10, 0]]], dtype)
    out, dx = np.zeros_like(x), np.zeros_like(x)
    gelu_forward(out, x)
    gelu_backward(dx, np.ones_like(x), x)
    np.testing.assert_array_equal(out[0, 0, :4], x[0, 0, :4])
    np.testing.assert_allclose(out[0, 0, 4:], 0, atol=1e-27)
    np.testing.assert_array_equal(dx[0, 0, :4], 1)
    np.testing.assert_allclose(dx[0, 0, 4:8], 0, atol=1e-7)
    assert dx[0, 0, 8] == 0.5


def test_nan_stays_nan():
    x = np.full((1, 1, 3), np.nan, np.float32)
    out, dx = np.zeros_like(x), np.zeros_like(x)
    gelu_forward(out, x)
    gelu_backward(dx, np.ones_like(x), x)
    assert np.isnan(out).all() and np.isnan(dx).all()
