"""Causal multi-head attention: A. Vaswani et al., "Attention Is All You Need" (2017).

Works on QUERY_TILE query rows at a time against all keys up to the last of them, so the T x T matrix never
exists and the masked half is not computed. Backward draws the tile's probabilities again from the saved
log-sum-exp, after T. Dao et al., "FlashAttention" (2022).
"""

import math

import numpy as np

from feste_dp.kernels.compilation import kernel
from feste_dp.kernels.matmul import matmul
from feste_dp.kernels.simd import exp

QUERY_TILE = 64


@kernel
def attention_forward(out, lse, qkv, scores, n_head, pack):
    """out_h = softmax(q_h @ k_h.T / sqrt(D), causal) @ v_h for each head h

    out      (B, T, C)
    lse      (B, H, T)           log-sum-exp of each row of scores, for backward
    qkv      (B, T, 3C)          q, k, v side by side, heads side by side inside each
    scores   (QUERY_TILE, T)     scratch
    """
    positions, channels = out.shape[1], out.shape[2]
    head = channels // n_head
    for b in range(out.shape[0]):
        for h in range(n_head):
            q = qkv[b, :, h * head : (h + 1) * head]
            k = qkv[b, :, channels + h * head : channels + (h + 1) * head]
            v = qkv[b, :, 2 * channels + h * head : 2 * channels + (h + 1) * head]
            for t0 in range(0, positions, QUERY_TILE):
                t1 = min(t0 + QUERY_TILE, positions)
                p = scores[: t1 - t0, :t1]
                # scores
                matmul(p, q[t0:t1], k[:t1].T, False, pack)
                # softmax
                _causal_softmax(p, lse[b, h], t0, 1.0 / math.sqrt(head))
                # weighted sum of values
                matmul(out[b, t0:t1, h * head : (h + 1) * head], p, v[:t1], False, pack)


@kernel
def _causal_softmax(p, lse, t0, scale):
    zero, scale = p.dtype.type(0), p.dtype.type(scale)
    for i in range(p.shape[0]):
        t = t0 + i
        highest = p[i, 0]
        for u in range(1, t + 1):
            highest = max(highest, p[i, u])
        total = zero
        for u in range(t + 1):
            e = exp(scale * (p[i, u] - highest))
            p[i, u] = e
            total += e
        inverse = p.dtype.type(1) / total
        for u in range(t + 1):
            p[i, u] *= inverse
        for u in range(t + 1, p.shape[1]):
            p[i, u] = zero
        lse[t] = scale * highest + p.dtype.type(math.log(total))


@kernel
def attention_backward(dqkv, dout, out, lse, qkv, scores, dscores, n_head, pack):
    """Adds to dqkv. Per head, with p = softmax(s) and s = q @ k.T / sqrt(D):

    dv += p.T @ dout
    ds  = p * (dout @ v.T - sum_D(dout * out)) / sqrt(D)
    dk += ds.T @ q
    dq += ds @ k

    dqkv, qkv         (B, T, 3C)
    dout, out         (B, T, C)
    scores, dscores   (QUERY_TILE, T)   scratch
    """
    positions, channels = out.shape[1], out.shape[2]
    head = channels // n_head
    scale = 1.0 / math.sqrt(head)
    for b in range(out.shape[0]):
        for h in range(n_head):
            q = qkv[b, :, h * head : (h + 1) * head]
            k = qkv[b, :, channels + h * head : channels + (h + 1) * head]
            v = qkv[b, :, 2 * channels + h * head : 2 * channels + (h + 1) * head]
            dq = dqkv[b, :, h * head : (h + 1) * head]
            dk = dqkv[b, :, channels + h * head : channels + (h + 1) * head]
            dv = dqkv[b, :, 2 * channels + h * head : 2 * channels + (h + 1) * head]
            for t0 in range(0, positions, QUERY_TILE):
                t1 = min(t0 + QUERY_TILE, positions)
                p, ds = scores[: t1 - t0, :t1], dscores[: t1 - t0, :t1]
                dout_tile = dout[b, t0:t1, h * head : (h + 1) * head]
                out_tile = out[b, t0:t1, h * head : (h + 1) * head]
                # scores, softmax
                matmul(p, q[t0:t1], k[:t1].T, False, pack)
                _causal_softmax_again(p, lse[b, h], t0, scale)
                # weighted sum of values
                matmul(dv[:t1], p.T, dout_tile, True, pack)
                matmul(ds, dout_tile, v[:t1].T, False, pack)
                # softmax
                _causal_softmax_backward(ds, p, dout_tile, out_tile, t0, scale)
                # scores
                matmul(dk[:t1], ds.T, q[t0:t1], True, pack)
                matmul(dq[t0:t1], ds, k[:t1], True, pack)


@kernel
def _causal_softmax_again(p, lse, t0, scale):
    zero, scale = p.dtype.type(0), p.dtype.type(scale)
    for i in range(p.shape[0]):
        t = t0 + i
        for u in range(t + 1):
            log_p = scale * p[i, u] - lse[t]
            # huge scores leave lse few digits; a probability is at most 1 all the same, and a NaN stays
            p[i, u] = exp(zero if log_p > zero else log_p)
        for u in range(t + 1, p.shape[1]):
            p[i, u] = zero


@kernel
def _causal_softmax_backward(ds, p, dout, out, t0, scale):
    zero, scale = p.dtype.type(0), p.dtype.type(scale)
    for i in range(p.shape[0]):
        t = t0 + i
        dot = zero
        for d in range(out.shape[1]):
            dot += dout[i, d] * out[i, d]
        for u in range(t + 1):
            ds[i, u] = p[i, u] * (ds[i, u] - dot) * scale
        for u in range(t + 1, p.shape[1]):
            ds[i, u] = zero


def scratch_shape(block_size: int) -> tuple[int, int]:
    """Shape of `scores` and of `dscores` for sequences of up to block_size positions."""
    return min(QUERY_TILE, block_size), block_size


def make_scratch(block_size: int, dtype: type) -> np.ndarray:
    return np.zeros(scratch_shape(block_size), dtype)
