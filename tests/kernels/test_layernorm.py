import numpy as np
import pytest

from feste_dp.kernels.layernorm import EPSILON, layernorm_backward, layernorm_forward
from tests.kernels.finite_differences import assert_gradients_match, gradients_added

SHAPES = [(1, 1, 1), (1, 1, 2), (2, 3, 7), (3, 2, 16)]

# Sums of C = 300 terms of order one, and of B T = 15 terms of order ten for the gradients: a few dozen
# roundings of 2^-24 each.
FLOAT32_TOLERANCE = 1e-5


def random_case(shape, rng, dtype=np.float64):
    x = (1.5 * rng.standard_normal(shape) + 0.5).astype(dtype)
    weight = rng.standard_normal(shape[2]).astype(dtype)
    bias = rng.standard_normal(shape[2]).astype(dtype)
    return x, weight, bias


def forward(x, weight, bias):
    out = np.zeros_like(x)
    mean, rstd = np.zeros(x.shape[:2], x.dtype), np.zeros(x.shape[:2], x.dtype)
    layernorm_forward(out, mean, rstd, x, weight, bias)
    return out, mean, rstd


def formula(x, weight, bias):
    mean = x.mean(2, keepdims=True)
    return (x - mean) / np.sqrt(((x - mean) ** 2).mean(2, keepdims=True) + EPSILON) * weight + bias


@pytest.mark.parametrize("shape", SHAPES)
def test_forward_is_the_formula_of_its_docstring(shape, rng):
    x, weight, bias = random_case(shape, rng)
    out, mean, rstd = forward(x, weight, bias)
    np.testing.assert_allclose(out, formula(x, weight, bias), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(mean, x.mean(2), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(rstd, 1 / np.sqrt(x.var(2) + EPSILON), rtol=1e-11)


@pytest.mark.parametrize("shape", SHAPES[1:])
def test_backward_adds_the_gradient_of_finite_differences(shape, rng):
    x, weight, bias = random_case(shape, rng)
    # two channels close together would make the fifth derivative, and the stencil's error, large
    x[..., 0] += 3
    dout = rng.standard_normal(shape)

    def loss():
        return float((forward(x, weight, bias)[0] * dout).sum())

    _, mean, rstd = forward(x, weight, bias)
    gradients = gradients_added(
        lambda dx, dweight, dbias: layernorm_backward(dx, dweight, dbias, dout, x, weight, mean, rstd),
        [x, weight, bias],
        rng,
    )
    assert_gradients_match(loss, [x, weight, bias], gradients)


def test_float32_agrees_with_float64(rng):
    shape = (3, 5, 300)
    narrow = (*random_case(shape, rng, np.float32), rng.standard_normal(shape).astype(np.float32))

    def results(x, weight, bias, dout):
        out, mean, rstd = forward(x, weight, bias)
        gradients = [np.zeros_like(x), np.zeros_like(weight), np.zeros_like(bias)]
        layernorm_backward(*gradients, dout, x, weight, mean, rstd)
        return [out, mean, rstd, *gradients]

    wide = results(*(array.astype(np.float64) for array in narrow))
    for got, expected in zip(results(*narrow), wide, strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected, rtol=0, atol=FLOAT32_TOLERANCE * np.abs(expected).max())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_constant_row_becomes_the_bias(dtype):
    x = np.full((1, 2, 5), 2.5, dtype)
    weight, bias = np.full(5, 7, dtype), np.arange(5).astype(dtype)
    out, _, rstd = forward(x, weight, bias)
    np.testing.assert_array_equal(out[0], np.stack([bias, bias]))
    np.testing.assert_allclose(rstd, EPSILON**-0.5, rtol=1e-6)


def test_a_large_offset_does_not_swamp_the_variance(rng):
    # exact in float32: multiples of 1/64 around 4096; the mean is off by at most one rounding, 2^-12
    x = (4096 + rng.integers(-64, 64, (1, 4, 256)) / 64).astype(np.float32)
    weight, bias = np.ones(256, np.float32), np.zeros(256, np.float32)
    out, _, _ = forward(x, weight, bias)
    np.testing.assert_allclose(out, formula(x.astype(np.float64), weight, bias), rtol=0, atol=2.0**-10)


def test_large_values_do_not_overflow(rng):
    x = (1e15 * rng.standard_normal((1, 3, 64))).astype(np.float32)
    out, _, _ = forward(x, np.ones(64, np.float32), np.zeros(64, np.float32))
    expected = formula(x.astype(np.float64), 1, 0)
    np.testing.assert_allclose(out, expected, rtol=0, atol=FLOAT32_TOLERANCE * np.abs(expected).max())


def test_a_nan_fills_its_row_and_no_other(rng):
    x = rng.standard_normal((1, 3, 20)).astype(np.float32)
    x[0, 1, 19] = np.nan
    out, _, _ = forward(x, np.ones(20, np.float32), np.zeros(20, np.float32))
    assert np.isnan(out[0, 1]).all()
    assert np.isfinite(out[0, [0, 2]]).all()
