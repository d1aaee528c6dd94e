"""Normally distributed numbers, the same everywhere: of Philox, and of additions, multiplications, divisions
and square roots. NumPy's ask the C library for rare ones, and may be others in another release.
"""

import math

import numpy as np

from feste_dp.kernels.compilation import kernel
from feste_dp.kernels.logarithm import log
from feste_dp.kernels.philox import STREAM_INITIAL, philox

_TO_UNIT = 1.0 / 9007199254740992.0  # 2^-53


@kernel
def fill_normal(out, std, number, seed):
    """out = std * z, z normal around zero with variance one, out (n,) float32

    G. Box and M. Muller, "A Note on the Generation of Random Normal Deviates" (1958): elements 2i and 2i + 1
    are sqrt(-2 log u) times cosine and sine of 2 pi w, where u in (0, 1] and w in [0, 1) are block i of
    stream `number`. In float64, rounded to float32 and then multiplied.
    """
    scale = np.float32(std)
    stream, name = np.uint32(STREAM_INITIAL), np.uint32(number)
    for i in range((out.shape[0] + 1) // 2):
        low, high = np.uint32(i & 0xFFFFFFFF), np.uint32(i >> 32)
        x0, x1, x2, x3 = philox(low, high, name, stream, seed)
        radius = math.sqrt(-2.0 * log(1.0 - _unit(x0, x1)))
        cosine, sine = _circle(_unit(x2, x3))
        out[2 * i] = np.float32(radius * cosine) * scale
        if 2 * i + 1 < out.shape[0]:
            out[2 * i + 1] = np.float32(radius * sine) * scale


@kernel
def _unit(high, low):
    """A float64 in [0, 1) with 53 random bits."""
    upper, lower = np.uint64(high) >> np.uint64(5), np.uint64(low) >> np.uint64(6)
    return (np.float64(upper) * 67108864.0 + np.float64(lower)) * _TO_UNIT


@kernel
def _circle(turns):
    """cos and sin of 2 pi turns, 0 <= turns < 1: of an eighth of a turn at most, by their series."""
    quarter = int(4.0 * turns + 0.5)
    angle = 2.0 * math.pi * (turns - 0.25 * quarter)
    square = angle * angle
    cosine, sine, term = 1.0, angle, 1.0
    for n in range(1, 16, 2):
        term *= -square / (n * (n + 1))
        cosine += term
    term = angle
    for n in range(2, 17, 2):
        term *= -square / (n * (n + 1))
        sine += term
    quarter %= 4
    if quarter == 1:
        return -sine, cosine
    if quarter == 2:
        return -cosine, -sine
    if quarter == 3:
        return sine, -cosine
    return cosine, sine
