"""exp in float32, for single values and for vectors: a plain chain of operations, so loops around it
vectorise."""

import math

from numba import types
from numba.extending import intrinsic, overload

from feste_dp.kernels.vector.llvm import I32, VECTOR, WORDS, constant_of, fma_of
from feste_dp.kernels.vector.registers import vector

# exp(r) on |r| <= ln(2)/2: minimax coefficients of degree 6 (Cephes expf, S. Moshier, 1989).
_EXP_COEFFICIENTS = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
EXP_LOWEST, _EXP_HIGHEST = -87.3, 88.0


# Added to a number below 2^22, it leaves the nearest whole number, and a float's exponent bias of 127, in the
# low bits of the sum.
_ROUND_TO_WHOLE = 1.5 * 2**23 + 127


def _exp_float32(builder, x):
    """2^n * exp(r), n the nearest whole number to x / ln(2): n comes out of an addition, 2^n is
    a shift of its bits."""
    kind = x.type
    integer = WORDS if kind == VECTOR else I32
    # `x if not below` keeps a NaN, min/max would lose it
    for bound, below in ((EXP_LOWEST, "<"), (_EXP_HIGHEST, ">")):
        limit = constant_of(kind, bound)
        x = builder.select(builder.fcmp_ordered(below, x, limit), limit, x)
    shifted = fma_of(builder, x, constant_of(kind, 1 / math.log(2)), constant_of(kind, _ROUND_TO_WHOLE))
    n = builder.fsub(shifted, constant_of(kind, _ROUND_TO_WHOLE))
    r = fma_of(builder, n, constant_of(kind, -_LN2_HIGH), x)
    r = fma_of(builder, n, constant_of(kind, -_LN2_LOW), r)
    y = constant_of(kind, _EXP_COEFFICIENTS[0])
    for coefficient in _EXP_COEFFICIENTS[1:]:
        y = fma_of(builder, y, r, constant_of(kind, coefficient))
    y = fma_of(builder, y, builder.fmul(r, r), r)
    y = builder.fadd(y, constant_of(kind, 1.0))
    power = builder.shl(builder.bitcast(shifted, integer), constant_of(integer, 23))
    return builder.fmul(y, builder.bitcast(power, kind))


@intrinsic
def _exp_scalar(typingctx, x):
    return types.float32(types.float32), lambda context, builder, signature, args: _exp_float32(
        builder, *args
    )


@intrinsic
def _exp_vector(typingctx, x):
    return vector(vector), lambda context, builder, signature, args: _exp_float32(builder, *args)


def exp(x):
    """e**x. float32 and vectors of it: within 2 ulp on [-87.3, 88], clamped to that range outside, NaN stays
    NaN; a plain chain of operations, so loops around it vectorise. float64: the C library's."""
    return math.exp(x)


@overload(exp)
def _exp(x):
    if x == types.float32:
        return lambda x: _exp_scalar(x)
    if x == vector:
        return lambda x: _exp_vector(x)
    return lambda x: math.exp(x)
