"""Attention of one head by its definition, row by row: for the float64 gradient checks."""

import math

from feste_dp.kernels.compilation import kernel


@kernel
def plain_attention_forward(out, lse, q, k, v):
    """out[t] = sum over u <= t of p[t, u] * v[u],  p[t] = softmax(q[t] @ k[u] / sqrt(D))

    out, q, k, v (T, D), lse (T,)
    """
    head = q.shape[1]
    scale = 1.0 / math.sqrt(head)
    for t in range(q.shape[0]):
        highest = -math.inf
        for u in range(t + 1):
            highest = max(highest, scale * _dot(q[t], k[u]))
        total = 0.0
        out[t] = 0
        for u in range(t + 1):
            p = math.exp(scale * _dot(q[t], k[u]) - highest)
            total += p
            for c in range(head):
                out[t, c] += p * v[u, c]
        for c in range(head):
            out[t, c] /= total
        lse[t] = highest + math.log(total)


@kernel
def plain_attention_backward(dq, dk, dv, dout, out, lse, q, k, v):
    """Overwrites dq, dk, dv, all (T, D); the equations of attention_backward."""
    head = q.shape[1]
    scale = 1.0 / math.sqrt(head)
    dq[:], dk[:], dv[:] = 0, 0, 0
    for t in range(q.shape[0]):
        dot = _dot(dout[t], out[t])
        for u in range(t + 1):
            p = math.exp(scale * _dot(q[t], k[u]) - lse[t])
            ds = p * (_dot(dout[t], v[u]) - dot) * scale
            for c in range(head):
                dv[u, c] += p * dout[t, c]
                dk[u, c] += ds * q[t, c]
                dq[t, c] += ds * k[u, c]


@kernel
def _dot(x, y):
    total = 0.0
    for c in range(x.shape[0]):
        total += x[c] * y[c]
    return total
