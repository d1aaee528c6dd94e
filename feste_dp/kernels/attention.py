"""Causal multi-head attention: A. Vaswani et al., "Attention Is All You Need" (2017).

The T x T matrix never exists: forward keeps a running maximum and sum over tiles of keys, backward draws each
tile's probabilities again from the saved log-sum-exp, both after T. Dao et al., "FlashAttention" (2022).
Tiles that the mask hides are skipped. All products run on packed panels (packing.py), which are carried as
(address, panel rows of each); forward has scores transposed (keys down, queries across), so that the softmax
is lane by lane and its result is, as it lies, the packed operand of the next product.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from feste_dp.kernels.attention_plain import plain_attention_backward, plain_attention_forward
from feste_dp.kernels.compilation import inlined_kernel, kernel
from feste_dp.kernels.logarithm import log
from feste_dp.kernels.matmul import multiply_panels
from feste_dp.kernels.packing import pack_columns, pack_rows, panel_depth, round_rows_in_place
from feste_dp.kernels.sums import row_product
from feste_dp.kernels.vector.exponential import exp
from feste_dp.kernels.vector.moves import copy_float, load_float, transpose_square
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
from feste_dp.kernels.vector.target import FLOAT_BYTES, LANES, TILE_COLUMNS, TILE_ROWS
from feste_dp.kernels.vector.tile import ADD_TILE
from feste_dp.kernels.views import part, rows_at, transposed, view

QUERIES = TILE_COLUMNS  # of a tile in forward: one panel
KEY_BLOCK = 192  # keys of a tile in forward; as what follows, a part of what is computed, not of the CPU
# of a tile in backward: one panel. Two of them between additions to dq gain nothing: the diagonal is coarser
KEYS = TILE_COLUMNS
QUERY_BLOCK = 144  # queries of a tile in backward
ROWS, STEP = 12, 4  # a multiple of TILE_ROWS and one of ROW_STEP, whatever these are on a CPU
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

    by_row = whole(positions, ROWS) * head
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
                attention_head_forward(o, lse[b, h], q, k, v, scratch, pack)
            else:
                plain_attention_forward(o, lse[b, h], q, k, v)


@kernel
def attention_head_forward(out, lse, q, k, v, scratch, pack):
    """One head; all (T, D), lse (T,)."""
    keep_out_of_line()
    positions, head = out.shape
    bf16, depth, channels = pack.bf16, panel_depth(head, pack.bf16), _whole_tiles(head)
    scale = np.float32(1.0 / math.sqrt(head))
    k_panels, v_panels, q_panel = (
        (address_of(scratch.by_key), depth),
        address_of(scratch.by_channel),
        address_of(scratch.columns),
    )
    tile, sums = rows_at(address_of(scratch.tile), QUERIES), rows_at(address_of(scratch.sums), QUERIES)
    highest, total = address_of(scratch.rows), address_of(scratch.rows) + FLOAT_BYTES * QUERIES
    pack_rows(k_panels[0], view(k), positions, head, bf16)
    for u0 in range(0, positions, KEY_BLOCK):
        keys = min(KEY_BLOCK, positions - u0)
        pack_rows(_block_at(v_panels, u0, channels), transposed(part(view(v), u0, 0)), head, keys, bf16)
    for t0 in range(0, positions, QUERIES):
        queries = min(QUERIES, positions - t0)
        pack_columns(q_panel, transposed(part(view(q), t0, 0)), queries, head, 0, bf16)
        _fill(highest, QUERIES, -np.inf)
        _fill(total, QUERIES, 0.0)
        _fill(sums[0], channels * QUERIES, 0.0)
        for u0 in range(0, t0 + queries, KEY_BLOCK):
            keys = min(KEY_BLOCK, t0 + queries - u0)
            rows = _whole_steps(keys)
            v_block = _block_at(v_panels, u0, channels), panel_depth(min(KEY_BLOCK, positions - u0), bf16)
            # scores
            _set_product(tile, _panels_from(k_panels, u0), q_panel, (rows, QUERIES, depth), pack)
            # softmax
            _online_softmax(tile[0], highest, total, sums[0], rows, channels, t0 - u0, scale)
            # weighted sum of values
            if bf16:
                round_rows_in_place(tile[0], rows)
            _add_product(sums, v_block, tile[0], (channels, QUERIES, panel_depth(keys, bf16)), pack)
        _divide_columns(sums[0], total, channels)
        _store_transposed(out[t0 : t0 + queries], sums[0])
        for i in range(queries):
            at_row = FLOAT_BYTES * i
            log_total = np.float32(log(float(load_float(total + at_row))))
            lse[t0 + i] = scale * load_float(highest + at_row) + log_total


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
    bf16, depth, channels = pack.bf16, panel_depth(head, pack.bf16), _whole_tiles(head)
    scale = np.float32(1.0 / math.sqrt(head))
    q_rows, dout_rows = (address_of(scratch.by_key), depth), (address_of(scratch.by_query), depth)
    q_channels, dout_channels = address_of(scratch.by_channel), address_of(scratch.by_channel_2)
    k_panel = address_of(scratch.columns)
    v_panel, k_block = k_panel + FLOAT_BYTES * KEYS * depth, k_panel + 2 * FLOAT_BYTES * KEYS * depth
    p, ds = rows_at(address_of(scratch.tile), KEYS), rows_at(address_of(scratch.dtile), KEYS)
    ds_rows, dk_sums = address_of(scratch.dtile_rows), rows_at(address_of(scratch.sums), KEYS)
    dv_sums = part(dk_sums, channels, 0)
    pack_rows(q_rows[0], view(q), positions, head, bf16)
    pack_rows(dout_rows[0], view(dout), positions, head, bf16)
    for t0 in range(0, positions, QUERY_BLOCK):
        queries = min(QUERY_BLOCK, positions - t0)
        pack_rows(_block_at(q_channels, t0, channels), transposed(part(view(q), t0, 0)), head, queries, bf16)
        pack_rows(
            _block_at(dout_channels, t0, channels), transposed(part(view(dout), t0, 0)), head, queries, bf16
        )
    dot = scratch.rows
    _dot_rows(dot, dout, out)
    for u0 in range(0, positions, KEYS):
        keys = min(KEYS, positions - u0)
        pack_columns(k_panel, transposed(part(view(k), u0, 0)), keys, head, 0, bf16)
        pack_columns(v_panel, transposed(part(view(v), u0, 0)), keys, head, 0, bf16)
        pack_columns(k_block, part(view(k), u0, 0), head, keys, 0, bf16)
        _fill(dk_sums[0], 2 * channels * KEYS, 0.0)
        t1 = u0 // ROWS * ROWS
        while t1 < positions:
            t0 = t1 // QUERY_BLOCK * QUERY_BLOCK
            t2 = min(t0 + QUERY_BLOCK, positions)
            rows, steps = _whole_steps(t2 - t1), panel_depth(t2 - t1, bf16)
            block_depth = panel_depth(t2 - t0, bf16)
            within = FLOAT_BYTES * panel_depth(t1 - t0, bf16) * TILE_ROWS  # steps of the block before t1
            dout_block = _block_at(dout_channels, t0, channels) + within, block_depth
            q_block = _block_at(q_channels, t0, channels) + within, block_depth
            # scores
            _set_product(p, _panels_from(q_rows, t1), k_panel, (rows, KEYS, depth), pack)
            _set_product(ds, _panels_from(dout_rows, t1), v_panel, (rows, KEYS, depth), pack)
            # softmax
            _softmax_backward(p[0], ds[0], lse[t1:t2], dot[t1:t2], rows, u0 - t1, scale)
            pack_rows(ds_rows, ds, rows, keys, bf16)
            if bf16:
                round_rows_in_place(p[0], rows)
                round_rows_in_place(ds[0], rows)
            # weighted sum of values
            _add_product(dv_sums, dout_block, p[0], (channels, KEYS, steps), pack)
            # scores
            _add_product(dk_sums, q_block, ds[0], (channels, KEYS, steps), pack)
            ds_panels, shape = (ds_rows, panel_depth(keys, bf16)), (t2 - t1, head, panel_depth(keys, bf16))
            if u0 == 0:
                _set_product(part(view(dq), t1, 0), ds_panels, k_block, shape, pack)
            else:
                _add_product(part(view(dq), t1, 0), ds_panels, k_block, shape, pack)
            t1 = t2
        _store_transposed(dk[u0 : u0 + keys], dk_sums[0])
        _store_transposed(dv[u0 : u0 + keys], dv_sums[0])


@kernel
def _dot_rows(dot, x, y):
    """dot[t] = sum_D(x[t] * y[t]) as in sums.py, x and y (T, D), unit stride along D."""
    (x_at, x_row, _), (y_at, y_row, _) = view(x), view(y)
    for t in range(x.shape[0]):
        dot[t] = row_product(x_at + FLOAT_BYTES * t * x_row, y_at + FLOAT_BYTES * t * y_row, x.shape[1])


@kernel
def _softmax_backward(p, ds, lse, dot, rows, diagonal, scale):
    """p = exp(scale * p - lse), the difference rounded once, ds = p * (ds - dot) * scale; row i sees
    lane j if diagonal + j <= i."""
    scales, zero = spread(scale), spread(np.float32(0))
    for i in range(rows):
        if i >= lse.size:  # rows beyond the last position, there to fill a register tile
            _fill(p + FLOAT_BYTES * i * KEYS, KEYS, 0.0)
            _fill(ds + FLOAT_BYTES * i * KEYS, KEYS, 0.0)
            continue
        minus_lse, row_dot, row = spread(-lse[i]), spread(dot[i]), spread(np.float32(i))
        for lane in range(0, KEYS, LANES):
            at = FLOAT_BYTES * (i * KEYS + lane)
            log_p = multiply_add(load_vector(p + at), scales, minus_lse)
            # huge scores leave lse few digits; a probability is at most 1 all the same, and a NaN stays
            probability = exp(where_less(zero, log_p, zero, log_p))
            if i < diagonal + KEYS:
                column = lane_numbers() + spread(np.float32(diagonal + lane))
                probability = where_less(row, column, zero, probability)
            store_vector(p + at, probability)
            store_vector(ds + at, probability * (load_vector(ds + at) - row_dot) * scales)


@inlined_kernel
def _set_product(c, a, b, shape, pack):
    """c = a @ b: see multiply_panels."""
    multiply_panels(c, a, b, shape, 0, c, NO_ROW, pack)


@inlined_kernel
def _add_product(c, a, b, shape, pack):
    """c += a @ b"""
    multiply_panels(c, a, b, shape, ADD_TILE, c, NO_ROW, pack)


@inlined_kernel
def _panels_from(panels, row):
    """From a row on, a multiple of TILE_ROWS; panels = (address, panel rows of each)."""
    return panels[0] + FLOAT_BYTES * row * panels[1], panels[1]


@inlined_kernel
def _block_at(address, first, channels):
    """The block of positions of a transposed operand that begins with `first`."""
    return address + FLOAT_BYTES * first * channels


@inlined_kernel
def _whole_tiles(rows):
    return (rows + TILE_ROWS - 1) // TILE_ROWS * TILE_ROWS


@inlined_kernel
def _whole_steps(rows):
    return (rows + STEP - 1) // STEP * STEP


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
    address, stride, _ = view(target)
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
