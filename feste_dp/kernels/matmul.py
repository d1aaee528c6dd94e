"""C = A @ B for any strides, with what surrounds it in a linear layer: the one seam behind which the matrix
product stands.

Blocked as in K. Goto and R. van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (ACM TOMS 34,
2008): panels of B stay in the L1 cache, a block of A in L2; both are packed (packing.py) so that the register
tile (vector/tile.py) reads them in one stream.
"""

from feste_dp.kernels.compilation import inlined_kernel, kernel
from feste_dp.kernels.gelu import gelu_backward_block, gelu_forward_block
from feste_dp.kernels.packing import (
    BLOCK_COLUMNS,
    BLOCK_DEPTH,
    BLOCK_ROWS,
    pack_columns,
    pack_rows,
    panel_depth,
)
from feste_dp.kernels.vector.moves import copy_float, load_float
from feste_dp.kernels.vector.registers import address_of, keep_out_of_line
from feste_dp.kernels.vector.target import FLOAT_BYTES, ROW_STEP, TILE_COLUMNS, TILE_ROWS
from feste_dp.kernels.vector.tile import (
    ADD_ROW,
    ADD_TILE,
    multiply_third,
    multiply_third_bf16,
    multiply_tile,
    multiply_tile_bf16,
    multiply_two_thirds,
    multiply_two_thirds_bf16,
)
from feste_dp.kernels.views import part, view

NOTHING = 0
GELU_FORWARD = 1
GELU_BACKWARD = 2


@inlined_kernel
def matmul(c, a, b, accumulate, pack):
    """c = a @ b, or c += a @ b when `accumulate`.

    c (M, N), unit stride along N; a (M, K) and b (K, N), either of them a transposed view. float32, with
    operands rounded to bfloat16 if pack.bf16; float64 by the plain definition.
    The bits of an element depend on K, on nothing else of the shape.
    """
    if c.itemsize == 4:
        added = ADD_TILE if accumulate else 0
        _product(c, view(a), view(b), a.shape[1], added, view(c), 0, 0, NOTHING, c, c, pack)
    else:
        _plain_product(c, a, b, accumulate)


@inlined_kernel
def matmul_bias(c, a, b, bias, pack):
    """c = a @ b + bias, bias (N,)"""
    if c.itemsize == 4:
        row = address_of(bias)
        _product(c, view(a), view(b), a.shape[1], ADD_ROW, view(c), row, 0, NOTHING, c, c, pack)
    else:
        c[:] = bias
        _plain_product(c, a, b, True)


@inlined_kernel
def matmul_bias_residual(c, a, b, bias, residual, pack):
    """c = residual + (a @ b + bias), residual (M, N)"""
    if c.itemsize == 4:
        row, tile = address_of(bias), view(residual)
        _product(c, view(a), view(b), a.shape[1], ADD_ROW | ADD_TILE, tile, row, 0, NOTHING, c, c, pack)
    else:
        for i in range(c.shape[0]):
            for j in range(c.shape[1]):
                c[i, j] = residual[i, j] + bias[j]
        _plain_product(c, a, b, True)


@inlined_kernel
def matmul_bias_gelu(c, gelu_c, a, b, bias, pack):
    """c = a @ b + bias, gelu_c = gelu(c) while a block of c is still in the cache"""
    if c.itemsize == 4:
        row = address_of(bias)
        _product(c, view(a), view(b), a.shape[1], ADD_ROW, view(c), row, 0, GELU_FORWARD, gelu_c, c, pack)
    else:
        matmul_bias(c, a, b, bias, pack)
        gelu_forward_block(gelu_c, c, 0, c.shape[0], 0, c.shape[1])


@inlined_kernel
def matmul_gelu_backward(c, gelu_x, a, b, x, pack):
    """c = (a @ b) * gelu'(x), gelu_x = gelu(x) once more; x (M, N)"""
    if c.itemsize == 4:
        _product(c, view(a), view(b), a.shape[1], 0, view(c), 0, 0, GELU_BACKWARD, gelu_x, x, pack)
    else:
        _plain_product(c, a, b, False)
        gelu_backward_block(c, gelu_x, x, 0, c.shape[0], 0, c.shape[1])


@inlined_kernel
def matmul_column_sums(c, sums, a, b, accumulate, pack):
    """c = or += a @ b, sums += sum_K(b), taken along while b is packed; sums (N,)"""
    if c.itemsize == 4:
        added, totals = ADD_TILE if accumulate else 0, address_of(sums)
        _product(c, view(a), view(b), a.shape[1], added, view(c), 0, totals, NOTHING, c, c, pack)
    else:
        _plain_product(c, a, b, accumulate)
        for k in range(b.shape[0]):
            for j in range(b.shape[1]):
                sums[j] += b[k, j]


@kernel
def _plain_product(c, a, b, accumulate):
    """The definition, for the float64 gradient checks."""
    for i in range(c.shape[0]):
        for j in range(c.shape[1]):
            total = c[i, j] if accumulate else c.dtype.type(0)
            for k in range(a.shape[1]):
                total += a[i, k] * b[k, j]
            c[i, j] = total


@kernel
def _product(c, a, b, depth, added, tile, row, sums, epilogue, out, x, pack):
    """c = a @ b [+ row] [+ tile], then the epilogue, which writes `out` and reads `x` or c.

    a, b, tile are views, row and sums addresses; `added` holds ADD_ROW and ADD_TILE; sums 0: none wanted.
    """
    keep_out_of_line()
    rows, columns = c.shape
    target, bf16 = view(c), pack.bf16
    a_panels, b_panels = address_of(pack.a), address_of(pack.b)
    block_depth = 2 * BLOCK_DEPTH if bf16 else BLOCK_DEPTH
    for j0 in range(0, columns, BLOCK_COLUMNS):
        n = min(BLOCK_COLUMNS, columns - j0)
        for k0 in range(0, depth, block_depth):
            k = min(block_depth, depth - k0)
            first, last = k0 == 0, k0 + k == depth
            block_sums = sums + FLOAT_BYTES * j0 if sums else 0
            pack_columns(b_panels, part(b, k0, j0), n, k, block_sums, bf16)
            for i0 in range(0, rows, BLOCK_ROWS):
                m = min(BLOCK_ROWS, rows - i0)
                pack_rows(a_panels, part(a, i0, k0), m, k, bf16)
                block, panel_rows = part(target, i0, j0), panel_depth(k, bf16)
                multiply_panels(
                    block,
                    (a_panels, panel_rows),
                    b_panels,
                    (m, n, panel_rows),
                    added if first else ADD_TILE,
                    part(tile, i0, j0) if first else block,
                    row + FLOAT_BYTES * j0,
                    pack,
                )
                if last and epilogue == GELU_FORWARD:
                    gelu_forward_block(out, c, i0, i0 + m, j0, j0 + n)
                elif last and epilogue == GELU_BACKWARD:
                    gelu_backward_block(c, out, x, i0, i0 + m, j0, j0 + n)


@kernel
def multiply_panels(c, a, b_panels, shape, added, tile, row, pack):
    """C block (m, n) = packed A block @ packed B block [+ row] [+ tile], k panel rows; shape = (m, n, k).

    c, tile: views whose columns lie side by side; a = (address of the panels, panel rows of each, >= k);
    b_panels, row: addresses.
    """
    keep_out_of_line()
    (c_address, ldc, _), (tile_address, ldt, _), (a_panels, a_depth) = c, tile, a
    (m, n, k), bf16, edge = shape, pack.bf16, pack.tile
    edge_address = address_of(edge)
    for j in range(0, n, TILE_COLUMNS):
        b_panel = b_panels + FLOAT_BYTES * j * k
        row_j = row + FLOAT_BYTES * j
        for i in range(0, m, TILE_ROWS):
            a_panel = a_panels + FLOAT_BYTES * i * a_depth
            c_tile = c_address + FLOAT_BYTES * (i * ldc + j)
            tile_ij = tile_address + FLOAT_BYTES * (i * ldt + j)
            height, width = min(TILE_ROWS, m - i), min(TILE_COLUMNS, n - j)
            if width == TILE_COLUMNS and height % ROW_STEP == 0:
                _multiply_rows(height, c_tile, ldc, a_panel, b_panel, k, added, tile_ij, ldt, row_j, bf16)
            else:
                _multiply_rows(
                    height, edge_address, TILE_COLUMNS, a_panel, b_panel, k, 0, edge_address, 0, row_j, bf16
                )
                for x in range(height):
                    for y in range(width):
                        value = edge[x * TILE_COLUMNS + y]
                        if added & ADD_ROW:
                            value += load_float(row_j + FLOAT_BYTES * y)
                        if added & ADD_TILE:
                            value += load_float(tile_ij + FLOAT_BYTES * (x * ldt + y))
                        edge[x * TILE_COLUMNS + y] = value
                        copy_float(
                            c_tile + FLOAT_BYTES * (x * ldc + y),
                            edge_address + FLOAT_BYTES * (x * TILE_COLUMNS + y),
                        )


@kernel
def _multiply_rows(height, c, ldc, a_panel, b_panel, k, added, tile, ldt, row, bf16):
    """The smallest register tile that covers `height` rows."""
    keep_out_of_line()
    if bf16:
        if height > 2 * ROW_STEP:
            multiply_tile_bf16(c, ldc, a_panel, b_panel, k, added, tile, ldt, row)
        elif height > ROW_STEP:
            multiply_two_thirds_bf16(c, ldc, a_panel, b_panel, k, added, tile, ldt, row)
        else:
            multiply_third_bf16(c, ldc, a_panel, b_panel, k, added, tile, ldt, row)
    elif height > 2 * ROW_STEP:
        multiply_tile(c, ldc, a_panel, b_panel, k, added, tile, ldt, row)
    elif height > ROW_STEP:
        multiply_two_thirds(c, ldc, a_panel, b_panel, k, added, tile, ldt, row)
    else:
        multiply_third(c, ldc, a_panel, b_panel, k, added, tile, ldt, row)
