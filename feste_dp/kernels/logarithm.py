"""log and log1p in float64, of additions, multiplications and divisions alone: those of a C library differ
from one library to the next in the last bit."""

import math

from feste_dp.kernels.compilation import kernel

_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_ROOT_HALF = 0.7071067811865476


@kernel
def log(x):
    """Natural logarithm of a float64, within 1 ulp: e_log.c of fdlibm (Sun Microsystems, 1993).

    x = 2^k (1 + f), sqrt(1/2) <= 1 + f < sqrt(2)
    log(1 + f) = f - f^2/2 + s (f^2/2 + R(s^2)),  s = f / (2 + f)
    """
    if not x > 0.0:
        return -math.inf if x == 0.0 else math.nan
    if x == math.inf:
        return x
    fraction, k = math.frexp(x)  # exact, whoever computes it
    if fraction < _ROOT_HALF:
        fraction, k = 2.0 * fraction, k - 1
    f = fraction - 1.0
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    odd = w * (3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01))
    even = z * (
        6.666666666666735130e-01
        + w * (2.857142874366239149e-01 + w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01))
    )
    half_square = 0.5 * f * f
    return k * _LN2_HIGH - ((half_square - (s * (half_square + (odd + even)) + k * _LN2_LOW)) - f)


@kernel
def log1p(x):
    """log(1 + x) of a float64 x >= 0, within 4 ulp: what 1 + x loses is made good by x / ((1 + x) - 1)."""
    above = 1.0 + x
    if above == 1.0 or above == math.inf:
        return x
    return log(above) * (x / (above - 1.0))
