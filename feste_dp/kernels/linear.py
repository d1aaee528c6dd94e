"""Linear layer, and what surrounds it in GPT-2. Weights are (in, out), as GPT-2's Conv1D stores them.

Gradients of weights add when `accumulate` and overwrite otherwise: the first micro-batch of a shard needs no
zeroed slot (0.6 % of a step of gpt2_87m is writing 348 MB of zeros, as much again reading them back).
Gradients of activations, which have one reader, overwrite.
"""

from feste_dp.kernels.compilation import inlined_kernel
from feste_dp.kernels.matmul import (
    matmul,
    matmul_bias,
    matmul_bias_gelu,
    matmul_bias_residual,
    matmul_column_sums,
    matmul_gelu_backward,
)


@inlined_kernel
def _rows(x):
    """(B, T, C) as (B T, C)."""
    return x.reshape(x.shape[0] * x.shape[1], x.shape[2])


@inlined_kernel
def linear_forward(out, x, weight, bias, pack):
    """out = x @ weight + bias

    x (B, T, K), weight (K, N), bias (N,), out (B, T, N)
    """
    matmul_bias(_rows(out), _rows(x), weight, bias, pack)


@inlined_kernel
def linear_backward(dx, dweight, dbias, dout, x, weight, accumulate, pack):
    """Overwrites dx, adds to dbias, overwrites dweight or adds to it when `accumulate`.

    dx       = dout @ weight.T
    dweight += x.T @ dout
    dbias   += sum_BT(dout)
    """
    matmul(_rows(dx), _rows(dout), weight.T, False, pack)
    matmul_column_sums(dweight, dbias, _rows(x).T, _rows(dout), accumulate, pack)


@inlined_kernel
def linear_gelu_forward(out, gelu_out, x, weight, bias, pack):
    """out = x @ weight + bias,  gelu_out = gelu(out)"""
    matmul_bias_gelu(_rows(out), _rows(gelu_out), _rows(x), weight, bias, pack)


@inlined_kernel
def gelu_linear_backward(dpre, dweight, dbias, dout, pre, gelu_pre, weight, accumulate, pack):
    """Of out = gelu(pre) @ weight + bias: overwrites dpre and gelu_pre, the rest as linear_backward.

    dpre     = (dout @ weight.T) * gelu'(pre)
    gelu_pre = gelu(pre)                          kept by nobody: it costs less than memory
    dweight += gelu_pre.T @ dout
    dbias   += sum_BT(dout)
    """
    matmul_gelu_backward(_rows(dpre), _rows(gelu_pre), _rows(dout), weight.T, _rows(pre), pack)
    matmul_column_sums(dweight, dbias, _rows(gelu_pre).T, _rows(dout), accumulate, pack)


@inlined_kernel
def linear_residual_forward(out, x, weight, bias, residual, pack):
    """out = residual + (x @ weight + bias)

    residual (B, T, N)
    """
    matmul_bias_residual(_rows(out), _rows(x), weight, bias, _rows(residual), pack)


@inlined_kernel
def head_forward(logits, x, weight, pack):
    """logits = x @ weight.T: the output head, (V, C) like the token embedding it may be tied to."""
    matmul(_rows(logits), _rows(x), weight.T, False, pack)


@inlined_kernel
def head_backward(dx, dweight, dlogits, x, weight, accumulate, pack):
    """Overwrites dx, overwrites dweight or adds to it when `accumulate`.

    dx       = dlogits @ weight
    dweight += dlogits.T @ x      x is the output of the final layer norm
    """
    matmul(_rows(dx), _rows(dlogits), weight, False, pack)
    matmul(dweight, _rows(dlogits).T, _rows(x), accumulate, pack)
