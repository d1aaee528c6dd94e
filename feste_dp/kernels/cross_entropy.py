"""Cross-entropy of a softmax, fused: the probabilities are never stored.

No digits are lost where the logits have a large part in common, nor where the target is next to certain: the
highest logit is subtracted before anything is added to it, and the sum leaves the target out.
"""

import math

import numpy as np

from feste_dp.kernels.compilation import kernel
from feste_dp.kernels.logarithm import log, log1p
from feste_dp.kernels.sums import load_lanes_or, row_maximum, whole_vectors
from feste_dp.kernels.vector.exponential import EXP_LOWEST, exp
from feste_dp.kernels.vector.registers import (
    address_of,
    load_vector,
    maximum,
    spread,
    store_vector,
    sum_of_lanes,
    where_less,
)
from feste_dp.kernels.vector.target import FLOAT_BYTES, LANES


@kernel
def cross_entropy_forward(losses, highest, others, logits, targets):
    """losses  = highest - logits[target] + log(others + exp(logits[target] - highest))
    highest = max_V(logits)
    others  = sum(exp(logits - highest)) over V but the target, as in sums.py; exp is 0 below EXP_LOWEST

    losses, highest, others   (B, T)       highest and others are saved for backward
    logits                    (B, T, V)    as they were, once it returns
    targets                   (B, T)
    """
    nothing = logits.dtype.type(-math.inf)
    for b in range(logits.shape[0]):
        for t in range(logits.shape[1]):
            row, target = logits[b, t], targets[b, t]
            if logits.itemsize == 4:
                top = logits.dtype.type(row_maximum(address_of(row), row.size))
            else:
                top = row[0]
                for v in range(row.size):
                    top = maximum(top, row[v])
            chosen = row[target]
            row[target] = nothing  # put back below: a loop over all of V needs no gap
            rest = logits.dtype.type(_sum_of_exp(row, top))
            row[target] = chosen
            behind = float(top) - float(chosen)  # in float64: both may be near the largest float32
            if behind > 0:
                losses[b, t] = behind + log(float(rest + exp(chosen - top)))
            else:
                losses[b, t] = behind + log1p(float(rest))  # behind is 0, or NaN
            highest[b, t], others[b, t] = top, rest


@kernel
def _sum_of_exp(x, top):
    """sum(exp(x - top)), x (n,) with unit stride"""
    if x.itemsize == 4:
        at, whole, tops = address_of(x), whole_vectors(x.size), spread(np.float32(top))
        total = zeros = spread(np.float32(0))
        lowest = spread(np.float32(EXP_LOWEST))
        for i in range(0, whole, LANES):
            distance = load_vector(at + FLOAT_BYTES * i) - tops
            total = total + where_less(distance, lowest, zeros, exp(distance))
        if whole < x.size:
            distance = load_lanes_or(at + FLOAT_BYTES * whole, x.size - whole, -math.inf) - tops
            total = total + where_less(distance, lowest, zeros, exp(distance))
        return sum_of_lanes(total)
    total_64 = x.dtype.type(0)
    for i in range(x.size):
        total_64 += exp(x[i] - top)
    return total_64


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
