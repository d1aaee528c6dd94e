"""Cross-entropy of a softmax, fused: the probabilities are never stored."""

import math

from feste_dp.kernels.compilation import kernel
from feste_dp.kernels.simd import exp


@kernel
def cross_entropy_forward(losses, lse, logits, targets):
    """losses = lse - logits[target],  lse = log(sum_V(exp(logits)))

    losses, lse   (B, T)       lse is saved for backward
    logits        (B, T, V)
    targets       (B, T)
    """
    vocabulary = logits.shape[2]
    for b in range(logits.shape[0]):
        for t in range(logits.shape[1]):
            highest = logits[b, t, 0]
            for v in range(1, vocabulary):
                highest = max(highest, logits[b, t, v])
            total = logits.dtype.type(0)
            for v in range(vocabulary):
                total += exp(logits[b, t, v] - highest)
            lse[b, t] = highest + logits.dtype.type(math.log(total))
            losses[b, t] = lse[b, t] - logits[b, t, targets[b, t]]


@kernel
def cross_entropy_backward(dlogits, logits, targets, lse, dloss):
    """Adds to dlogits; dloss is the gradient of each position's loss, one number for all.

    dlogits += (softmax(logits) - onehot(target)) * dloss
    """
    dloss = logits.dtype.type(dloss)
    for b in range(logits.shape[0]):
        for t in range(logits.shape[1]):
            for v in range(logits.shape[2]):
                dlogits[b, t, v] += exp(logits[b, t, v] - lse[b, t]) * dloss
            dlogits[b, t, targets[b, t]] -= dloss
