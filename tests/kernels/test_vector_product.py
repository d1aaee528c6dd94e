import numpy as np
import pytest

from feste_dp.kernels.compilation import kernel
from feste_dp.kernels.linear import linear_forward, linear_residual_forward
from feste_dp.kernels.matmul import matmul
from feste_dp.kernels.meeting import share
from feste_dp.kernels.packing import make_pack_buffers
from feste_dp.kernels.vector.target import LANES
from feste_dp.kernels.vector_product import head_rows, linear_rows

# Depth beyond one block and beside a multiple of it, columns beside whole vectors.
SHAPES = [(1, 768, 320), (3, 70, 50), (2, 1040, 67), (5, 513, 16), (1, 8, 24), (2, 5, 7)]


@kernel
def linear(out, x, weight, bias, pack):
    linear_forward(out, x, weight, bias, pack)


@kernel
def linear_residual(out, x, weight, bias, residual, pack):
    linear_residual_forward(out, x, weight, bias, residual, pack)


def made(rng, *shape):
    return rng.standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize(("rows", "depth", "columns"), SHAPES)
def test_a_product_of_few_rows_has_the_bits_of_the_packed_one(rng, rows, depth, columns, parts):
    x, weight, bias = made(rng, rows, 1, depth), made(rng, depth, columns), made(rng, columns)
    residual, pack = made(rng, rows, 1, columns), make_pack_buffers()
    expected, expected_sum = np.empty((2, rows, 1, columns), np.float32)
    linear(expected, x, weight, bias, pack)
    linear_residual(expected_sum, x, weight, bias, residual, pack)
    out, total = np.full((rows, columns), np.nan, np.float32), residual[:, 0].copy()
    scratch = np.full((rows, columns + LANES), np.nan, np.float32)
    for part in range(parts):
        columns_of_part = share(columns, LANES, part, parts)
        linear_rows(out, x[:, 0], weight, bias, False, *columns_of_part, scratch)
        linear_rows(total, x[:, 0], weight, bias, True, *columns_of_part, scratch)
    np.testing.assert_array_equal(out, expected[:, 0])
    np.testing.assert_array_equal(total, expected_sum[:, 0])


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize(("rows", "depth", "columns"), SHAPES)
def test_a_head_of_few_rows_has_the_bits_of_the_packed_one(rng, rows, depth, columns, parts):
    columns += LANES
    x, weight = made(rng, rows, depth), made(rng, columns, depth)
    expected = np.empty((rows, columns), np.float32)
    matmul(expected, x, np.ascontiguousarray(weight.T), False, make_pack_buffers())
    out = np.full((rows, columns), np.nan, np.float32)
    tile, sums = np.empty(LANES * LANES, np.float32), np.empty((rows, 2 * LANES), np.float32)
    for part in range(parts):
        head_rows(out, x, weight, *share(columns, LANES, part, parts), tile, sums)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(
    ("count", "step", "parts"), [(300, 16, 4), (5, 16, 3), (1, 1, 4), (64, 16, 2), (0, 1, 2)]
)
def test_shares_are_all_of_it_in_order(count, step, parts):
    shares = [share(count, step, part, parts) for part in range(parts)]
    assert [place for first, last in shares for place in range(first, last)] == list(range(count))
    assert all(first % step == 0 or first == count for first, _ in shares)
