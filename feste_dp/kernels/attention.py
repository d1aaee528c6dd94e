"""Causal multi-head attention: A. Vaswani et al., "Attention Is All You Need" (2017).

The T x T matrix never exists: forward keeps a running maximum and sum over tiles of keys, backward draws each
tile's probabilities again from the saved log-sum-exp, both after T. Dao et al., "FlashAttention" (2022).
Tiles that the mask hides are skipped. All products run on packed panels (packing.py); forward has scores
transposed (keys down, queries across), so that the softmax is lane by lane and its result is, as it lies, the
packed operand of the next product.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from feste_dp.kernels.attention_plain import plain_attention_backward, plain_attention_forward
from feste_dp.kernels.compilation import kernel
from feste_dp.kernels.matmul import multiply_panels
from feste_dp.kernels.packing import pack_columns, pack_rows, panel_depth, round_rows_in_place
from feste_dp.kernels.simd import (
    ADD_TILE,
    FLOAT_BYTES,
    LANES,
    ROW_STEP,
    TILE_COLUMNS,
    TILE_ROWS,
    address_of,
    copy_float,
    exp,
    keep_out_of_line,
    lane_numbers,
    load_float,
    load_vector,
    spread,
    store_vector,
    sum_of_lanes,
    transpose_square,
    where_less,
)

QUERIES = TILE_COLUMNS  # of a tile in forward: one panel
KEY_BLOCK = 16 * TILE_ROWS  # keys of a tile in forward
# of a tile in backward: one panel. Two of them between additions to dq gain nothing: the diagonal is coarser
KEYS = TILE_COLUMNS
QUERY_BLOCK = 12 * TILE_ROWS  # queries of a tile in backward
NO_ROW = 0


class AttentionScratch(NamedTuple):
    """Room for one head of one sequence. Panels are as packing.py lays them out."""

    by_key: np.ndarray  # q, or k in forward: panels of rows
    by_query: np.ndarray  # dout: panels of rows
    by_channel: np.ndarray  # q, or v in forward, transposed
    by_channel_2: np.ndarray  # dout transposed
    columns: np.ndarray  # a panel of q (forward); a panel of k, one of v, and k as a block (backward)
    tile: np.ndarray  # scores, probabilities
    dtile: np.ndarray  # gradient of the scores
    dtile_rows: np.ndarray  # the same as panels of rows
    sums: np.ndarray  # out (forward), dk, dv (backward) of one tile, transposed
    rows: np.ndarray  # highest, total (forward); dot (backward)


def make_attention_scratch(
    positions: int, head: int, make_zeros: Callable[..., Any] = np.zeros
) -> AttentionScratch:
    def whole(count: int, step: int) -> int:
        return -(-count // step) * step

    def zeros(count: int) -> np.ndarray:
        return make_zeros(count + LANES, np.float32)

    by_row = whole(positions, TILE_ROWS) * head
    blocks = max(whole(positions, KEY_BLOCK), whole(positions, QUERY_BLOCK))
    by_channel = blocks * whole(head, TILE_ROWS)
    panel = TILE_COLUMNS * max(head, whole(head, TILE_COLUMNS))
    tile_rows = max(KEY_BLOCK, QUERY_BLOCK)
    return AttentionScratch(
        by_key=zeros(by_row),
        by_query=zeros(by_row),
        by_channel=zeros(by_channel),
        by_channel_2=zeros(by_channel),
        columns=zeros(3 * panel),
        tile=zeros(tile_rows * TILE_COLUMNS),
        dtile=zeros(tile_rows * TILE_COLUMNS),
        dtile_rows=zeros(QUERY_BLOCK * KEYS),
        sums=zeros(2 * whole(head, TILE_ROWS) * TILE_COLUMNS),
        rows=zeros(max(2 * TILE_COLUMNS, positions)),
    )


@kernel
def attention_forward(out, lse, qkv, scratch, n_head, pack):
    """out_h = softmax(q_h @ k_h.T / sqrt(D), causal) @ v_h for each head h

    out   (B, T, C)
    lse   (B, H, T)    log-sum-exp of each row of scores, for backward
    qkv   (B, T, 3C)   q, k, v side by side, heads side by side inside each
    """
    channels = out.shape[2]
    head = channels // n_head
    for b in range(out.shape[0]):
        for h in range(n_head):
            q = qkv[b, :, h * head : (h + 1) * head]
            k = qkv[b, :, channels + h * head : channels + (h + 1) * head]
            v = qkv[b, :, 2 * channels + h * head : 2 * channels + (h + 1) * head]
            o = out[b, :, h * head : (h + 1) * head]
            if out.itemsize == 4:
                _head_forward(o, lse[b, h], q, k, v, scratch, pack)
            else:
                plain_attention_forward(o, lse[b, h], q, k, v)


@kernel
def _head_forward(out, lse, q, k, v, scratch, pack):
    """One head; all (T, D), lse (T,)."""
    keep_out_of_line()
    positions, head = out.shape
    bf16, stride = pack.bf16, q.strides[0] // FLOAT_BYTES
    scale = np.float32(1.0 / math.sqrt(head))
    depth = panel_depth(head, bf16)
    channels = (head + TILE_ROWS - 1) // TILE_ROWS * TILE_ROWS
    k_panels, v_panels = address_of(scratch.by_key), address_of(scratch.by_channel)
    q_panel, tile, sums = address_of(scratch.columns), address_of(scratch.tile), address_of(scratch.sums)
    highest, total = address_of(scratch.rows), address_of(scratch.rows) + FLOAT_BYTES * QUERIES
    pack_rows(k_panels, address_of(k), positions, head, stride, 1, bf16)
    for u0 in range(0, positions, KEY_BLOCK):
        keys = min(KEY_BLOCK, positions - u0)
        pack_rows(
            v_panels + FLOAT_BYTES * u0 * channels,
            address_of(v) + FLOAT_BYTES * u0 * stride,
            head,
            keys,
            1,
            stride,
            bf16,
        )
    for t0 in range(0, positions, QUERIES):
        queries = min(QUERIES, positions - t0)
        pack_columns(q_panel, address_of(q) + FLOAT_BYTES * t0 * stride, queries, head, stride, 1, 0, bf16)
        _fill(highest, QUERIES, -np.inf)
        _fill(total, QUERIES, 0.0)
        _fill(sums, channels * QUERIES, 0.0)
        for u0 in range(0, t0 + queries, KEY_BLOCK):
            keys = min(KEY_BLOCK, t0 + queries - u0)
            block_depth = panel_depth(min(KEY_BLOCK, positions - u0), bf16)
            rows = (keys + ROW_STEP - 1) // ROW_STEP * ROW_STEP
            # scores
            k_block = k_panels + FLOAT_BYTES * u0 * depth
            multiply_panels(
                tile, QUERIES, k_block, depth, q_panel, rows, QUERIES, depth,
                0, tile, QUERIES, NO_ROW, bf16, pack.tile,
            )  # fmt: skip
            # softmax
            _online_softmax(tile, highest, total, sums, rows, channels, t0 - u0, scale)
            # weighted sum of values
            if bf16:
                round_rows_in_place(tile, rows)
            multiply_panels(
                sums, QUERIES, v_panels + FLOAT_BYTES * u0 * channels, block_depth, tile, channels, QUERIES,
                panel_depth(keys, bf16), ADD_TILE, sums, QUERIES, NO_ROW, bf16, pack.tile,
            )  # fmt: skip
        _divide_columns(sums, total, channels)
        _store_transposed(out[t0 : t0 + queries], sums)
        for i in range(queries):
            at = FLOAT_BYTES * i
            lse[t0 + i] = scale * load_float(highest + at) + np.float32(math.log(load_float(total + at)))


@kernel
def _online_softmax(tile, highest, total, sums, rows, channels, diagonal, scale):
    """tile = exp(scale * (tile - highest)) with the maximum of all keys so far; what was summed before the
    maximum rose is scaled down to it. Row i is visible from lane j on if i <= diagonal + j."""
    scales, hidden, zero = spread(scale), spread(np.float32(-np.inf)), spread(np.float32(0))
    seen_by_all = max(0, min(rows, diagonal + 1))
    for lane in range(0, QUERIES, LANES):
        column = tile + FLOAT_BYTES * lane
        first_row = lane_numbers() + spread(np.float32(diagonal + lane))
        before = load_vector(highest + FLOAT_BYTES * lane)
        top = before
        for i in range(seen_by_all):
            score = load_vector(column + FLOAT_BYTES * i * QUERIES)
            top = where_less(top, score, score, top)  # passes over a NaN, which its exp keeps
        for i in range(seen_by_all, rows):
            score = load_vector(column + FLOAT_BYTES * i * QUERIES)
            score = where_less(first_row, spread(np.float32(i)), hidden, score)
            top = where_less(top, score, score, top)
        shrink = exp((before - top) * scales)
        mass = load_vector(total + FLOAT_BYTES * lane) * shrink
        for i in range(seen_by_all):
            at = column + FLOAT_BYTES * i * QUERIES
            p = exp((load_vector(at) - top) * scales)
            mass = mass + p
            store_vector(at, p)
        for i in range(seen_by_all, rows):
            at = column + FLOAT_BYTES * i * QUERIES
            p = exp((load_vector(at) - top) * scales)
            p = where_less(first_row, spread(np.float32(i)), zero, p)
            mass = mass + p
            store_vector(at, p)
        store_vector(highest + FLOAT_BYTES * lane, top)
        store_vector(total + FLOAT_BYTES * lane, mass)
        for c in range(channels):
            at = sums + FLOAT_BYTES * (c * QUERIES + lane)
            store_vector(at, load_vector(at) * shrink)


@kernel
def attention_backward(dqkv, dout, out, lse, qkv, scratch, n_head, pack):
    """Overwrites dqkv. Per head, with p = softmax(s) and s = q @ k.T / sqrt(D):

    dv = p.T @ dout
    ds = p * (dout @ v.T - sum_D(dout * out)) / sqrt(D)
    dk = ds.T @ q
    dq = ds @ k

    dqkv, qkv   (B, T, 3C)
    dout, out   (B, T, C)
    lse         (B, H, T)    saved by attention_forward
    """
    channels = out.shape[2]
    head = channels // n_head
    for b in range(out.shape[0]):
        for h in range(n_head):
            q = qkv[b, :, h * head : (h + 1) * head]
            k = qkv[b, :, channels + h * head : channels + (h + 1) * head]
            v = qkv[b, :, 2 * channels + h * head : 2 * channels + (h + 1) * head]
            dq = dqkv[b, :, h * head : (h + 1) * head]
            dk = dqkv[b, :, channels + h * head : channels + (h + 1) * head]
            dv = dqkv[b, :, 2 * channels + h * head : 2 * channels + (h + 1) * head]
            do, o = dout[b, :, h * head : (h + 1) * head], out[b, :, h * head : (h + 1) * head]
            if out.itemsize == 4:
                _head_backward(dq, dk, dv, do, o, lse[b, h], q, k, v, scratch, pack)
            else:
                plain_attention_backward(dq, dk, dv, do, o, lse[b, h], q, k, v)


@kernel
def _head_backward(dq, dk, dv, dout, out, lse, q, k, v, scratch, pack):
    """One head; all (T, D), lse (T,)."""
    keep_out_of_line()
    positions, head = out.shape
    bf16, stride, out_stride = pack.bf16, q.strides[0] // FLOAT_BYTES, dout.strides[0] // FLOAT_BYTES
    scale = np.float32(1.0 / math.sqrt(head))
    depth = panel_depth(head, bf16)
    channels = (head + TILE_ROWS - 1) // TILE_ROWS * TILE_ROWS
    panel = FLOAT_BYTES * KEYS * depth
    q_rows, dout_rows = address_of(scratch.by_key), address_of(scratch.by_query)
    q_channels, dout_channels = address_of(scratch.by_channel), address_of(scratch.by_channel_2)
    k_panel = address_of(scratch.columns)
    v_panel, k_block = k_panel + panel, k_panel + 2 * panel
    p, ds, ds_rows = address_of(scratch.tile), address_of(scratch.dtile), address_of(scratch.dtile_rows)
    dk_sums = address_of(scratch.sums)
    dv_sums = dk_sums + FLOAT_BYTES * channels * KEYS
    pack_rows(q_rows, address_of(q), positions, head, stride, 1, bf16)
    pack_rows(dout_rows, address_of(dout), positions, head, out_stride, 1, bf16)
    for t0 in range(0, positions, QUERY_BLOCK):
        queries, block = min(QUERY_BLOCK, positions - t0), FLOAT_BYTES * t0 * channels
        q_block = address_of(q) + FLOAT_BYTES * t0 * stride
        dout_block = address_of(dout) + FLOAT_BYTES * t0 * out_stride
        pack_rows(q_channels + block, q_block, head, queries, 1, stride, bf16)
        pack_rows(dout_channels + block, dout_block, head, queries, 1, out_stride, bf16)
    dot = scratch.rows
    _dot_rows(dot, dout, out)
    for u0 in range(0, positions, KEYS):
        keys = min(KEYS, positions - u0)
        k_address = address_of(k) + FLOAT_BYTES * u0 * stride
        pack_columns(k_panel, k_address, keys, head, stride, 1, 0, bf16)
        pack_columns(v_panel, address_of(v) + FLOAT_BYTES * u0 * stride, keys, head, stride, 1, 0, bf16)
        pack_columns(k_block, k_address, head, keys, 1, stride, 0, bf16)
        _fill(dk_sums, 2 * channels * KEYS, 0.0)
        t1 = u0 // TILE_ROWS * TILE_ROWS
        while t1 < positions:
            t0 = t1 // QUERY_BLOCK * QUERY_BLOCK
            t2 = min(t0 + QUERY_BLOCK, positions)
            block_depth = panel_depth(t2 - t0, bf16)
            rows = (t2 - t1 + ROW_STEP - 1) // ROW_STEP * ROW_STEP
            steps = panel_depth(t2 - t1, bf16)
            within = FLOAT_BYTES * (t0 * channels + panel_depth(t1 - t0, bf16) * TILE_ROWS)
            # scores, softmax
            multiply_panels(
                p, KEYS, q_rows + FLOAT_BYTES * t1 * depth, depth, k_panel, rows, KEYS, depth,
                0, p, KEYS, NO_ROW, bf16, pack.tile,
            )  # fmt: skip
            multiply_panels(
                ds, KEYS, dout_rows + FLOAT_BYTES * t1 * depth, depth, v_panel, rows, KEYS, depth,
                0, ds, KEYS, NO_ROW, bf16, pack.tile,
            )  # fmt: skip
            _softmax_backward(p, ds, lse[t1:t2], dot[t1:t2], rows, u0 - t1, scale)
            pack_rows(ds_rows, ds, rows, keys, KEYS, 1, bf16)
            if bf16:
                round_rows_in_place(p, rows)
                round_rows_in_place(ds, rows)
            # weighted sum of values
            multiply_panels(
                dv_sums, KEYS, dout_channels + within, block_depth, p, channels, KEYS, steps,
                ADD_TILE, dv_sums, KEYS, NO_ROW, bf16, pack.tile,
            )  # fmt: skip
            # scores
            multiply_panels(
                dk_sums, KEYS, q_channels + within, block_depth, ds, channels, KEYS, steps,
                ADD_TILE, dk_sums, KEYS, NO_ROW, bf16, pack.tile,
            )  # fmt: skip
            dq_address, ldq = address_of(dq[t1:]), dq.strides[0] // FLOAT_BYTES
            multiply_panels(
                dq_address, ldq, ds_rows, panel_depth(keys, bf16), k_block, t2 - t1, head,
                panel_depth(keys, bf16), ADD_TILE if u0 > 0 else 0, dq_address, ldq, NO_ROW, bf16, pack.tile,
            )  # fmt: skip
            t1 = t2
        _store_transposed(dk[u0 : u0 + keys], dk_sums)
        _store_transposed(dv[u0 : u0 + keys], dv_sums)


@kernel
def _dot_rows(dot, x, y):
    """dot[t] = sum_D(x[t] * y[t]), x and y (T, D), unit stride along D.

    By vectors, because a slice of columns has strides that the compiler does not know: 3.7 % of the backward
    pass at T = 1024, 11 % at T = 64, before.
    """
    head = x.shape[1]
    whole = head - head % LANES
    for t in range(x.shape[0]):
        x_row, y_row, sums = address_of(x[t]), address_of(y[t]), spread(np.float32(0))
        for c in range(0, whole, LANES):
            at = FLOAT_BYTES * c
            sums = sums + load_vector(x_row + at) * load_vector(y_row + at)
        total = sum_of_lanes(sums)
        for c in range(whole, head):
            total += x[t, c] * y[t, c]
        dot[t] = total


@kernel
def _softmax_backward(p, ds, lse, dot, rows, diagonal, scale):
    """p = exp(scale * p - lse), ds = p * (ds - dot) * scale; row i sees lane j if diagonal + j <= i."""
    scales, zero = spread(scale), spread(np.float32(0))
    for i in range(rows):
        if i >= lse.size:  # rows beyond the last position, there to fill a register tile
            _fill(p + FLOAT_BYTES * i * KEYS, KEYS, 0.0)
            _fill(ds + FLOAT_BYTES * i * KEYS, KEYS, 0.0)
            continue
        row_lse, row_dot, row = spread(lse[i]), spread(dot[i]), spread(np.float32(i))
        for lane in range(0, KEYS, LANES):
            at = FLOAT_BYTES * (i * KEYS + lane)
            log_p = load_vector(p + at) * scales - row_lse
            # huge scores leave lse few digits; a probability is at most 1 all the same, and a NaN stays
            probability = exp(where_less(zero, log_p, zero, log_p))
            if i < diagonal + KEYS:
                column = lane_numbers() + spread(np.float32(diagonal + lane))
                probability = where_less(row, column, zero, probability)
            store_vector(p + at, probability)
            store_vector(ds + at, probability * (load_vector(ds + at) - row_dot) * scales)


@kernel
def _fill(address, count, value):
    """`count` floats, a multiple of LANES."""
    values = spread(np.float32(value))
    for i in range(0, count, LANES):
        store_vector(address + FLOAT_BYTES * i, values)


@kernel
def _divide_columns(sums, total, channels):
    for lane in range(0, QUERIES, LANES):
        inverse = spread(np.float32(1)) / load_vector(total + FLOAT_BYTES * lane)
        for c in range(channels):
            at = sums + FLOAT_BYTES * (c * QUERIES + lane)
            store_vector(at, load_vector(at) * inverse)


@kernel
def _store_transposed(target, sums):
    """target (n <= TILE_COLUMNS, D) = the first n columns of sums (D, TILE_COLUMNS), transposed."""
    rows, head = target.shape
    address, stride = address_of(target), target.strides[0] // FLOAT_BYTES
    whole_rows, whole_head = rows // LANES * LANES, head // LANES * LANES
    for i in range(0, whole_rows, LANES):
        for c in range(0, whole_head, LANES):
            transpose_square(
                address + FLOAT_BYTES * (i * stride + c),
                stride,
                sums + FLOAT_BYTES * (c * TILE_COLUMNS + i),
                TILE_COLUMNS,
            )
    for i in range(rows):
        for c in range(whole_head if i < whole_rows else 0, head):
            copy_float(address + FLOAT_BYTES * (i * stride + c), sums + FLOAT_BYTES * (c * TILE_COLUMNS + i))
