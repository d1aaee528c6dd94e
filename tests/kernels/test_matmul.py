import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from feste_dp.kernels.matmul import BLOCK_COLUMNS, BLOCK_DEPTH, BLOCK_ROWS, make_pack_buffers, matmul
from feste_dp.kernels.simd import TILE_COLUMNS, TILE_ROWS

ROUNDING = 2.0**-24
GUARD = 19  # floats around every operand; a vector is at most 16
WRITTEN_ONLY_BY_A_BUG = np.float32(12345.678)

PACK = make_pack_buffers()

sizes = st.one_of(st.integers(1, 70), st.sampled_from([TILE_ROWS, TILE_COLUMNS, 16, 32, 48, 64]))
layouts = st.sampled_from(["rows", "columns", "every other"])


def placed(matrix, layout, around):
    """The matrix as a view into a larger array that is full of `around`."""
    rows, columns = matrix.shape
    if layout == "columns":
        return placed(matrix.T, "rows", around).T
    step = 2 if layout == "every other" else 1
    room = np.full((2 * GUARD + step * rows, 2 * GUARD + step * columns), around, matrix.dtype)
    view = room[GUARD : GUARD + step * rows : step, GUARD : GUARD + step * columns : step]
    view[:] = matrix
    return view


def random_matrix(rng, rows, columns):
    return rng.standard_normal((rows, columns)).astype(np.float32)


def assert_product_is_right(c, a, b, start):
    """Each element is a chain of K fused multiply-adds: at most K + 1 roundings of its absolute sum."""
    a, b, start = a.astype(np.float64), b.astype(np.float64), start.astype(np.float64)
    bound = (a.shape[1] + 1) * ROUNDING * (np.abs(a) @ np.abs(b) + np.abs(start))
    error = np.abs(c - (a @ b + start))
    assert (error <= bound).all(), f"error {error.max()}, bound there {bound.flat[error.argmax()]}"


def check_product(rows, columns, depth, a_layout, b_layout, accumulate):
    """Right, and outside of C nothing written, and nothing outside of A and B used: there lie NaNs."""
    rng = np.random.default_rng([rows, columns, depth])
    a, b = random_matrix(rng, rows, depth), random_matrix(rng, depth, columns)
    start = random_matrix(rng, rows, columns)
    room = np.full((rows + 2 * GUARD, columns + 2 * GUARD), WRITTEN_ONLY_BY_A_BUG)
    c = room[GUARD:-GUARD, GUARD:-GUARD]
    c[:] = start if accumulate else np.nan
    matmul(c, placed(a, a_layout, np.nan), placed(b, b_layout, np.nan), accumulate, PACK)
    assert_product_is_right(c, a, b, start if accumulate else np.zeros_like(start))
    c[:] = WRITTEN_ONLY_BY_A_BUG
    assert (room == WRITTEN_ONLY_BY_A_BUG).all()


@settings(max_examples=400, deadline=None, derandomize=True)
@given(sizes, sizes, sizes, layouts, layouts, st.booleans())
@example(1, 1, 1, "rows", "rows", False)
def test_product_of_any_shape_and_layout_is_right(rows, columns, depth, a_layout, b_layout, accumulate):
    check_product(rows, columns, depth, a_layout, b_layout, accumulate)


@pytest.mark.parametrize("a_layout", ["rows", "columns"])
@pytest.mark.parametrize("b_layout", ["rows", "columns"])
@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize(
    ("rows", "columns", "depth"),
    [
        (BLOCK_ROWS, TILE_COLUMNS, BLOCK_DEPTH),
        (BLOCK_ROWS + 1, 3, BLOCK_DEPTH - 1),
        (2 * BLOCK_ROWS - 1, 2 * TILE_COLUMNS + 1, BLOCK_DEPTH + 1),
        (5, BLOCK_COLUMNS, 2 * BLOCK_DEPTH),
        (TILE_ROWS, BLOCK_COLUMNS - 1, 7),
        (BLOCK_ROWS + TILE_ROWS + 1, BLOCK_COLUMNS + TILE_COLUMNS + 1, 2 * BLOCK_DEPTH + 3),
        (3, 2 * BLOCK_COLUMNS + 5, 1),
    ],
)
def test_product_is_right_at_the_edges_of_its_blocks(rows, columns, depth, a_layout, b_layout, accumulate):
    check_product(rows, columns, depth, a_layout, b_layout, accumulate)


@pytest.mark.parametrize("depth", [1, 13, 64, BLOCK_DEPTH, BLOCK_DEPTH + 44])
@pytest.mark.parametrize("accumulate", [False, True])
def test_bits_of_an_element_depend_on_depth_alone(depth, accumulate):
    rng = np.random.default_rng(depth)
    rows, columns = BLOCK_ROWS + 30, BLOCK_COLUMNS + 40
    a, b = random_matrix(rng, rows, depth), random_matrix(rng, depth, columns)
    whole = random_matrix(rng, rows, columns)
    start = whole.copy()
    matmul(whole, placed(a, "rows", np.nan), placed(b, "rows", np.nan), accumulate, PACK)
    for row, height in ((0, 1), (3, TILE_ROWS), (7, 2 * TILE_ROWS + 5), (BLOCK_ROWS - 5, 20)):
        for column, width in ((0, 1), (5, TILE_COLUMNS), (9, 3 * TILE_COLUMNS + 2), (BLOCK_COLUMNS - 7, 30)):
            here = np.s_[row : row + height, column : column + width]
            for a_layout, b_layout in (("rows", "rows"), ("columns", "columns"), ("every other", "columns")):
                part = start[here].copy()
                left = placed(a[row : row + height], a_layout, np.nan)
                right = placed(b[:, column : column + width], b_layout, np.nan)
                matmul(part, left, right, accumulate, PACK)
                np.testing.assert_array_equal(part.view(np.uint32), whole[here].view(np.uint32))


def test_heads_side_by_side_in_one_array_multiply_like_copies(rng):
    head, positions = 10, 37
    qkv = random_matrix(rng, positions, 3 * 3 * head)
    out = np.full((positions, 3 * head), np.nan, np.float32)
    for h in range(3):
        q = qkv[:, h * head : (h + 1) * head]
        k = qkv[:, (3 + h) * head : (4 + h) * head]
        v = qkv[:, (6 + h) * head : (7 + h) * head]
        scores = np.zeros((positions, positions), np.float32)
        matmul(scores, q, k.T, False, PACK)
        assert_product_is_right(scores, q, k.T, np.zeros_like(scores))
        matmul(out[:, h * head : (h + 1) * head], scores, v, False, PACK)
        assert_product_is_right(out[:, h * head : (h + 1) * head], scores, v, np.zeros_like(v))


def test_what_the_pack_buffers_held_before_does_not_matter(rng):
    a, b = random_matrix(rng, 13, 21), random_matrix(rng, 21, 35)
    c, again = np.zeros((13, 35), np.float32), np.zeros((13, 35), np.float32)
    dirty = make_pack_buffers()
    for buffer in dirty:
        buffer[:] = np.nan
    matmul(c, a[:], b[:], False, make_pack_buffers())
    matmul(again, a[:], b[:], False, dirty)
    np.testing.assert_array_equal(c, again)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_nan_spoils_its_row_and_no_other(bad, rng):
    a, b = random_matrix(rng, 30, 40), random_matrix(rng, 40, 50)
    a[17, 39] = bad
    c = np.zeros((30, 50), np.float32)
    matmul(c, a, b, False, PACK)
    assert not np.isfinite(c[17]).any()
    assert np.isfinite(np.delete(c, 17, axis=0)).all()


@pytest.mark.parametrize("accumulate", [False, True])
def test_float64_is_the_plain_product(accumulate, rng):
    a, b, start = rng.standard_normal((5, 7)), rng.standard_normal((9, 7)).T, rng.standard_normal((5, 9))
    c = start.copy()
    matmul(c, a, b, accumulate, PACK)
    np.testing.assert_allclose(c, a @ b + accumulate * start, rtol=1e-13, atol=1e-13)
