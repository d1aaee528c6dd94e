import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from feste_dp.kernels import matmul as kernels
from feste_dp.kernels.code_cache import CACHE_VARIABLE, KernelCache, code_place
from feste_dp.kernels.gelu import gelu_backward_block, gelu_forward_block
from feste_dp.kernels.packing import BLOCK_COLUMNS, BLOCK_DEPTH, BLOCK_ROWS, make_pack_buffers
from feste_dp.kernels.vector.target import LANES, ROW_STEP, TILE_COLUMNS, TILE_ROWS
from tests.kernels.gelu_formula import DERIVATIVE_ERROR, FORWARD_ERROR, gelu, gelu_derivative
from tests.kernels.operands import (
    PRECISIONS,
    ROUNDING,
    Guarded,
    GuardedBuffers,
    assert_product_is_right,
    assert_within,
    both_precisions,
    in_any_layout,
    placed,
    product_and_bound,
    random_matrix,
    rounded_to_bfloat16,
)

matmul = in_any_layout(kernels.matmul)
matmul_bias = in_any_layout(kernels.matmul_bias)
matmul_bias_gelu = in_any_layout(kernels.matmul_bias_gelu)
matmul_bias_residual = in_any_layout(kernels.matmul_bias_residual)
matmul_column_sums = in_any_layout(kernels.matmul_column_sums)
matmul_gelu_backward = in_any_layout(kernels.matmul_gelu_backward)

GUARDED_PACKS = {bf16: GuardedBuffers(make_pack_buffers(bf16)) for bf16 in PRECISIONS}
PACKS = {bf16: guarded.buffers for bf16, guarded in GUARDED_PACKS.items()}

sizes = st.one_of(st.integers(1, 70), st.sampled_from([ROW_STEP, TILE_ROWS, TILE_COLUMNS, 16, 32, 48, 64]))
layouts = st.sampled_from(["rows", "columns", "every other"])
precisions = st.sampled_from(PRECISIONS)

# Ragged and whole tiles, one and several blocks, odd and even depths.
EDGES = pytest.mark.parametrize(
    ("rows", "columns", "depth"),
    [
        (BLOCK_ROWS, TILE_COLUMNS, BLOCK_DEPTH),
        (BLOCK_ROWS + 1, 3, BLOCK_DEPTH - 1),
        (2 * BLOCK_ROWS - 1, 2 * TILE_COLUMNS + 1, BLOCK_DEPTH + 1),
        (5, BLOCK_COLUMNS, 2 * BLOCK_DEPTH),
        (TILE_ROWS, BLOCK_COLUMNS - 1, 7),
        (BLOCK_ROWS + TILE_ROWS + 1, BLOCK_COLUMNS + TILE_COLUMNS + 1, 2 * BLOCK_DEPTH + 3),
        (TILE_ROWS + ROW_STEP, TILE_COLUMNS, 4 * BLOCK_DEPTH + 1),
        (3, 2 * BLOCK_COLUMNS + 5, 1),
    ],
)


def check_product(rows, columns, depth, a_layout, b_layout, accumulate, bf16):
    """Right, and outside of C nothing written, and nothing outside of A and B used: there lie NaNs."""
    rng = np.random.default_rng([rows, columns, depth])
    a, b = random_matrix(rng, rows, depth), random_matrix(rng, depth, columns)
    start, c = random_matrix(rng, rows, columns), Guarded(rows, columns)
    if accumulate:
        c.view[:] = start
    matmul(c.view, placed(a, a_layout, np.nan), placed(b, b_layout, np.nan), accumulate, PACKS[bf16])
    assert_product_is_right(c.view, a, b, start if accumulate else 0.0, bf16)
    c.assert_nothing_written_around()
    GUARDED_PACKS[bf16].assert_nothing_written_around()


@settings(max_examples=800, deadline=None, derandomize=True)
@given(sizes, sizes, sizes, layouts, layouts, st.booleans(), precisions)
@example(1, 1, 1, "rows", "rows", False, PRECISIONS[0])
@example(1, 1, 1, "rows", "rows", False, PRECISIONS[-1])
def test_product_of_any_shape_and_layout_is_right(rows, columns, depth, a_layout, b_layout, accumulate, bf16):
    check_product(rows, columns, depth, a_layout, b_layout, accumulate, bf16)


@both_precisions
@pytest.mark.parametrize("a_layout", ["rows", "columns"])
@pytest.mark.parametrize("b_layout", ["rows", "columns"])
@pytest.mark.parametrize("accumulate", [False, True])
@EDGES
def test_product_is_right_at_the_edges_of_its_blocks(
    rows, columns, depth, a_layout, b_layout, accumulate, bf16
):
    check_product(rows, columns, depth, a_layout, b_layout, accumulate, bf16)


class Surrounded:
    """One random product with all that a linear layer puts around it; every array has guards."""

    def __init__(self, rows, columns, depth, a_layout, b_layout, bf16):
        rng = np.random.default_rng([rows, columns, depth])
        self.bf16, self.pack = bf16, PACKS[bf16]
        self.a, self.b = random_matrix(rng, rows, depth), random_matrix(rng, depth, columns)
        self.at_a, self.at_b = placed(self.a, a_layout, np.nan), placed(self.b, b_layout, np.nan)
        self.b_rows = placed(self.b, "rows", np.nan)
        self.bias = self._guarded_row(rng, columns)
        self.residual = placed(random_matrix(rng, rows, columns), "rows", np.nan)
        self.x = placed(2 * random_matrix(rng, rows, columns), "rows", np.nan)
        self.c, self.gelu_c = Guarded(rows, columns), Guarded(rows, columns)

    @staticmethod
    def _guarded_row(rng, columns):
        row = Guarded(columns).view
        row[:] = rng.standard_normal(columns)
        return row

    def product(self, start=0.0):
        return product_and_bound(self.a, self.b, start, self.bf16)

    def check_bias(self):
        matmul_bias(self.c.view, self.at_a, self.at_b, self.bias, self.pack)
        assert_product_is_right(self.c.view, self.a, self.b, self.bias, self.bf16)
        self.c.assert_nothing_written_around()

    def check_residual(self):
        matmul_bias_residual(self.c.view, self.at_a, self.at_b, self.bias, self.residual, self.pack)
        expected, bound = self.product(self.bias)
        expected, bound = expected + self.residual, bound + ROUNDING * np.abs(expected + self.residual)
        assert_within(self.c.view, expected, 1.001 * bound)
        self.c.assert_nothing_written_around()

    def check_gelu(self):
        matmul_bias_gelu(self.c.view, self.gelu_c.view, self.at_a, self.at_b, self.bias, self.pack)
        c = self.c.view.astype(np.float64)
        assert_product_is_right(c, self.a, self.b, self.bias, self.bf16)
        assert_within(self.gelu_c.view, gelu(c), FORWARD_ERROR * np.abs(c))
        self.c.assert_nothing_written_around()
        self.gelu_c.assert_nothing_written_around()

    def check_gelu_backward(self):
        matmul_gelu_backward(self.c.view, self.gelu_c.view, self.at_a, self.at_b, self.x, self.pack)
        expected, bound = self.product()
        derivative = gelu_derivative(self.x.astype(np.float64))
        bound = bound * (np.abs(derivative) + DERIVATIVE_ERROR) + np.abs(expected) * 2 * DERIVATIVE_ERROR
        assert_within(self.c.view, expected * derivative, bound)
        self.c.assert_nothing_written_around()
        wide = self.x.astype(np.float64)
        assert_within(self.gelu_c.view, gelu(wide), FORWARD_ERROR * np.abs(wide))
        self.gelu_c.assert_nothing_written_around()

    def check_column_sums(self, accumulate):
        start, sums, before = self.residual, Guarded(self.b.shape[1]), self.bias
        self.c.view[:], sums.view[:] = start if accumulate else np.nan, before
        matmul_column_sums(self.c.view, sums.view, self.at_a, self.b_rows, accumulate, self.pack)
        assert_product_is_right(self.c.view, self.a, self.b, start if accumulate else 0.0, self.bf16)
        # the sums are of b itself, in float32, whatever the precision of the product
        wide = self.b.astype(np.float64)
        bound = len(wide) * ROUNDING * (np.abs(wide).sum(0) + np.abs(before))
        assert_within(sums.view, wide.sum(0) + before, bound)
        self.c.assert_nothing_written_around()
        sums.assert_nothing_written_around()

    def check_all(self):
        self.check_bias()
        self.check_residual()
        self.check_gelu()
        self.check_gelu_backward()
        self.check_column_sums(False)
        self.check_column_sums(True)
        GUARDED_PACKS[self.bf16].assert_nothing_written_around()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(sizes, sizes, sizes, layouts, layouts, precisions)
@example(1, 1, 1, "rows", "rows", PRECISIONS[-1])
def test_what_surrounds_a_product_is_right_for_any_shape_and_layout(
    rows, columns, depth, a_layout, b_layout, bf16
):
    Surrounded(rows, columns, depth, a_layout, b_layout, bf16).check_all()


@both_precisions
@EDGES
def test_what_surrounds_a_product_is_right_at_the_edges_of_its_blocks(rows, columns, depth, bf16):
    Surrounded(rows, columns, depth, "rows", "columns", bf16).check_all()


@both_precisions
@pytest.mark.parametrize("depth", [1, 13, 64, BLOCK_DEPTH, BLOCK_DEPTH + 44, 2 * BLOCK_DEPTH + 45])
def test_bits_of_an_element_depend_on_depth_alone(depth, bf16):
    rng = np.random.default_rng(depth)
    rows, columns = BLOCK_ROWS + 30, BLOCK_COLUMNS + 40
    a, b = random_matrix(rng, rows, depth), random_matrix(rng, depth, columns)
    start, bias = random_matrix(rng, rows, columns), random_matrix(rng, 1, columns)[0]

    def products(here):
        """Overwritten, added to, and with a bias and a residual; of a part of the rows and columns."""
        left, right = a[here[0]], b[:, here[1]]
        for a_layout, b_layout in (("rows", "rows"), ("columns", "columns"), ("every other", "columns")):
            at_a, at_b = placed(left, a_layout, np.nan), placed(right, b_layout, np.nan)
            c, residual = Guarded(*start[here].shape).view, placed(start[here], "rows", np.nan)
            matmul(c, at_a, at_b, False, PACKS[bf16])
            yield "overwritten", c.view(np.uint32)
            c = placed(start[here], "rows", np.nan)
            matmul(c, at_a, at_b, True, PACKS[bf16])
            yield "added to", c.view(np.uint32)
            c = Guarded(*start[here].shape).view
            matmul_bias_residual(c, at_a, at_b, bias[here[1]], residual, PACKS[bf16])
            yield "with bias and residual", c.view(np.uint32)

    whole = dict(products(np.s_[:, :]))
    for row, height in ((0, 1), (3, TILE_ROWS), (7, 2 * TILE_ROWS + 5), (BLOCK_ROWS - 5, 20)):
        for column, width in ((0, 1), (5, TILE_COLUMNS), (9, 3 * TILE_COLUMNS + 2), (BLOCK_COLUMNS - 7, 30)):
            here = np.s_[row : row + height, column : column + width]
            for kind, part in products(here):
                np.testing.assert_array_equal(part, whole[kind][here], err_msg=kind)


@both_precisions
def test_heads_side_by_side_in_one_array_multiply_like_copies(rng, bf16):
    head, positions = 10, 37
    qkv = random_matrix(rng, positions, 3 * 3 * head)
    out = np.full((positions, 3 * head), np.nan, np.float32)
    for h in range(3):
        q = qkv[:, h * head : (h + 1) * head]
        k = qkv[:, (3 + h) * head : (4 + h) * head]
        v = qkv[:, (6 + h) * head : (7 + h) * head]
        scores = Guarded(positions, positions).view
        matmul(scores, q, k.T, False, PACKS[bf16])
        assert_product_is_right(scores, q, k.T, bf16=bf16)
        matmul(out[:, h * head : (h + 1) * head], scores, v, False, PACKS[bf16])
        assert_product_is_right(out[:, h * head : (h + 1) * head], scores, v, bf16=bf16)


@both_precisions
@pytest.mark.parametrize(("rows", "depth", "columns"), [(13, 21, 35), (2 * TILE_ROWS, 64, TILE_COLUMNS)])
def test_what_the_pack_buffers_held_before_does_not_matter(rows, depth, columns, rng, bf16):
    a, b = random_matrix(rng, rows, depth), random_matrix(rng, depth, columns)
    clean, dirty = make_pack_buffers(bf16), make_pack_buffers(bf16)
    for buffer in (dirty.a, dirty.b, dirty.tile):
        buffer[:] = np.nan
    results = []
    for pack in (clean, dirty):
        case = Surrounded(rows, columns, depth, "rows", "columns", bf16)
        case.pack = pack
        case.check_all()
        c = Guarded(rows, columns)
        matmul(c.view, placed(a, "rows", np.nan), placed(b, "rows", np.nan), False, pack)
        results.append(c.view.view(np.uint32))
    np.testing.assert_array_equal(*results)


# Prints a hash of products of many shapes, whose operands lie at another distance from the start of a cache
# line in every process.
PRODUCTS = """
import hashlib, os, sys
import numpy as np
from feste_dp.kernels.matmul import matmul, matmul_bias_gelu
from feste_dp.kernels.packing import make_pack_buffers

def moved(matrix):
    room = np.zeros((matrix.shape[0], matrix.shape[1] + 40), np.float32)
    view = room[:, os.getpid() % 40 :][:, : matrix.shape[1]]
    view[:] = matrix
    return view

digest, pack = hashlib.sha256(), make_pack_buffers(sys.argv[1] == "True")
for rows, depth, columns in ((2, 1, 2), (7, 33, 5), (64, 64, 64), (130, 1100, 77), (24, 31, 1600)):
    rng = np.random.default_rng(rows)
    a, b = (moved(rng.standard_normal(s, dtype=np.float32)) for s in ((rows, depth), (columns, depth)))
    c, gelu_c = moved(np.zeros((rows, columns))), moved(np.zeros((rows, columns)))
    matmul(c, a, b.T, False, pack)
    digest.update(c.tobytes())
    matmul_bias_gelu(c, gelu_c, a, b.T, np.arange(2 * columns, dtype=np.float32)[::2], pack)
    digest.update(c.tobytes() + gelu_c.tobytes())
print(digest.hexdigest())
"""


@both_precisions
def test_every_process_computes_the_same_bits(bf16):
    def printed():
        done = subprocess.run(
            [sys.executable, "-c", PRODUCTS, str(bf16)],
            env=os.environ | {CACHE_VARIABLE: str(code_place(KernelCache.kind).path)},
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )
        return done.stdout

    printed()  # compiles, where nothing is compiled yet: see compilation.py on code that was not loaded
    first = printed()
    assert len(first.strip()) == 64 and printed() == first


@both_precisions
@pytest.mark.parametrize(("row", "step"), [(17, 39), (29, 40), (0, 0), (12, 24), (29, 0)])
@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize("bits", [0x7FC00000, 0x7F800001, 0xFFFFFFFF, 0x7F800000, 0xFF800000])
def test_a_nan_or_infinity_spoils_its_row_or_its_column_and_no_other(bits, layout, row, step, bf16):
    """NaNs with nothing in the upper half but the exponent among them; ragged edges and whole tiles."""
    rng = np.random.default_rng(3)
    bad = np.uint32(bits).view(np.float32)
    a, b = random_matrix(rng, 30, 41), random_matrix(rng, 41, 50)
    spoiled = a.copy()
    spoiled[row, step] = bad
    c = Guarded(30, 50).view
    matmul(c, placed(spoiled, layout, 0), placed(b, layout, 0), False, PACKS[bf16])
    check = np.isnan if np.isnan(bad) else np.isinf
    assert check(c[row]).all()
    assert np.isfinite(np.delete(c, row, axis=0)).all()

    c = Guarded(50, 30).view  # the same matrix on the right
    matmul(c, placed(b.T, layout, 0), placed(spoiled.T, layout, 0), False, PACKS[bf16])
    assert check(c[:, row]).all()
    assert np.isfinite(np.delete(c, row, axis=1)).all()


@pytest.mark.parametrize("bf16", [True] * (True in PRECISIONS))
@pytest.mark.parametrize("layout", ["rows", "columns", "every other"])
@pytest.mark.parametrize("odd", [0, 1])
def test_operands_are_rounded_to_the_nearest_bfloat16_and_subnormals_to_zero(odd, layout, bf16):
    # a product with the identity gives the rounded operand; no infinity, for it times zero is a NaN
    rng = np.random.default_rng(odd)
    n = 64 + odd
    largest = np.float32(np.uint32(0x7F7F0000).view(np.float32))
    bits = rng.integers(0, 1 << 32, (n, n), dtype=np.uint32)
    bits[:8] = bits[:8] & 0x807FFFFF  # subnormal
    bits[8:16] = bits[8:16] & 0xFFFF0000 | 0x8000  # half way
    bits[16:24] = bits[16:24] & 0xFFFF0000 | rng.choice([0x7FFF, 0x8001, 0, 0xFFFF], (8, n)).astype(np.uint32)
    x = bits.view(np.float32)
    x[~(np.abs(x) <= largest)] = 1 + 2.0**-8
    expected, identity = rounded_to_bfloat16(x), np.eye(n, dtype=np.float32)
    c = Guarded(n, n).view
    matmul(c, placed(x, layout, np.nan), placed(identity, layout, np.nan), False, PACKS[bf16])
    np.testing.assert_array_equal(c, expected)
    matmul(c, placed(identity, layout, np.nan), placed(x, layout, np.nan), False, PACKS[bf16])
    np.testing.assert_array_equal(c, expected)
    assert (expected != x).mean() > 0.5


@both_precisions
def test_the_epilogues_are_the_kernels_they_stand_for(rng, bf16):
    """The very bits of a product with a bias that the GELU then goes over."""
    rows, columns, depth = BLOCK_ROWS + 5, 2 * LANES, 70
    a, b = (
        placed(random_matrix(rng, rows, depth), "rows", np.nan),
        placed(random_matrix(rng, depth, columns), "rows", np.nan),
    )
    bias, x = np.zeros(columns, np.float32), placed(random_matrix(rng, rows, columns), "rows", np.nan)
    c, gelu_c, plain, gelu_plain = (Guarded(rows, columns).view for _ in range(4))
    matmul_bias_gelu(c, gelu_c, a, b, bias, PACKS[bf16])
    matmul(plain, a, b, False, PACKS[bf16])
    gelu_forward_block(gelu_plain, plain, 0, rows, 0, columns)
    np.testing.assert_array_equal(c, plain)
    np.testing.assert_array_equal(gelu_c, gelu_plain)
    matmul_gelu_backward(c, gelu_c, a, b, x, PACKS[bf16])
    gelu_backward_block(plain, gelu_plain, x, 0, rows, 0, columns)
    np.testing.assert_array_equal(c, plain)
    np.testing.assert_array_equal(gelu_c, gelu_plain)


@pytest.mark.parametrize("accumulate", [False, True])
def test_float64_is_the_plain_product_whatever_the_precision(accumulate, rng):
    a, b, start = rng.standard_normal((5, 7)), rng.standard_normal((9, 7)).T, rng.standard_normal((5, 9))
    bias, residual = rng.standard_normal(9), rng.standard_normal((5, 9))
    pack = PACKS[PRECISIONS[-1]]

    def assert_close(got, expected):
        np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-13)

    c = start.copy() if accumulate else np.full_like(start, np.nan)
    matmul(c, a, b, accumulate, pack)
    assert_close(c, a @ b + (start if accumulate else 0))
    c, sums, rows = (start.copy() if accumulate else np.full_like(start, np.nan)), bias.copy(), b.copy()
    matmul_column_sums(c, sums, a, rows, accumulate, pack)
    assert_close(c, a @ b + (start if accumulate else 0))
    assert_close(sums, bias + b.sum(0))
    c, gelu_c = np.full_like(start, np.nan), np.full_like(start, np.nan)
    matmul_bias(c, a, b, bias, pack)
    assert_close(c, a @ b + bias)
    matmul_bias_residual(c, a, b, bias, residual, pack)
    assert_close(c, a @ b + bias + residual)
    matmul_bias_gelu(c, gelu_c, a, b, bias, pack)
    assert_close(c, a @ b + bias)
    assert_close(gelu_c, gelu(a @ b + bias))
    matmul_gelu_backward(c, gelu_c, a, b, residual, pack)
    assert_close(c, a @ b * gelu_derivative(residual))
    assert_close(gelu_c, gelu(residual))
