import numpy as np
import pytest

from feste_dp.kernels.linear import head_backward, head_forward, linear_backward, linear_forward
from feste_dp.kernels.matmul import make_pack_buffers
from tests.kernels.finite_differences import assert_gradients_match, gradients_added

# (B, T, K, N)
SHAPES = [(1, 1, 1, 1), (2, 3, 5, 4), (1, 7, 3, 9)]

# Chains of at most K = 67 or B T = 39 fused multiply-adds of terms of order one, against the largest sum.
FLOAT32_TOLERANCE = 1e-5


def random_case(shape, rng, dtype=np.float64):
    sequences, positions, inputs, outputs = shape
    x = rng.standard_normal((sequences, positions, inputs)).astype(dtype)
    weight = rng.standard_normal((inputs, outputs)).astype(dtype)
    bias = rng.standard_normal(outputs).astype(dtype)
    return x, weight, bias, rng.standard_normal((sequences, positions, outputs)).astype(dtype)


@pytest.mark.parametrize("shape", SHAPES)
def test_linear_adds_the_gradient_of_finite_differences(shape, rng):
    pack = make_pack_buffers()
    x, weight, bias, dout = random_case(shape, rng)
    out = np.zeros_like(dout)

    def loss():
        linear_forward(out, x, weight, bias, pack)
        return float((out * dout).sum())

    gradients = gradients_added(
        lambda dx, dweight, dbias: linear_backward(dx, dweight, dbias, dout, x, weight, pack),
        [x, weight, bias],
        rng,
    )
    assert_gradients_match(loss, [x, weight, bias], gradients)


@pytest.mark.parametrize("shape", SHAPES)
def test_head_adds_the_gradient_of_finite_differences(shape, rng):
    pack = make_pack_buffers()
    x, weight, _, dlogits = random_case(shape, rng)
    weight = np.ascontiguousarray(weight.T)
    logits = np.zeros_like(dlogits)

    def loss():
        head_forward(logits, x, weight, pack)
        return float((logits * dlogits).sum())

    gradients = gradients_added(
        lambda dx, dweight: head_backward(dx, dweight, dlogits, x, weight, pack), [x, weight], rng
    )
    assert_gradients_match(loss, [x, weight], gradients)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [*SHAPES, (3, 13, 67, 41)])
def test_both_layers_are_the_formulas_of_their_docstrings(shape, dtype, rng):
    pack = make_pack_buffers()
    x, weight, bias, dout = (array.astype(dtype) for array in random_case(shape, rng, np.float32))
    wide_x, wide_weight, wide_dout = x.astype(np.float64), weight.astype(np.float64), dout.astype(np.float64)
    head = np.ascontiguousarray(weight.T)

    out, logits = np.full_like(dout, np.nan), np.full_like(dout, np.nan)
    linear_forward(out, x, weight, bias, pack)
    head_forward(logits, x, head, pack)
    dx, dweight, dbias = np.zeros_like(x), np.zeros_like(weight), np.zeros_like(bias)
    linear_backward(dx, dweight, dbias, dout, x, weight, pack)
    head_dx, dhead = np.zeros_like(x), np.zeros_like(head)
    head_backward(head_dx, dhead, dout, x, head, pack)

    expected_dx = wide_dout @ wide_weight.T
    expected_dweight = np.einsum("btk,btn->kn", wide_x, wide_dout)
    for got, expected in [
        (out, wide_x @ wide_weight + bias),
        (logits, wide_x @ wide_weight),
        (dx, expected_dx),
        (head_dx, expected_dx),
        (dweight, expected_dweight),
        (dhead, expected_dweight.T),
        (dbias, wide_dout.sum((0, 1))),
    ]:
        tolerance = FLOAT32_TOLERANCE if dtype == np.float32 else 1e-12
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * (1 + np.abs(expected).max()))
