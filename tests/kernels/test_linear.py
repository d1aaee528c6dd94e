import numpy as np
import pytest

from feste_dp.kernels.linear import (
    gelu_linear_backward,
    head_backward,
    head_forward,
    linear_backward,
    linear_forward,
    linear_gelu_forward,
    linear_residual_forward,
)
from feste_dp.kernels.packing import make_pack_buffers
from tests.kernels.finite_differences import assert_gradients_match, gradients_added
from tests.kernels.gelu_formula import gelu, gelu_derivative
from tests.kernels.operands import both_precisions, rounded_to_bfloat16

# (B, T, K, N)
SHAPES = [(1, 1, 1, 1), (2, 3, 5, 4), (1, 7, 3, 9)]

# Chains of at most K = 67 or B T = 39 fused multiply-adds of terms of order one, against the largest sum.
FLOAT32_TOLERANCE = 1e-5

accumulate_or_not = pytest.mark.parametrize("accumulate", [False, True], ids=["overwrite", "accumulate"])


def random_case(shape, rng, dtype=np.float64):
    sequences, positions, inputs, outputs = shape
    x = rng.standard_normal((sequences, positions, inputs)).astype(dtype)
    weight = rng.standard_normal((inputs, outputs)).astype(dtype)
    bias = rng.standard_normal(outputs).astype(dtype)
    return x, weight, bias, rng.standard_normal((sequences, positions, outputs)).astype(dtype)


def gradients(backward, dx, dweight, dbias, accumulate, rng):
    """What backward(dx, dweight, dbias) overwrites or adds; the arrays say the shapes. What is overwritten
    holds NaN before."""
    dx, fresh_dweight = np.full_like(dx, np.nan), np.full_like(dweight, np.nan)
    if accumulate:
        dweight, dbias = gradients_added(lambda dw, db: backward(dx, dw, db), [dweight, dbias], rng)
        return dx, dweight, dbias
    (dbias,) = gradients_added(lambda db: backward(dx, fresh_dweight, db), [dbias], rng)
    return dx, fresh_dweight, dbias


@accumulate_or_not
@pytest.mark.parametrize("shape", SHAPES)
def test_linear_writes_the_gradient_of_finite_differences(shape, accumulate, rng):
    pack = make_pack_buffers()
    x, weight, bias, dout = random_case(shape, rng)
    out = np.zeros_like(dout)

    def loss():
        linear_forward(out, x, weight, bias, pack)
        return float((out * dout).sum())

    def backward(dx, dweight, dbias):
        linear_backward(dx, dweight, dbias, dout, x, weight, accumulate, pack)

    got = gradients(backward, x, weight, bias, accumulate, rng)
    assert_gradients_match(loss, [x, weight, bias], got)


@accumulate_or_not
@pytest.mark.parametrize("shape", SHAPES)
def test_linear_after_gelu_writes_the_gradient_of_finite_differences(shape, accumulate, rng):
    pack = make_pack_buffers()
    pre, weight, bias, dout = random_case(shape, rng)
    out, hidden, identity = np.zeros_like(dout), np.zeros_like(pre), np.eye(shape[2])
    gelu_pre = np.zeros_like(pre)

    def loss():
        linear_gelu_forward(hidden, gelu_pre, pre, identity, np.zeros(shape[2]), pack)
        linear_forward(out, gelu_pre, weight, bias, pack)
        return float((out * dout).sum())

    loss()
    np.testing.assert_array_equal(hidden, pre)

    def backward(dpre, dweight, dbias):
        gelu_linear_backward(
            dpre, dweight, dbias, dout, pre, np.full_like(pre, np.nan), weight, accumulate, pack
        )

    got = gradients(backward, pre, weight, bias, accumulate, rng)
    assert_gradients_match(loss, [pre, weight, bias], got)


@accumulate_or_not
@pytest.mark.parametrize("shape", SHAPES)
def test_head_writes_the_gradient_of_finite_differences(shape, accumulate, rng):
    pack = make_pack_buffers()
    x, weight, _, dlogits = random_case(shape, rng)
    weight = np.ascontiguousarray(weight.T)
    logits = np.zeros_like(dlogits)

    def loss():
        head_forward(logits, x, weight, pack)
        return float((logits * dlogits).sum())

    def backward(dx, dweight, _):
        head_backward(dx, dweight, dlogits, x, weight, accumulate, pack)

    dx, dweight, _ = gradients(backward, x, weight, np.zeros(0), accumulate, rng)
    assert_gradients_match(loss, [x, weight], [dx, dweight])


def kernels_and_formulas(shape, dtype, bf16, accumulate, rng):
    """All results of all pairs, each with its formula; in bf16 of the operands as they are multiplied."""
    pack = make_pack_buffers(bf16)
    x, weight, bias, dout = (array.astype(dtype) for array in random_case(shape, rng, np.float32))
    residual, head = dout[:, ::-1].copy(), np.ascontiguousarray(weight.T)

    def wide(array):
        return (rounded_to_bfloat16(array) if bf16 else array).astype(np.float64)

    wide_x, wide_weight, wide_dout = wide(x), wide(weight), wide(dout)
    products = wide_x @ wide_weight
    dproducts, dx_products = np.einsum("btk,btn->kn", wide_x, wide_dout), wide_dout @ wide_weight.T

    out, gelu_out = np.full_like(dout, np.nan), np.full_like(dout, np.nan)
    linear_forward(out, x, weight, bias, pack)
    yield "linear_forward", out.copy(), products + bias
    linear_gelu_forward(out, gelu_out, x, weight, bias, pack)
    yield "linear_gelu_forward: out", out.copy(), products + bias
    yield "linear_gelu_forward: gelu_out", gelu_out, gelu(products + bias)
    linear_residual_forward(out, x, weight, bias, residual, pack)
    yield "linear_residual_forward", out.copy(), products + bias + residual
    head_forward(out, x, head, pack)
    yield "head_forward", out.copy(), products

    def fresh():
        return (
            np.full_like(x, np.nan),
            np.ones_like(weight) if accumulate else np.full_like(weight, np.nan),
            np.ones_like(bias),
        )

    dx, dweight, dbias = fresh()
    linear_backward(dx, dweight, dbias, dout, x, weight, accumulate, pack)
    yield "linear_backward: dx", dx, dx_products
    yield "linear_backward: dweight", dweight - accumulate, dproducts
    yield "linear_backward: dbias", dbias - 1, dout.astype(np.float64).sum((0, 1))

    dpre, dweight, dbias = fresh()
    pre = x[:, ::-1].copy()
    gelu_pre = np.full_like(pre, np.nan)
    gelu_linear_backward(dpre, dweight, dbias, dout, pre, gelu_pre, weight, accumulate, pack)
    yield "gelu_linear_backward: dpre", dpre, dx_products * gelu_derivative(pre.astype(np.float64))
    yield "gelu_linear_backward: gelu_pre", gelu_pre, gelu(pre.astype(np.float64))
    dweight_products = np.einsum("btk,btn->kn", wide(gelu_pre), wide_dout)
    yield "gelu_linear_backward: dweight", dweight - accumulate, dweight_products
    yield "gelu_linear_backward: dbias", dbias - 1, dout.astype(np.float64).sum((0, 1))

    head_dx, dhead, _ = fresh()
    dhead = np.ascontiguousarray(dhead.T)
    head_backward(head_dx, dhead, dout, x, head, accumulate, pack)
    yield "head_backward: dx", head_dx, dx_products
    yield "head_backward: dweight", dhead - accumulate, dproducts.T


@accumulate_or_not
@both_precisions
@pytest.mark.parametrize("shape", [*SHAPES, (3, 13, 67, 41), (2, 24, 96, 64)])
def test_all_layers_are_the_formulas_of_their_docstrings(shape, bf16, accumulate, rng):
    for name, got, expected in kernels_and_formulas(shape, np.float32, bf16, accumulate, rng):
        tolerance = FLOAT32_TOLERANCE * (1 + np.abs(expected).max())
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance, err_msg=name)


@accumulate_or_not
@pytest.mark.parametrize("shape", SHAPES)
def test_in_float64_all_layers_are_the_formulas_to_the_last_digits(shape, accumulate, rng):
    for name, got, expected in kernels_and_formulas(shape, np.float64, False, accumulate, rng):
        tolerance = 1e-12 * (1 + np.abs(expected).max())
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance, err_msg=name)
