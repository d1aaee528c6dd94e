"""Operands of the matrix product in panels, as the register tile (vector/tile.py) reads them: in one stream.

A panel of A holds TILE_ROWS rows, one of B TILE_COLUMNS columns: (depth, width), depth by depth. In bf16 an
element is two steps of the depth rounded to bfloat16, so a panel is half as deep; an odd depth ends with 0.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from feste_dp.kernels.compilation import inlined_kernel, kernel
from feste_dp.kernels.vector.moves import (
    add_vector,
    copy_float,
    copy_lanes,
    copy_vector,
    load_float,
    prefetch,
    round_floats,
    round_lanes,
    round_vectors,
    store_float,
    transpose_rows,
    transpose_rows_bf16,
    transpose_some_rows,
    transpose_some_rows_bf16,
    transpose_square,
    transpose_square_bf16,
)
from feste_dp.kernels.vector.registers import keep_out_of_line
from feste_dp.kernels.vector.target import FLOAT_BYTES, LANES, ROW_TILE, TILE_COLUMNS, TILE_ROWS

BLOCK_ROWS = 96  # of A, whole tiles; with BLOCK_DEPTH 192 KiB, in L2
BLOCK_DEPTH = 512  # panel rows of A and B; C is read and written once for so many
BLOCK_COLUMNS = 1536  # of B; with BLOCK_DEPTH 3 MiB, in L3

# What lies in rows of the source is copied row by row, over so many panels of B at once, and asked for so
# many rows ahead: rows are a page apart, where no CPU fetches ahead by itself. Out of memory on a Zen 5 core:
# 8 GB/s one panel at a time, 13 eight at a time, 19 with both; a 768-wide product takes 3 to 5 % less.
PANELS_AT_ONCE, STEPS_AHEAD = 8, 6
LINE = 16  # floats of a cache line

# A step of a panel of A is copied by whole vectors, which spill over into so many steps after it.
SPILLED_STEPS = (-TILE_ROWS % LANES + TILE_ROWS - 1) // TILE_ROWS


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
def pack_rows(panels, a, rows, depth, bf16):
    """A view (rows, depth) into panels of TILE_ROWS at an address; missing rows are zero."""
    keep_out_of_line()
    source, row, step = a
    whole_depth = panel_depth(depth, bf16)
    if row == 1:
        # whole vectors: what spills over a step of a panel is overwritten by the next; the last ones are left
        copied_panels = max(0, rows - (TILE_ROWS + LANES - 1) // LANES * LANES + TILE_ROWS) // TILE_ROWS
        copied_steps = _copy_steps(
            panels,
            source,
            TILE_ROWS,
            copied_panels,
            whole_depth,
            depth - SPILLED_STEPS * (2 if bf16 else 1),
            step,
            0,
            bf16,
        )
        for i in range(0, rows, TILE_ROWS):
            panel, start = panels + FLOAT_BYTES * i * whole_depth, source + FLOAT_BYTES * i
            done = copied_steps if i < copied_panels * TILE_ROWS else 0
            _copy_edge(panel, start, done, depth, min(TILE_ROWS, rows - i), TILE_ROWS, step, bf16)
        return
    for i in range(0, rows, TILE_ROWS):
        panel = panels + FLOAT_BYTES * i * whole_depth
        start = source + FLOAT_BYTES * i * row
        present = min(TILE_ROWS, rows - i)
        done = 0
        if step == 1:
            stride = 2 * LANES if bf16 else LANES
            done = depth // stride * stride
            for i_tile in range(0, TILE_ROWS, ROW_TILE):
                missing = i_tile + ROW_TILE - present
                first = i_tile if i_tile < present else 0  # a row that is there, though none may be wanted
                for k in range(0, done, stride):
                    target = panel + FLOAT_BYTES * (k * LANES // stride * TILE_ROWS + i_tile)
                    tile = start + FLOAT_BYTES * (first * row + k)
                    if missing > 0 and bf16:
                        transpose_some_rows_bf16(target, TILE_ROWS, tile, row, ROW_TILE - missing)
                    elif missing > 0:
                        transpose_some_rows(target, TILE_ROWS, tile, row, ROW_TILE - missing)
                    elif bf16:
                        transpose_rows_bf16(target, TILE_ROWS, tile, row)
                    else:
                        transpose_rows(target, TILE_ROWS, tile, row)
        _pack_edge(panel, start, done, depth, present, TILE_ROWS, row, step, bf16)


@kernel
def pack_columns(panels, b, columns, depth, sums, bf16):
    """A view (depth, columns) into panels of TILE_COLUMNS at an address; missing columns are zero.

    sums: 0, or the address of (columns,) floats to which the sum of each column is added; columns lie side by
    side then.
    """
    keep_out_of_line()
    source, step, column = b
    whole_depth = panel_depth(depth, bf16)
    whole = columns // TILE_COLUMNS if column == 1 else 0
    for j in range(0, whole, PANELS_AT_ONCE):
        first, count = j * TILE_COLUMNS, min(PANELS_AT_ONCE, whole - j)
        panel, start = panels + FLOAT_BYTES * first * whole_depth, source + FLOAT_BYTES * first
        block_sums = sums + FLOAT_BYTES * first if sums else 0
        done = _copy_steps(panel, start, TILE_COLUMNS, count, whole_depth, depth, step, block_sums, bf16)
        if done < depth:
            for i in range(count):
                at = FLOAT_BYTES * i * TILE_COLUMNS
                _copy_edge(
                    panel + at * whole_depth, start + at, done, depth, TILE_COLUMNS, TILE_COLUMNS, step, bf16
                )
                if sums:
                    _add_column_sums(block_sums + at, start + at, TILE_COLUMNS, done, depth, step)
    for j in range(whole * TILE_COLUMNS, columns, TILE_COLUMNS):
        panel = panels + FLOAT_BYTES * j * whole_depth
        start = source + FLOAT_BYTES * j * column
        present = min(TILE_COLUMNS, columns - j)
        done = 0
        if step == 1 and present == TILE_COLUMNS:
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
        if column == 1:
            _copy_edge(panel, start, 0, depth, present, TILE_COLUMNS, step, bf16)
        else:
            _pack_edge(panel, start, done, depth, present, TILE_COLUMNS, column, step, bf16)
        if sums:
            _add_column_sums(sums + FLOAT_BYTES * j, start, present, 0, depth, step)


@kernel
def _copy_steps(panels, source, width, count, whole_depth, depth, step, sums, bf16):
    """`count` panels from a source whose elements of a step lie side by side; returns the steps done. Adds
    each column of the source to (count width,) floats at `sums`, unless that is 0.

    Step by step, over all panels: one panel after the other took twice as long where the steps are far apart,
    on other pages of memory.
    """
    unit = 2 if bf16 else 1
    for k in range(0, depth - unit + 1, unit):
        for line in range(0, count * width, LINE):
            ahead = source + FLOAT_BYTES * ((k + STEPS_AHEAD) * step + line)
            prefetch(ahead)
            if bf16:
                prefetch(ahead + FLOAT_BYTES * step)
        for panel in range(count):
            target = panels + FLOAT_BYTES * width * (panel * whole_depth + k // unit)
            for lane in range(0, width, LANES):
                at, place = FLOAT_BYTES * lane, FLOAT_BYTES * (panel * width + lane)
                start = source + FLOAT_BYTES * k * step + place
                if sums:
                    add_vector(sums + place, start)
                if bf16:
                    round_vectors(target + at, start, start + FLOAT_BYTES * step)
                    if sums:
                        add_vector(sums + place, start + FLOAT_BYTES * step)
                else:
                    copy_vector(target + at, start)
    return max(0, depth) // unit * unit


@kernel
def _copy_edge(panel, source, k_from, depth, present, width, step, bf16):
    """Steps k_from .. depth - 1 of one panel from a source whose elements of a step lie side by side, by
    vectors of which some lanes are left out: element by element it was 4 % of a step of tiny."""
    unit = 2 if bf16 else 1
    for k in range(k_from, depth, unit):
        for lane in range(0, width, LANES):
            target = panel + FLOAT_BYTES * (k // unit * width + lane)
            start = source + FLOAT_BYTES * (k * step + lane)
            here, room = min(max(present - lane, 0), LANES), min(width - lane, LANES)
            if bf16:
                here_too = here if k + 1 < depth else 0
                round_lanes(target, start, start + FLOAT_BYTES * step, here, here_too, room)
            else:
                copy_lanes(target, start, here, room)


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
def _add_column_sums(sums, source, columns, k_from, depth, step):
    """sums[j] += sum over k from k_from on of source[k * step + j]: what _copy_steps leaves over."""
    for j in range(columns):
        total = load_float(sums + FLOAT_BYTES * j)
        for k in range(k_from, depth):
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
