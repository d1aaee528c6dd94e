"""GELU, tanh form: D. Hendrycks and K. Gimpel, "Gaussian Error Linear Units" (2016).

x/2 (1 + tanh(u)) is x * sigmoid(2u), which needs one exp and loses no digits near zero. The matrix product
calls both on blocks of its result (matmul.py).
"""

from feste_dp.kernels.compilation import kernel
from feste_dp.kernels.vector.exponential import exp
from feste_dp.kernels.vector.registers import (
    address_of,
    constant_like,
    load_vector,
    multiply_add,
    store_vector,
)
from feste_dp.kernels.vector.target import FLOAT_BYTES, LANES

TWICE_ROOT_2_OVER_PI = 1.5957691216057308
CUBIC = 0.044715


@kernel
def _sigmoid(x):
    """s = sigmoid(2u),  -2u = x (a + b x^2) with one rounding for the sum, a and b below"""
    one, linear, cubic = (
        constant_like(x, 1.0),
        constant_like(x, -TWICE_ROOT_2_OVER_PI),
        constant_like(x, -TWICE_ROOT_2_OVER_PI * CUBIC),
    )
    return one / (one + exp(x * multiply_add(x * x, cubic, linear)))


@kernel
def _gelu(x):
    """x * s,  s = sigmoid(2u),  u = sqrt(2 / pi) * (x + 0.044715 x^3). float32: within 2^-22 |x|."""
    one, linear, cubic = (
        constant_like(x, 1.0),
        constant_like(x, -TWICE_ROOT_2_OVER_PI),
        constant_like(x, -TWICE_ROOT_2_OVER_PI * CUBIC),
    )
    return x / (one + exp(x * multiply_add(x * x, cubic, linear)))


@kernel
def _gelu_derivative(x, s):
    """s + x * s * (1 - s) * d(2u)/dx,  d(2u)/dx = 2 sqrt(2 / pi) * (1 + 3 * 0.044715 x^2). float32: within
    2^-18 for |x| < 2^33. The last sum and the one in d(2u)/dx round once."""
    one, linear, square = (
        constant_like(x, 1.0),
        constant_like(x, TWICE_ROOT_2_OVER_PI),
        constant_like(x, 3 * CUBIC * TWICE_ROOT_2_OVER_PI),
    )
    return multiply_add(x * s * (one - s), multiply_add(x * x, square, linear), s)


@kernel
def gelu_forward_block(out, x, i0, i1, j0, j1):
    """out = gelu(x)

    out, x   (M, F), unit stride along F; only rows i0 .. i1 - 1, columns j0 .. j1 - 1
    """
    for i in range(i0, i1):
        whole = j0
        if x.itemsize == 4:
            whole = j1 - (j1 - j0) % LANES
            source, target = address_of(x[i]), address_of(out[i])
            for j in range(j0, whole, LANES):
                at = FLOAT_BYTES * j
                store_vector(target + at, _gelu(load_vector(source + at)))
        for j in range(whole, j1):
            out[i, j] = _gelu(x[i, j])


@kernel
def gelu_backward_block(dx, out, x, i0, i1, j0, j1):
    """Turns the gradient of gelu(x) into that of x, in place, and has gelu(x) once more, of the same exp.

    dx *= gelu'(x)
    out = gelu(x)

    dx, out, x   (M, F), unit stride along F; only rows i0 .. i1 - 1, columns j0 .. j1 - 1
    """
    for i in range(i0, i1):
        whole = j0
        if x.itemsize == 4:
            whole = j1 - (j1 - j0) % LANES
            source, target, again = address_of(x[i]), address_of(dx[i]), address_of(out[i])
            for j in range(j0, whole, LANES):
                at = FLOAT_BYTES * j
                value = load_vector(source + at)
                s = _sigmoid(value)
                store_vector(again + at, value * s)
                store_vector(target + at, load_vector(target + at) * _gelu_derivative(value, s))
        for j in range(whole, j1):
            s = _sigmoid(x[i, j])
            out[i, j] = x[i, j] * s
            dx[i, j] *= _gelu_derivative(x[i, j], s)
