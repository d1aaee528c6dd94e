"""Attention of one new position to all before it, whose keys and values are kept.

The scores, the running softmax and the weighted sum take the steps of attention_forward in its order and its
blocks of keys, so the bits are the same. For that the keys lie transposed, in panels of PANEL positions: a
vector holds the scores of neighbouring positions, and the cache is read once, from end to end.
"""

import math

import numpy as np

from feste_dp.kernels.attention import KEY_BLOCK
from feste_dp.kernels.compilation import inlined_kernel, kernel
from feste_dp.kernels.vector.exponential import exp
from feste_dp.kernels.vector.moves import load_float, load_lanes, store_lanes
from feste_dp.kernels.vector.registers import (
    address_of,
    keep_out_of_line,
    lane_numbers,
    load_vector,
    multiply_add,
    spread,
    store_vector,
    where_less,
)
from feste_dp.kernels.vector.target import FLOAT_BYTES, LANES

VECTORS = 4
PANEL = VECTORS * LANES
VECTOR_BYTES = FLOAT_BYTES * LANES


@kernel
def store_key_value(keys, values, t, k, v):
    """Keep position t of one head.

    keys (T / PANEL, D, PANEL), values (T, D), k, v (D,)
    """
    for c in range(k.shape[0]):
        keys[t // PANEL, c, t % PANEL] = k[c]
        values[t, c] = v[c]


def head_room(head):
    """Floats of scratch for the sums of one head."""
    return (head + PANEL - 1) // PANEL * PANEL + 2 * LANES


@kernel
def cached_attention(out, q, keys, values, positions, scores, sums):
    """out = softmax(q @ k.T / sqrt(D)) @ v over the first `positions` of one head

    out, q   (D,), unit stride
    keys     (T / PANEL, D, PANEL), values (T, D)
    scores   (KEY_BLOCK,), sums (head_room(D),)
    """
    keep_out_of_line()
    head, q_at, out_at, score_at, sum_at = (
        q.shape[0],
        address_of(q),
        address_of(out),
        address_of(scores),
        address_of(sums),
    )
    room = (head + PANEL - 1) // PANEL * PANEL
    total_at, largest_at = sum_at + FLOAT_BYTES * room, sum_at + FLOAT_BYTES * (room + LANES)
    scale, hidden = spread(np.float32(1.0 / math.sqrt(head))), spread(np.float32(-np.inf))
    highest = hidden
    for c in range(0, room + LANES, LANES):
        store_vector(sum_at + FLOAT_BYTES * c, spread(np.float32(0)))
    for u0 in range(0, positions, KEY_BLOCK):
        present = min(KEY_BLOCK, positions - u0)
        # scores
        for i in range(0, present, PANEL):
            _score_panel(
                score_at + FLOAT_BYTES * i, q_at, address_of(keys) + FLOAT_BYTES * (u0 + i) * head, head
            )
        # softmax
        top = highest
        for i in range(0, present, LANES):
            score = load_vector(score_at + FLOAT_BYTES * i)
            score = where_less(lane_numbers(), spread(np.float32(present - i)), score, hidden)
            top = where_less(top, score, score, top)  # passes over a NaN, which its exp keeps
        top = _largest_lane(top, largest_at)
        for i in range(0, present, LANES):
            at = score_at + FLOAT_BYTES * i
            store_vector(at, exp((load_vector(at) - top) * scale))
        _scale_in_place(sum_at, room + LANES, exp((highest - top) * scale))
        highest, total = top, load_vector(total_at)
        for i in range(present):  # one after the other, as there
            total = total + spread(load_float(score_at + FLOAT_BYTES * i))
        store_vector(total_at, total)
        # weighted sum of values
        rows = address_of(values) + FLOAT_BYTES * u0 * head
        for c in range(0, head, PANEL):
            at = FLOAT_BYTES * c
            _add_values(sum_at + at, score_at, rows + at, head, head - c, present)
    inverse = spread(np.float32(1)) / load_vector(total_at)
    for c in range(0, head, LANES):
        at = FLOAT_BYTES * c
        store_lanes(out_at + at, load_vector(sum_at + at) * inverse, min(LANES, head - c))


@kernel
def _largest_lane(x, room):
    """In all lanes."""
    store_vector(room, x)
    largest = load_float(room)
    for lane in range(1, LANES):
        value = load_float(room + FLOAT_BYTES * lane)
        largest = value if largest < value else largest
    return spread(largest)


@kernel
def _scale_in_place(x, count, factor):
    """A function of its own: the rounded product is what is added to."""
    keep_out_of_line()
    for i in range(0, count, LANES):
        at = x + FLOAT_BYTES * i
        store_vector(at, load_vector(at) * factor)


@kernel
def _score_panel(scores, q, keys, head):
    """Of PANEL positions; by addresses."""
    zero = spread(np.float32(0))
    s0, s1, s2, s3 = zero, zero, zero, zero
    for c in range(head):
        factor, at = spread(load_float(q + FLOAT_BYTES * c)), keys + FLOAT_BYTES * c * PANEL
        s0 = multiply_add(factor, load_vector(at), s0)
        s1 = multiply_add(factor, load_vector(at + VECTOR_BYTES), s1)
        s2 = multiply_add(factor, load_vector(at + 2 * VECTOR_BYTES), s2)
        s3 = multiply_add(factor, load_vector(at + 3 * VECTOR_BYTES), s3)
    _store_four(scores, s0, s1, s2, s3)


@kernel
def _add_values(sums, p, values, head, columns, keys):
    """sums += p @ values, the first PANEL of `columns`; by addresses, rows of `head` floats."""
    keep_out_of_line()
    zero = spread(np.float32(0))
    s0, s1, s2, s3 = zero, zero, zero, zero
    if columns >= PANEL:
        for u in range(keys):
            factor, at = spread(load_float(p + FLOAT_BYTES * u)), values + FLOAT_BYTES * u * head
            s0 = multiply_add(factor, load_vector(at), s0)
            s1 = multiply_add(factor, load_vector(at + VECTOR_BYTES), s1)
            s2 = multiply_add(factor, load_vector(at + 2 * VECTOR_BYTES), s2)
            s3 = multiply_add(factor, load_vector(at + 3 * VECTOR_BYTES), s3)
    else:
        n0, n1 = min(LANES, columns), max(0, min(LANES, columns - LANES))
        n2, n3 = max(0, min(LANES, columns - 2 * LANES)), max(0, min(LANES, columns - 3 * LANES))
        for u in range(keys):
            factor, at = spread(load_float(p + FLOAT_BYTES * u)), values + FLOAT_BYTES * u * head
            s0 = multiply_add(factor, load_lanes(at, n0), s0)
            s1 = multiply_add(factor, load_lanes(at + VECTOR_BYTES, n1), s1)
            s2 = multiply_add(factor, load_lanes(at + 2 * VECTOR_BYTES, n2), s2)
            s3 = multiply_add(factor, load_lanes(at + 3 * VECTOR_BYTES, n3), s3)
    _store_four(
        sums,
        s0 + load_vector(sums),
        s1 + load_vector(sums + VECTOR_BYTES),
        s2 + load_vector(sums + 2 * VECTOR_BYTES),
        s3 + load_vector(sums + 3 * VECTOR_BYTES),
    )


@inlined_kernel
def _store_four(at, x0, x1, x2, x3):
    store_vector(at, x0)
    store_vector(at + VECTOR_BYTES, x1)
    store_vector(at + 2 * VECTOR_BYTES, x2)
    store_vector(at + 3 * VECTOR_BYTES, x3)
