"""Products of few rows with a weight, as drawing a token needs them: the weight is read once, in one stream,
and that is the time they take.

Each element is the same chain of fused multiply-adds, in the same blocks of depth, as in matmul.py, so its
bits do not depend on which of the two computed it, on how many rows there are or on who has which columns.
"""

import numpy as np

from feste_dp.kernels.compilation import kernel
from feste_dp.kernels.packing import BLOCK_DEPTH
from feste_dp.kernels.vector.moves import (
    copy_float,
    load_float,
    load_lanes,
    prefetch_to_l2,
    store_lanes,
    transpose_square,
)
from feste_dp.kernels.vector.registers import (
    address_of,
    keep_out_of_line,
    load_vector,
    multiply_add,
    spread,
    store_vector,
)
from feste_dp.kernels.vector.target import FLOAT_BYTES, LANES

ROWS_AT_ONCE = 8  # of a weight: so many streams, and so seldom are the sums read and written


@kernel
def linear_rows(out, x, weight, bias, adds, first, last, sums):
    """out = x @ weight + bias, or out + (x @ weight + bias) where it `adds`; columns first .. last - 1.

    out (B, N), x (B, K), weight (K, N), bias (N,)
    first   a multiple of LANES
    sums    (B, >= N + LANES), of which these columns are used
    """
    keep_out_of_line()
    rows, depth = x.shape
    columns, width = last - first, weight.shape[1]
    start = address_of(weight) + FLOAT_BYTES * first
    totals, totals_width = address_of(sums) + FLOAT_BYTES * first, sums.shape[1]
    for k0 in range(0, depth, BLOCK_DEPTH):
        k1 = min(depth, k0 + BLOCK_DEPTH)
        for b in range(rows):
            for j in range(0, columns, LANES):
                store_vector(totals + FLOAT_BYTES * (b * totals_width + j), spread(np.float32(0)))
        for k in range(k0, k1, ROWS_AT_ONCE):
            source, factors = start + FLOAT_BYTES * k * width, address_of(x) + FLOAT_BYTES * k
            if k + ROWS_AT_ONCE <= k1 and rows == 1:
                _add_eight_to_one(totals, factors, source, width, columns)
            elif k + ROWS_AT_ONCE <= k1:
                _add_eight(totals, totals_width, factors, depth, source, width, rows, columns)
            else:
                for i in range(k1 - k):
                    at = FLOAT_BYTES * i
                    _add_one(totals, totals_width, factors + at, depth, source + at * width, rows, columns)
        for b in range(rows):
            for j in range(first, last, LANES):
                n, at = min(LANES, last - j), FLOAT_BYTES * j
                total = load_vector(totals + FLOAT_BYTES * (b * totals_width + j - first))
                if k0 == 0:
                    total = total + load_lanes(address_of(bias) + at, n)
                if k0 > 0 or adds:
                    total = total + load_lanes(address_of(out[b]) + at, n)
                store_lanes(address_of(out[b]) + at, total, n)


@kernel
def _add_eight(totals, totals_width, x, depth, weight, width, rows, columns):
    """totals += x @ weight for eight rows of it; by addresses and the strides of rows."""
    keep_out_of_line()
    row, ahead = FLOAT_BYTES * width, FLOAT_BYTES * width * ROWS_AT_ONCE
    whole = columns // LANES * LANES
    for j in range(0, columns, LANES):
        at = weight + FLOAT_BYTES * j
        if j < whole:
            for i in range(ROWS_AT_ONCE):
                prefetch_to_l2(at + ahead + i * row)
            w0, w1, w2, w3 = (
                load_vector(at),
                load_vector(at + row),
                load_vector(at + 2 * row),
                load_vector(at + 3 * row),
            )
            w4, w5, w6, w7 = (
                load_vector(at + 4 * row),
                load_vector(at + 5 * row),
                load_vector(at + 6 * row),
                load_vector(at + 7 * row),
            )
        else:
            n = columns - whole
            w0, w1, w2, w3 = (
                load_lanes(at, n),
                load_lanes(at + row, n),
                load_lanes(at + 2 * row, n),
                load_lanes(at + 3 * row, n),
            )
            w4, w5, w6, w7 = (
                load_lanes(at + 4 * row, n),
                load_lanes(at + 5 * row, n),
                load_lanes(at + 6 * row, n),
                load_lanes(at + 7 * row, n),
            )
        for b in range(rows):
            factors = x + FLOAT_BYTES * b * depth
            total_at = totals + FLOAT_BYTES * (b * totals_width + j)
            total = multiply_add(spread(load_float(factors)), w0, load_vector(total_at))
            total = multiply_add(spread(load_float(factors + 4)), w1, total)
            total = multiply_add(spread(load_float(factors + 8)), w2, total)
            total = multiply_add(spread(load_float(factors + 12)), w3, total)
            total = multiply_add(spread(load_float(factors + 16)), w4, total)
            total = multiply_add(spread(load_float(factors + 20)), w5, total)
            total = multiply_add(spread(load_float(factors + 24)), w6, total)
            store_vector(total_at, multiply_add(spread(load_float(factors + 28)), w7, total))


@kernel
def _add_eight_to_one(totals, x, weight, width, columns):
    """As _add_eight for one row of x, with half the instructions: the more of the weight fits into those that
    a core has under way at once, the more of it is asked for at once."""
    keep_out_of_line()
    row = FLOAT_BYTES * width
    ahead = row * ROWS_AT_ONCE
    r1, r2, r3, r4 = weight + row, weight + 2 * row, weight + 3 * row, weight + 4 * row
    r5, r6, r7 = weight + 5 * row, weight + 6 * row, weight + 7 * row
    x0, x1, x2, x3 = (
        spread(load_float(x)),
        spread(load_float(x + 4)),
        spread(load_float(x + 8)),
        spread(load_float(x + 12)),
    )
    x4, x5, x6, x7 = (
        spread(load_float(x + 16)),
        spread(load_float(x + 20)),
        spread(load_float(x + 24)),
        spread(load_float(x + 28)),
    )
    whole = FLOAT_BYTES * (columns // LANES * LANES)
    for j in range(0, whole, FLOAT_BYTES * LANES):
        prefetch_to_l2(weight + j + ahead)
        prefetch_to_l2(r1 + j + ahead)
        prefetch_to_l2(r2 + j + ahead)
        prefetch_to_l2(r3 + j + ahead)
        prefetch_to_l2(r4 + j + ahead)
        prefetch_to_l2(r5 + j + ahead)
        prefetch_to_l2(r6 + j + ahead)
        prefetch_to_l2(r7 + j + ahead)
        total = multiply_add(x0, load_vector(weight + j), load_vector(totals + j))
        total = multiply_add(x1, load_vector(r1 + j), total)
        total = multiply_add(x2, load_vector(r2 + j), total)
        total = multiply_add(x3, load_vector(r3 + j), total)
        total = multiply_add(x4, load_vector(r4 + j), total)
        total = multiply_add(x5, load_vector(r5 + j), total)
        total = multiply_add(x6, load_vector(r6 + j), total)
        store_vector(totals + j, multiply_add(x7, load_vector(r7 + j), total))
    n = columns % LANES
    if n > 0:
        total = multiply_add(x0, load_lanes(weight + whole, n), load_vector(totals + whole))
        total = multiply_add(x1, load_lanes(r1 + whole, n), total)
        total = multiply_add(x2, load_lanes(r2 + whole, n), total)
        total = multiply_add(x3, load_lanes(r3 + whole, n), total)
        total = multiply_add(x4, load_lanes(r4 + whole, n), total)
        total = multiply_add(x5, load_lanes(r5 + whole, n), total)
        total = multiply_add(x6, load_lanes(r6 + whole, n), total)
        store_vector(totals + whole, multiply_add(x7, load_lanes(r7 + whole, n), total))


@kernel
def _add_one(totals, totals_width, x, depth, weight, rows, columns):
    """As _add_eight, one row of the weight."""
    for j in range(0, columns, LANES):
        w = load_lanes(weight + FLOAT_BYTES * j, min(LANES, columns - j))
        for b in range(rows):
            factor = spread(load_float(x + FLOAT_BYTES * b * depth))
            at = totals + FLOAT_BYTES * (b * totals_width + j)
            store_vector(at, multiply_add(factor, w, load_vector(at)))


@kernel
def head_rows(logits, x, weight, first, last, tile, sums):
    """logits = x @ weight.T, tokens first .. last - 1, and before them as many as make a vector.

    logits (B, V), x (B, C), weight (V, C) with V >= LANES
    tile (LANES * LANES,): rows of the weight are turned to columns in registers, which keeps the order of the
    sums and is fast enough for memory; sums (B, 2 * LANES)
    """
    keep_out_of_line()
    rows, channels = x.shape
    whole = channels // LANES * LANES
    columns, chain, total = address_of(tile), address_of(sums), address_of(sums) + FLOAT_BYTES * LANES
    stride = FLOAT_BYTES * 2 * LANES
    for group in range(first, last, LANES):
        v = max(0, min(group, last - LANES))
        source = address_of(weight) + FLOAT_BYTES * v * channels
        for c0 in range(0, channels, BLOCK_DEPTH):
            c1 = min(channels, c0 + BLOCK_DEPTH)
            for b in range(rows):
                store_vector(chain + stride * b, spread(np.float32(0)))
            for c in range(c0, min(c1, whole), LANES):
                at = source + FLOAT_BYTES * c
                for i in range(LANES):
                    prefetch_to_l2(at + FLOAT_BYTES * (LANES + i) * channels)
                transpose_square(columns, LANES, at, channels)
                _add_columns(chain, address_of(x) + FLOAT_BYTES * c, channels, columns, rows, LANES)
            if whole < c1:
                for c in range(whole, c1):
                    for lane in range(LANES):
                        copy_float(
                            columns + FLOAT_BYTES * ((c - whole) * LANES + lane),
                            source + FLOAT_BYTES * (lane * channels + c),
                        )
                x_at = address_of(x) + FLOAT_BYTES * whole
                _add_columns(chain, x_at, channels, columns, rows, c1 - whole)
            for b in range(rows):
                sum_of_block = load_vector(chain + stride * b)
                if c0 > 0:
                    sum_of_block = load_vector(total + stride * b) + sum_of_block
                store_vector(total + stride * b, sum_of_block)
        for b in range(rows):
            store_vector(address_of(logits[b]) + FLOAT_BYTES * v, load_vector(total + stride * b))


@kernel
def _add_columns(sums, x, x_width, columns, rows, count):
    """sums += x @ columns for so many of the depth; columns (count, LANES)."""
    for b in range(rows):
        at, factors = sums + FLOAT_BYTES * 2 * LANES * b, x + FLOAT_BYTES * b * x_width
        total = load_vector(at)
        for j in range(count):
            factor = spread(load_float(factors + FLOAT_BYTES * j))
            total = multiply_add(factor, load_vector(columns + FLOAT_BYTES * j * LANES), total)
        store_vector(at, total)
