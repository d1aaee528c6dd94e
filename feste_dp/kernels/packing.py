"""Operands of the matrix product in panels, as the register tile of simd.py reads them: in one stream.

A panel of A holds TILE_ROWS rows, one of B TILE_COLUMNS columns: (depth, width), depth by depth. In bf16 an
element is two steps of the depth rounded to bfloat16, so a panel is half as deep; an odd depth ends with 0.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from feste_dp.kernels.compilation import inlined_kernel, kernel
from feste_dp.kernels.simd import (
    FLOAT_BYTES,
    LANES,
    ROW_TILE,
    TILE_COLUMNS,
    TILE_ROWS,
    copy_float,
    copy_vector,
    keep_out_of_line,
    load_float,
    load_vector,
    round_floats,
    round_vectors,
    store_float,
    store_vector,
    transpose_rows,
    transpose_rows_bf16,
    transpose_square,
    transpose_square_bf16,
)

BLOCK_ROWS = 8 * TILE_ROWS  # of A; with BLOCK_DEPTH 192 KiB, in L2
BLOCK_DEPTH = 512  # panel rows of A and B; C is read and written once for so many
BLOCK_COLUMNS = 1536 // TILE_COLUMNS * TILE_COLUMNS  # of B; with BLOCK_DEPTH 3 MiB, in L3


class PackBuffers(NamedTuple):
    """Room for one packed block of A, one of B, and one register tile at the ragged edge of C."""

    a: np.ndarray
    b: np.ndarray
    tile: np.ndarray
    bf16: bool
    """Whether products round their operands to bfloat16; sums are float32 in any case."""


def make_pack_buffers(bf16: bool = False, zeros: Callable[..., Any] = np.zeros) -> PackBuffers:
    return PackBuffers(
        zeros(BLOCK_ROWS * BLOCK_DEPTH + LANES, np.float32),
        zeros(BLOCK_COLUMNS * BLOCK_DEPTH + LANES, np.float32),
        zeros(TILE_ROWS * TILE_COLUMNS, np.float32),
        bf16,
    )


@inlined_kernel
def panel_depth(depth, bf16):
    """Rows of a panel that holds `depth` steps."""
    return (depth + 1) // 2 if bf16 else depth


@kernel
def pack_rows(panels, source, rows, depth, row, step, bf16):
    """A block (rows, depth) into panels of TILE_ROWS; missing rows are zero.

    panels, source: addresses; row, step: strides of the source in floats.
    """
    keep_out_of_line()
    whole_depth = panel_depth(depth, bf16)
    copied_panels, copied_steps = 0, 0
    if row == 1:
        # whole vectors: what spills over a row of a panel is overwritten by the next; the last is left
        copied_panels = max(0, rows - (TILE_ROWS + LANES - 1) // LANES * LANES + TILE_ROWS) // TILE_ROWS
        copied_steps = depth - 2 if bf16 else depth - 1
        copied_steps = _copy_steps(
            panels, source, TILE_ROWS, copied_panels, whole_depth, copied_steps, step, bf16
        )
    for i in range(0, rows, TILE_ROWS):
        panel = panels + FLOAT_BYTES * i * whole_depth
        start = source + FLOAT_BYTES * i * row
        present = min(TILE_ROWS, rows - i)
        done = copied_steps if i < copied_panels * TILE_ROWS else 0
        if step == 1 and row != 1 and present == TILE_ROWS:
            stride = 2 * LANES if bf16 else LANES
            done = depth // stride * stride
            for i_tile in range(0, TILE_ROWS, ROW_TILE):
                for k in range(0, done, stride):
                    target = panel + FLOAT_BYTES * (k * LANES // stride * TILE_ROWS + i_tile)
                    tile = start + FLOAT_BYTES * (i_tile * row + k)
                    if bf16:
                        transpose_rows_bf16(target, TILE_ROWS, tile, row)
                    else:
                        transpose_rows(target, TILE_ROWS, tile, row)
        _pack_edge(panel, start, done, depth, present, TILE_ROWS, row, step, bf16)


@kernel
def pack_columns(panels, source, columns, depth, column, step, sums, bf16):
    """B block (depth, columns) into panels of TILE_COLUMNS; missing columns are zero.

    panels, source: addresses; column, step: strides of the source in floats. sums: 0, or the address of
    (columns,) floats to which the sum of each column is added; column is 1 then.
    """
    keep_out_of_line()
    whole_depth = panel_depth(depth, bf16)
    for j in range(0, columns, TILE_COLUMNS):
        panel = panels + FLOAT_BYTES * j * whole_depth
        start = source + FLOAT_BYTES * j * column
        present = min(TILE_COLUMNS, columns - j)
        done = 0
        if column == 1 and present == TILE_COLUMNS:
            done = _copy_steps(panel, start, TILE_COLUMNS, 1, whole_depth, depth, step, bf16)
        elif step == 1 and present == TILE_COLUMNS:
            stride = 2 * LANES if bf16 else LANES
            done = depth // stride * stride
            for j_tile in range(0, TILE_COLUMNS, LANES):
                for k in range(0, done, stride):
                    target = panel + FLOAT_BYTES * (k * LANES // stride * TILE_COLUMNS + j_tile)
                    tile = start + FLOAT_BYTES * (j_tile * column + k)
                    if bf16:
                        transpose_square_bf16(target, TILE_COLUMNS, tile, column)
                    else:
                        transpose_square(target, TILE_COLUMNS, tile, column)
        _pack_edge(panel, start, done, depth, present, TILE_COLUMNS, column, step, bf16)
        if sums:
            _add_column_sums(sums + FLOAT_BYTES * j, start, present, depth, step)


@kernel
def _copy_steps(panels, source, width, count, whole_depth, depth, step, bf16):
    """`count` panels from a source whose elements of a step lie side by side; returns the steps done.

    Step by step, over all panels: one panel after the other took twice as long where the steps are far apart,
    on other pages of memory.
    """
    unit = 2 if bf16 else 1
    for k in range(0, depth - unit + 1, unit):
        for panel in range(count):
            target = panels + FLOAT_BYTES * width * (panel * whole_depth + k // unit)
            start = source + FLOAT_BYTES * (k * step + panel * width)
            for lane in range(0, width, LANES):
                at = FLOAT_BYTES * lane
                if bf16:
                    round_vectors(target + at, start + at, start + at + FLOAT_BYTES * step)
                else:
                    copy_vector(target + at, start + at)
    return max(0, depth) // unit * unit


@kernel
def _pack_edge(panel, start, k_from, depth, present, width, stride, step, bf16):
    """Steps k_from .. depth - 1 of one panel, element by element."""
    unit = 2 if bf16 else 1
    for k in range(k_from, depth, unit):
        for i in range(width):
            target = panel + FLOAT_BYTES * (k // unit * width + i)
            source = start + FLOAT_BYTES * (i * stride + k * step)
            if i >= present:
                store_float(target, np.float32(0))
            elif bf16:
                round_floats(target, source, source + FLOAT_BYTES * step if k + 1 < depth else 0)
            else:
                copy_float(target, source)


@kernel
def _add_column_sums(sums, source, columns, depth, step):
    """sums[j] += sum over k of source[k * step + j], for the rows of one panel that is in the cache."""
    if columns == TILE_COLUMNS:
        for lane in range(0, TILE_COLUMNS, LANES):
            total = load_vector(sums + FLOAT_BYTES * lane)
            for k in range(depth):
                total = total + load_vector(source + FLOAT_BYTES * (k * step + lane))
            store_vector(sums + FLOAT_BYTES * lane, total)
    else:
        for j in range(columns):
            total = load_float(sums + FLOAT_BYTES * j)
            for k in range(depth):
                total += load_float(source + FLOAT_BYTES * (k * step + j))
            store_float(sums + FLOAT_BYTES * j, total)


@kernel
def round_rows_in_place(panel, rows):
    """A panel of B, `rows` (an even number) by TILE_COLUMNS floats, to one of rows / 2 by TILE_COLUMNS pairs
    of bfloat16."""
    for k in range(0, rows, 2):
        for lane in range(0, TILE_COLUMNS, LANES):
            even = panel + FLOAT_BYTES * (k * TILE_COLUMNS + lane)
            target = panel + FLOAT_BYTES * (k // 2 * TILE_COLUMNS + lane)
            round_vectors(target, even, even + FLOAT_BYTES * TILE_COLUMNS)
