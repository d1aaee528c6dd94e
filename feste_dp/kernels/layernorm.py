"""Layer normalisation: J. Ba, J. Kiros and G. Hinton, "Layer Normalization" (2016)."""

import math

import numpy as np

from feste_dp.kernels.compilation import kernel
from feste_dp.kernels.sums import row_squares, row_sum, whole_vectors
from feste_dp.kernels.vector.moves import load_lanes, store_lanes
from feste_dp.kernels.vector.registers import address_of, load_vector, spread, store_vector, sum_of_lanes
from feste_dp.kernels.vector.target import FLOAT_BYTES, LANES

EPSILON = 1e-5  # as in GPT-2


@kernel
def layernorm_forward(out, mean, rstd, x, weight, bias):
    """out  = xhat * weight + bias,  xhat = (x - mean) * rstd
    mean = mean_C(x)                                 sums over C as in sums.py
    rstd = 1 / sqrt(mean_C((x - mean)^2) + epsilon)

    out, x       (B, T, C)
    mean, rstd   (B, T)
    """
    channels, x_at = x.shape[2], address_of(x)
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            if x.itemsize == 4:
                row = x_at + FLOAT_BYTES * (b * x.shape[1] + t) * channels
                m = x.dtype.type(row_sum(row, channels) / np.float32(channels))
                squares = x.dtype.type(row_squares(row, channels, np.float32(m)))
            else:
                m, squares = _plain_moments(x[b, t])
            r = x.dtype.type(1.0 / math.sqrt(squares / channels + EPSILON))
            for c in range(channels):
                out[b, t, c] = (x[b, t, c] - m) * r * weight[c] + bias[c]
            mean[b, t] = m
            rstd[b, t] = r


@kernel
def _plain_moments(x):
    """mean(x), sum((x - mean)^2), the definition for the float64 gradient checks"""
    total = squares = x.dtype.type(0)
    for c in range(x.size):
        total += x[c]
    mean = total / x.dtype.type(x.size)
    for c in range(x.size):
        squares += (x[c] - mean) * (x[c] - mean)
    return mean, squares


@kernel
def layernorm_again(out, x, weight, bias, mean, rstd):
    """out as layernorm_forward wrote it, from the mean and rstd that it saved"""
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            m, r = mean[b, t], rstd[b, t]
            for c in range(x.shape[2]):
                out[b, t, c] = (x[b, t, c] - m) * r * weight[c] + bias[c]


@kernel
def layernorm_backward(dx, dweight, dbias, dout, x, weight, mean, rstd):
    """Adds to dx, dweight, dbias.

    dweight += sum_BT(dout * xhat)
    dbias   += sum_BT(dout)
    dx      += rstd * (dxhat - mean_C(dxhat) - xhat * mean_C(dxhat * xhat))
               where dxhat = dout * weight,  xhat = (x - mean) * rstd
    Sums over C as in sums.py, sums over BT from front to back.

    dx, dout, x   (B, T, C)
    mean, rstd    (B, T)    saved by layernorm_forward
    """
    channels = x.shape[2]
    addresses = address_of(dweight), address_of(dbias), address_of(dout), address_of(x), address_of(weight)
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            m, r = mean[b, t], rstd[b, t]
            if x.itemsize == 4:
                at = FLOAT_BYTES * (b * x.shape[1] + t) * channels
                sum_dxhat, sum_dxhat_xhat = _backward_sums(
                    addresses, at, channels, spread(np.float32(m)), spread(np.float32(r))
                )
            else:
                sum_dxhat, sum_dxhat_xhat = _plain_backward_sums(
                    dweight, dbias, dout[b, t], x[b, t], weight, m, r
                )
            mean_dxhat = x.dtype.type(sum_dxhat / x.dtype.type(channels))
            mean_dxhat_xhat = x.dtype.type(sum_dxhat_xhat / x.dtype.type(channels))
            for c in range(channels):
                xhat = (x[b, t, c] - m) * r
                dx[b, t, c] += r * (dout[b, t, c] * weight[c] - mean_dxhat - xhat * mean_dxhat_xhat)


@kernel
def _backward_sums(addresses, row, channels, means, scales):
    """sum_C(dxhat) and sum_C(dxhat * xhat) of the row so many bytes from the first one of dout and x; adds
    what the row is to dweight and dbias."""
    dweight, dbias, dout, x, weight = addresses
    dout, x, whole = dout + row, x + row, whole_vectors(channels)
    first = second = spread(np.float32(0))
    for c in range(0, whole, LANES):
        at = FLOAT_BYTES * c
        d = load_vector(dout + at)
        xhat, dxhat = (load_vector(x + at) - means) * scales, d * load_vector(weight + at)
        first, second = first + dxhat, second + dxhat * xhat
        store_vector(dweight + at, load_vector(dweight + at) + d * xhat)
        store_vector(dbias + at, load_vector(dbias + at) + d)
    if whole < channels:
        at, rest = FLOAT_BYTES * whole, channels - whole
        d = load_lanes(dout + at, rest)
        xhat = (load_lanes(x + at, rest) - means) * scales
        dxhat = d * load_lanes(weight + at, rest)
        first, second = first + dxhat, second + dxhat * xhat
        store_lanes(dweight + at, load_lanes(dweight + at, rest) + d * xhat, rest)
        store_lanes(dbias + at, load_lanes(dbias + at, rest) + d, rest)
    return sum_of_lanes(first), sum_of_lanes(second)


@kernel
def _plain_backward_sums(dweight, dbias, dout, x, weight, m, r):
    """The same by its definition, for the float64 gradient checks."""
    sum_dxhat = sum_dxhat_xhat = x.dtype.type(0)
    for c in range(x.size):
        xhat = (x[c] - m) * r
        dxhat = dout[c] * weight[c]
        sum_dxhat += dxhat
        sum_dxhat_xhat += dxhat * xhat
        dweight[c] += dout[c] * xhat
        dbias[c] += dout[c]
    return sum_dxhat, sum_dxhat_xhat
