import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from feste_dp.kernels.packing import (
    BLOCK_COLUMNS,
    BLOCK_DEPTH,
    BLOCK_ROWS,
    PANELS_AT_ONCE,
    make_pack_buffers,
    pack_columns,
    pack_rows,
    panel_depth,
    round_rows_in_place,
)
from feste_dp.kernels.vector.target import FLOAT_BYTES, LANES, TILE_COLUMNS, TILE_ROWS
from tests.kernels.operands import (
    PRECISIONS,
    ROUNDING,
    WRITTEN_ONLY_BY_A_BUG,
    Guarded,
    assert_within,
    bfloat16_bits,
    both_precisions,
    placed,
    random_matrix,
)

ROOM_BEHIND = LANES  # floats behind the last panel that a buffer has for what spills over


def panels_of(matrix, width, bf16):
    """(panels, panel depth, width) words: the rows of the matrix, in panels of `width`, depth by depth."""
    rows, depth = matrix.shape
    whole = np.zeros((-(-rows // width) * width, depth + (depth % 2 if bf16 else 0)), np.float32)
    whole[:rows, :depth] = matrix
    if bf16:
        bits = bfloat16_bits(whole).astype(np.uint32)
        words = bits[:, 0::2] | bits[:, 1::2] << 16
    else:
        words = whole.view(np.uint32)
    return words.reshape(-1, width, words.shape[1]).swapaxes(1, 2)


def packed(pack, matrix, width, layout, bf16, *sums):
    """What `pack` makes of the rows of the matrix, which it may take for columns, in a buffer just long
    enough."""
    rows, depth = matrix.shape
    shape = (-(-rows // width), panel_depth(depth, bf16), width)
    count = shape[0] * shape[1] * shape[2]
    buffer = np.full(count + ROOM_BEHIND + 100, WRITTEN_ONLY_BY_A_BUG)
    buffer[:count] = np.nan
    source = placed(matrix, layout, np.nan)  # a name, or it would be gone with its address still in use
    row, step = (stride // FLOAT_BYTES for stride in source.strides)
    strides = (row, step) if pack is pack_rows else (step, row)
    pack(buffer.ctypes.data, (source.ctypes.data, *strides), rows, depth, *sums, bf16)
    assert (buffer[count + ROOM_BEHIND :] == WRITTEN_ONLY_BY_A_BUG).all()
    return buffer[:count].reshape(shape).view(np.uint32)


sizes = st.one_of(st.integers(1, 100), st.sampled_from([TILE_ROWS, TILE_COLUMNS, 2 * LANES, 96]))
layouts = st.sampled_from(["rows", "columns", "every other"])
precisions = st.sampled_from(PRECISIONS)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(sizes, sizes, layouts, precisions)
@example(1, 1, "rows", PRECISIONS[-1])
def test_panels_of_rows_and_of_columns_are_what_they_are_said_to_be(rows, depth, layout, bf16):
    matrix = random_matrix(np.random.default_rng([rows, depth]), rows, depth)
    got = packed(pack_rows, matrix, TILE_ROWS, layout, bf16)
    np.testing.assert_array_equal(got, panels_of(matrix, TILE_ROWS, bf16))
    got = packed(pack_columns, matrix, TILE_COLUMNS, layout, bf16, 0)
    np.testing.assert_array_equal(got, panels_of(matrix, TILE_COLUMNS, bf16))


@both_precisions
@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_the_largest_blocks_fill_the_pack_buffers_and_no_float_more(layout, bf16, rng):
    depth, pack = BLOCK_DEPTH * (2 if bf16 else 1), make_pack_buffers(bf16)
    a, b = random_matrix(rng, BLOCK_ROWS, depth), random_matrix(rng, BLOCK_COLUMNS, depth)
    for matrix, width, kernel, sums, buffer in (
        (a, TILE_ROWS, pack_rows, (), pack.a),
        (b, TILE_COLUMNS, pack_columns, (0,), pack.b),
    ):
        got = packed(kernel, matrix, width, layout, bf16, *sums)
        assert got.size + ROOM_BEHIND == buffer.size
        np.testing.assert_array_equal(got, panels_of(matrix, width, bf16))


@both_precisions
@pytest.mark.parametrize(
    "columns", [1, LANES + 1, TILE_COLUMNS, 2 * TILE_COLUMNS + 7, (PANELS_AT_ONCE + 1) * TILE_COLUMNS + 3]
)
@pytest.mark.parametrize("depth", [1, 2, 33])
def test_the_sums_of_columns_are_added_to_what_is_there(columns, depth, bf16, rng):
    matrix = random_matrix(rng, columns, depth)
    sums = Guarded(columns)
    sums.view[:] = start = random_matrix(rng, 1, columns)[0]
    got = packed(pack_columns, matrix, TILE_COLUMNS, "columns", bf16, sums.view.ctypes.data)
    np.testing.assert_array_equal(got, panels_of(matrix, TILE_COLUMNS, bf16))
    wide = matrix.astype(np.float64)
    bound = depth * ROUNDING * (np.abs(wide).sum(1) + np.abs(start))
    assert_within(sums.view, start + wide.sum(1), bound)
    sums.assert_nothing_written_around()


@pytest.mark.parametrize("bf16", [True] * (True in PRECISIONS))
@pytest.mark.parametrize("rows", [2, 4, 20])
def test_a_panel_rounded_in_place_is_that_of_its_columns(rows, bf16, rng):
    matrix = random_matrix(rng, rows, TILE_COLUMNS)
    panel = np.full(rows * TILE_COLUMNS + 100, WRITTEN_ONLY_BY_A_BUG)
    panel[: rows * TILE_COLUMNS] = matrix.ravel()
    round_rows_in_place(panel.ctypes.data, rows)
    got = panel[: rows // 2 * TILE_COLUMNS].view(np.uint32)
    np.testing.assert_array_equal(got, panels_of(matrix.T, TILE_COLUMNS, bf16).ravel())
    assert (panel[rows * TILE_COLUMNS :] == WRITTEN_ONLY_BY_A_BUG).all()


def test_two_steps_of_the_depth_are_one_row_of_a_bfloat16_panel():
    for depth in range(1, 20):
        assert panel_depth(depth, False) == depth
        assert panel_depth(depth, True) == -(-depth // 2)
