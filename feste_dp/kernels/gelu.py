"""GELU, tanh form: D. Hendrycks and K. Gimpel, "Gaussian Error Linear Units" (2016).

x/2 (1 + tanh(u)) is x * sigmoid(2u), which needs one exp and loses no digits near zero.
"""

from feste_dp.kernels.compilation import kernel
from feste_dp.kernels.simd import exp

TWICE_ROOT_2_OVER_PI = 1.5957691216057308
CUBIC = 0.044715


@kernel
def gelu_forward(out, x):
    """out = x * s,  s = sigmoid(2u),  u = sqrt(2 / pi) * (x + 0.044715 x^3)

    out, x   (B, T, F)
    """
    kind = x.dtype.type
    one, scale, cubic = kind(1), kind(TWICE_ROOT_2_OVER_PI), kind(CUBIC)
    flat_out, flat_x = out.reshape(out.size), x.reshape(x.size)
    for i in range(flat_x.size):
        v = flat_x[i]
        flat_out[i] = v / (one + exp(-scale * (v + cubic * v * v * v)))


@kernel
def gelu_backward(dx, dout, x):
    """Adds to dx.

    dx += dout * (s + x * s * (1 - s) * d(2u)/dx),  d(2u)/dx = 2 sqrt(2 / pi) * (1 + 3 * 0.044715 x^2)
    """
    kind = x.dtype.type
    one, scale, cubic, triple = kind(1), kind(TWICE_ROOT_2_OVER_PI), kind(CUBIC), kind(3 * CUBIC)
    flat_dx, flat_dout, flat_x = dx.reshape(dx.size), dout.reshape(dout.size), x.reshape(x.size)
    for i in range(flat_x.size):
        v = flat_x[i]
        s = one / (one + exp(-scale * (v + cubic * v * v * v)))
        flat_dx[i] += flat_dout[i] * (s + v * s * (one - s) * scale * (one + triple * v * v))
