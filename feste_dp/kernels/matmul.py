"""C = A @ B and C += A @ B for any strides: the one seam behind which the matrix product stands.

Blocked as in K. Goto and R. van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (ACM TOMS 34,
2008): panels of B stay in the L1 cache, a block of A in L2; both are packed so that the register tile of
simd.py reads them in one stream.
"""

from typing import NamedTuple

import numpy as np

from feste_dp.kernels.compilation import kernel
from feste_dp.kernels.simd import (
    FLOAT_BYTES,
    LANES,
    ROW_REST,
    ROW_TILE,
    TILE_COLUMNS,
    TILE_ROWS,
    copy_float,
    copy_vector,
    multiply_tile,
    store_zero,
    transpose_rest,
    transpose_rows,
    transpose_square,
)

BLOCK_ROWS = 14 * TILE_ROWS  # of A; with BLOCK_DEPTH 172 KiB, in L2
BLOCK_DEPTH = 256
BLOCK_COLUMNS = 1536 // TILE_COLUMNS * TILE_COLUMNS  # of B; with BLOCK_DEPTH 1.5 MiB, in L2 or L3


class PackBuffers(NamedTuple):
    """Room for one packed block of A, one of B, and one register tile at the ragged edge of C."""

    a: np.ndarray
    b: np.ndarray
    tile: np.ndarray


def make_pack_buffers() -> PackBuffers:
    return PackBuffers(
        np.zeros(BLOCK_ROWS * BLOCK_DEPTH + LANES, np.float32),
        np.zeros(BLOCK_COLUMNS * BLOCK_DEPTH + LANES, np.float32),
        np.zeros(TILE_ROWS * TILE_COLUMNS, np.float32),
    )


@kernel
def matmul(c, a, b, accumulate, pack):
    """c = a @ b, or c += a @ b when `accumulate`.

    c (M, N), unit stride along N; a (M, K) and b (K, N), either of them a transposed view.
    The bits of an element depend on K, on nothing else of the shape.
    """
    if c.itemsize == 4:
        _matmul_float32(c, a, b, accumulate, pack)
    else:
        _matmul_plain(c, a, b, accumulate)


@kernel
def _matmul_plain(c, a, b, accumulate):
    """The definition, for the float64 gradient checks."""
    for i in range(c.shape[0]):
        for j in range(c.shape[1]):
            total = c[i, j] if accumulate else c.dtype.type(0)
            for k in range(a.shape[1]):
                total += a[i, k] * b[k, j]
            c[i, j] = total


@kernel
def _matmul_float32(c, a, b, accumulate, pack):
    rows, columns, depth = c.shape[0], c.shape[1], a.shape[1]
    ldc = c.strides[0] // FLOAT_BYTES
    c_address, a_address, b_address = c.ctypes.data, a.ctypes.data, b.ctypes.data
    a_row, a_k = a.strides[0] // FLOAT_BYTES, a.strides[1] // FLOAT_BYTES
    b_k, b_column = b.strides[0] // FLOAT_BYTES, b.strides[1] // FLOAT_BYTES
    a_panels, b_panels = pack.a.ctypes.data, pack.b.ctypes.data
    for j0 in range(0, columns, BLOCK_COLUMNS):
        n = min(BLOCK_COLUMNS, columns - j0)
        for k0 in range(0, depth, BLOCK_DEPTH):
            k = min(BLOCK_DEPTH, depth - k0)
            _pack_b(b_panels, b_address + FLOAT_BYTES * (k0 * b_k + j0 * b_column), n, k, b_column, b_k)
            for i0 in range(0, rows, BLOCK_ROWS):
                m = min(BLOCK_ROWS, rows - i0)
                _pack_a(a_panels, a_address + FLOAT_BYTES * (i0 * a_row + k0 * a_k), m, k, a_row, a_k)
                _multiply_block(
                    c_address + FLOAT_BYTES * (i0 * ldc + j0),
                    ldc,
                    a_panels,
                    b_panels,
                    m,
                    n,
                    k,
                    accumulate or k0 > 0,
                    pack.tile,
                )


@kernel
def _multiply_block(c, ldc, a_panels, b_panels, m, n, k, accumulate, tile):
    tile_address = tile.ctypes.data
    for j in range(0, n, TILE_COLUMNS):
        b_panel = b_panels + FLOAT_BYTES * j * k
        for i in range(0, m, TILE_ROWS):
            a_panel = a_panels + FLOAT_BYTES * i * k
            c_tile = c + FLOAT_BYTES * (i * ldc + j)
            if i + TILE_ROWS <= m and j + TILE_COLUMNS <= n:
                multiply_tile(c_tile, ldc, a_panel, b_panel, k, accumulate)
            else:
                tile_rows, tile_columns = min(TILE_ROWS, m - i), min(TILE_COLUMNS, n - j)
                if accumulate:
                    _copy_rows(tile_address, TILE_COLUMNS, c_tile, ldc, tile_rows, tile_columns)
                multiply_tile(tile_address, TILE_COLUMNS, a_panel, b_panel, k, accumulate)
                _copy_rows(c_tile, ldc, tile_address, TILE_COLUMNS, tile_rows, tile_columns)


@kernel
def _copy_rows(target, target_stride, source, source_stride, rows, columns):
    for i in range(rows):
        for j in range(columns):
            copy_float(
                target + FLOAT_BYTES * (i * target_stride + j), source + FLOAT_BYTES * (i * source_stride + j)
            )


@kernel
def _pack_a(panels, source, m, k, row, step):
    """A block (m, k) into panels (m / TILE_ROWS, k, TILE_ROWS); missing rows are zero."""
    for i in range(0, m, TILE_ROWS):
        panel = panels + FLOAT_BYTES * i * k
        start = source + FLOAT_BYTES * i * row
        if row == 1 and i + _rounded_up_to_lanes(TILE_ROWS) <= m:
            for kk in range(k):
                # whole vectors: what spills over the panel's row is overwritten by the next one
                for lane in range(0, TILE_ROWS, LANES):
                    copy_vector(
                        panel + FLOAT_BYTES * (kk * TILE_ROWS + lane),
                        start + FLOAT_BYTES * (kk * step + lane),
                    )
        elif step == 1 and i + TILE_ROWS <= m:
            whole = k // LANES * LANES
            for kk in range(0, whole, LANES):
                transpose_rows(panel + FLOAT_BYTES * kk * TILE_ROWS, TILE_ROWS, start + FLOAT_BYTES * kk, row)
                if ROW_REST:
                    transpose_rest(
                        panel + FLOAT_BYTES * (kk * TILE_ROWS + ROW_TILE),
                        TILE_ROWS,
                        start + FLOAT_BYTES * (ROW_TILE * row + kk),
                        row,
                    )
            _pack_edge(panel, start, whole, k, TILE_ROWS, TILE_ROWS, row, step)
        else:
            _pack_edge(panel, start, 0, k, min(TILE_ROWS, m - i), TILE_ROWS, row, step)


@kernel
def _pack_b(panels, source, n, k, column, step):
    """B block (k, n) into panels (n / TILE_COLUMNS, k, TILE_COLUMNS); missing columns are zero."""
    for j in range(0, n, TILE_COLUMNS):
        panel = panels + FLOAT_BYTES * j * k
        start = source + FLOAT_BYTES * j * column
        if column == 1 and j + TILE_COLUMNS <= n:
            for kk in range(k):
                for lane in range(0, TILE_COLUMNS, LANES):
                    copy_vector(
                        panel + FLOAT_BYTES * (kk * TILE_COLUMNS + lane),
                        start + FLOAT_BYTES * (kk * step + lane),
                    )
        elif step == 1 and j + TILE_COLUMNS <= n:
            whole = k // LANES * LANES
            for lane in range(0, TILE_COLUMNS, LANES):
                for kk in range(0, whole, LANES):
                    transpose_square(
                        panel + FLOAT_BYTES * (kk * TILE_COLUMNS + lane),
                        TILE_COLUMNS,
                        start + FLOAT_BYTES * (lane * column + kk),
                        column,
                    )
            _pack_edge(panel, start, whole, k, TILE_COLUMNS, TILE_COLUMNS, column, step)
        else:
            _pack_edge(panel, start, 0, k, min(TILE_COLUMNS, n - j), TILE_COLUMNS, column, step)


@kernel
def _pack_edge(panel, start, k_from, k_to, present, width, stride, step):
    """Rows k_from..k_to of one panel, float by float."""
    for kk in range(k_from, k_to):
        for i in range(width):
            target = panel + FLOAT_BYTES * (kk * width + i)
            if i < present:
                copy_float(target, start + FLOAT_BYTES * (i * stride + kk * step))
            else:
                store_zero(target)


@kernel
def _rounded_up_to_lanes(count):
    return (count + LANES - 1) // LANES * LANES
