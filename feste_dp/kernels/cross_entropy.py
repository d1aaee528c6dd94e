"""Cross-entropy of a softmax, fused: the probabilities are never stored.

No digits are lost where the logits have a large part in common, nor where the target is next to certain: the
highest logit is subtracted before anything is added to it, and the sum leaves the target out.
"""

import math

from feste_dp.kernels.compilation import kernel
from feste_dp.kernels.vector.exponential import EXP_LOWEST, exp
from feste_dp.kernels.vector.registers import address_of, load_vector, maximum, spread, store_vector
from feste_dp.kernels.vector.target import FLOAT_BYTES, LANES


@kernel
def cross_entropy_forward(losses, highest, others, logits, targets):
    """losses  = highest - logits[target] + log(others + exp(logits[target] - highest))
    highest = max_V(logits)
    others  = sum(exp(logits - highest)) over all of V but the target

    losses, highest, others   (B, T)       highest and others are saved for backward
    logits                    (B, T, V)    as they were, once it returns
    targets                   (B, T)
    """
    zero, nothing = logits.dtype.type(0), logits.dtype.type(-math.inf)
    lowest = logits.dtype.type(EXP_LOWEST if logits.itemsize == 4 else -math.inf)
    for b in range(logits.shape[0]):
        for t in range(logits.shape[1]):
            row, target = logits[b, t], targets[b, t]
            top = row[0]
            for v in range(row.size):
                top = maximum(top, row[v])  # the built-in max does not vectorise: 0.9 of 1.2 ms
            chosen = row[target]
            row[target] = nothing  # put back below: a loop over all of V needs no gap
            rest = zero
            for v in range(row.size):
                distance = row[v] - top
                rest += zero if distance < lowest else exp(distance)
            row[target] = chosen
            behind = float(top) - float(chosen)  # in float64: both may be near the largest float32
            if behind > 0:
                losses[b, t] = behind + math.log(rest + exp(chosen - top))
            else:
                losses[b, t] = behind + math.log1p(rest)  # behind is 0, or NaN
            highest[b, t], others[b, t] = top, rest


@kernel
def cross_entropy_backward(dlogits, logits, targets, highest, others, dloss):
    """Overwrites dlogits, which may be the logits themselves; dloss is the gradient of each position's loss,
    one number for all.

    dlogits = (softmax(logits) - onehot(target)) * dloss
              where softmax - 1 of the target is what the others have, taken away
    """
    dloss = logits.dtype.type(dloss)
    for b in range(logits.shape[0]):
        for t in range(logits.shape[1]):
            drow, row, target, top = dlogits[b, t], logits[b, t], targets[b, t], highest[b, t]
            scale = dloss / (others[b, t] + exp(row[target] - top))
            whole = 0
            if row.itemsize == 4:
                # a loop that the compiler makes into vectors asks first whether its arrays overlap and, where
                # dlogits are the logits, goes one by one: that took 300 us of the 1,570 of tiny's micro-batch
                whole = row.size - row.size % LANES
                source, place = address_of(row), address_of(drow)
                tops, scales = spread(top), spread(scale)
                for v in range(0, whole, LANES):
                    at = FLOAT_BYTES * v
                    store_vector(place + at, exp(load_vector(source + at) - tops) * scales)
            for v in range(whole, row.size):
                drow[v] = exp(row[v] - top) * scale
            drow[target] = -others[b, t] * scale
