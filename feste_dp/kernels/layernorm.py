"""Layer normalisation: J. Ba, J. Kiros and G. Hinton, "Layer Normalization" (2016)."""

import math

from feste_dp.kernels.compilation import kernel

EPSILON = 1e-5  # as in GPT-2


@kernel
def layernorm_forward(out, mean, rstd, x, weight, bias):
    """out  = xhat * weight + bias,  xhat = (x - mean) * rstd
    mean = mean_C(x)
    rstd = 1 / sqrt(mean_C((x - mean)^2) + epsilon)

    out, x       (B, T, C)
    mean, rstd   (B, T)
    """
    channels = x.shape[2]
    zero = x.dtype.type(0)
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            total = zero
            for c in range(channels):
                total += x[b, t, c]
            m = total / x.dtype.type(channels)
            squares = zero
            for c in range(channels):
                squares += (x[b, t, c] - m) * (x[b, t, c] - m)
            r = x.dtype.type(1.0 / math.sqrt(squares / channels + EPSILON))
            for c in range(channels):
                out[b, t, c] = (x[b, t, c] - m) * r * weight[c] + bias[c]
            mean[b, t] = m
            rstd[b, t] = r


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

    dx, dout, x   (B, T, C)
    mean, rstd    (B, T)    saved by layernorm_forward
    """
    channels = x.shape[2]
    zero = x.dtype.type(0)
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            m, r = mean[b, t], rstd[b, t]
            sum_dxhat, sum_dxhat_xhat = zero, zero
            for c in range(channels):
                xhat = (x[b, t, c] - m) * r
                dxhat = dout[b, t, c] * weight[c]
                sum_dxhat += dxhat
                sum_dxhat_xhat += dxhat * xhat
                dweight[c] += dout[b, t, c] * xhat
                dbias[c] += dout[b, t, c]
            mean_dxhat = sum_dxhat / x.dtype.type(channels)
            mean_dxhat_xhat = sum_dxhat_xhat / x.dtype.type(channels)
            for c in range(channels):
                xhat = (x[b, t, c] - m) * r
                dx[b, t, c] += r * (dout[b, t, c] * weight[c] - mean_dxhat - xhat * mean_dxhat_xhat)
