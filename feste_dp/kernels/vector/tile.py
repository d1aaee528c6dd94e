"""The register tile of the matrix product.

fp32 multiplies float32 panels; bf16 multiplies panels whose elements hold two bfloat16, an even step of the
depth in the low half and the odd one after it in the high half, as the CPU's dot product wants them.
"""

from numba import types
from numba.extending import intrinsic

from feste_dp.kernels.vector.llvm import (
    F32,
    I32,
    I64,
    VECTOR,
    WORDS,
    constant_of,
    element_address,
    fma_of,
    inline_assembly,
    load_at,
    prefetch_line,
    set_modes,
    spread_scalar,
    store_at,
    without_subnormals,
)
from feste_dp.kernels.vector.target import HAS_BF16, LANES, ROW_STEP, TILE_COLUMNS, TILE_ROWS, TILE_VECTORS


def _multiply_add(builder, x, y, total, bf16):
    """total + x * y; in bf16 both products of each lane's two bfloat16 as VDPBF16PS adds them, which is the
    definition: the odd one, then the even one, each a fused multiply-add in float32 without subnormals."""
    if not bf16:
        return fma_of(builder, x, y, total)
    if HAS_BF16:
        return inline_assembly(builder, "vdpbf16ps $3, $2, $0", VECTOR, "=v,0,v,v", total, x, y)
    for half in (_odd, _even):
        total = fma_of(builder, half(builder, x), half(builder, y), total)
    return total


def _odd(builder, pairs):
    return builder.bitcast(builder.and_(pairs, constant_of(WORDS, -(1 << 16))), VECTOR)


def _even(builder, pairs):
    return builder.bitcast(builder.shl(pairs, constant_of(WORDS, 16)), VECTOR)


ADD_TILE, ADD_ROW = 1, 2
"""What multiply_tile adds to the product: a tile (C itself, or a residual), a row (a bias) to each row."""


def _make_multiply_tile(height, bf16):
    @intrinsic
    def multiply_tile(typingctx, c, ldc, a_panel, b_panel, k, added, tile, ldt, row):
        """C tile (height, TILE_COLUMNS) = A panel @ B panel [+ row] [+ tile], in registers.

        a_panel is packed (k, TILE_ROWS), b_panel (k, TILE_COLUMNS); k >= 1. Each element is one chain of
        fused multiply-adds in the order of k, from zero, so its bits do not depend on its place.
        """

        def codegen(context, builder, signature, args):
            c, ldc, a_panel, b_panel, k, added, tile, ldt, row = args
            places = [(i, j) for i in range(height) for j in range(TILE_VECTORS)]
            # what the end of the loop touches is on its way while the loop runs: 1-5 % on wide C
            for i in range(height):
                for j in range(TILE_VECTORS):
                    prefetch_line(builder, _tile_address(builder, c, ldc, i, j), 1)
            entry, loop, done = builder.block, *(builder.append_basic_block(n) for n in ("k_loop", "done"))
            modes = without_subnormals(builder) if bf16 and not HAS_BF16 else None
            builder.branch(loop)

            builder.position_at_end(loop)
            step, at_a, at_b = builder.phi(I64), builder.phi(I64), builder.phi(I64)
            sums = [builder.phi(VECTOR) for _ in places]
            for phi, start in ((step, I64(0)), (at_a, a_panel), (at_b, b_panel)):
                phi.add_incoming(start, entry)
            for phi in sums:
                phi.add_incoming(constant_of(VECTOR, 0.0), entry)
            kind, scalar = (WORDS, I32) if bf16 else (VECTOR, F32)
            b_vectors = [
                load_at(builder, element_address(builder, at_b, LANES * j), kind) for j in range(TILE_VECTORS)
            ]
            totals = []
            for i in range(height):
                a = spread_scalar(builder, load_at(builder, element_address(builder, at_a, i), scalar))
                for j in range(TILE_VECTORS):
                    totals.append(_multiply_add(builder, a, b_vectors[j], sums[len(totals)], bf16))
            next_step = builder.add(step, I64(1))
            step.add_incoming(next_step, loop)
            at_a.add_incoming(element_address(builder, at_a, TILE_ROWS), loop)
            at_b.add_incoming(element_address(builder, at_b, TILE_COLUMNS), loop)
            for phi, value in zip(sums, totals, strict=True):
                phi.add_incoming(value, loop)
            builder.cbranch(builder.icmp_signed("<", next_step, k), loop, done)

            builder.position_at_end(done)
            if modes is not None:
                set_modes(builder, modes)
            totals = _add_where(
                builder, added, ADD_ROW, totals, lambda i, j: element_address(builder, row, LANES * j), places
            )
            totals = _add_where(
                builder, added, ADD_TILE, totals, lambda i, j: _tile_address(builder, tile, ldt, i, j), places
            )
            for (i, j), value in zip(places, totals, strict=True):
                store_at(builder, value, _tile_address(builder, c, ldc, i, j))
            return context.get_dummy_value()

        return types.void(*[types.intp] * 9), codegen

    return multiply_tile


def _tile_address(builder, tile, stride, i, j):
    return element_address(builder, tile, builder.add(builder.mul(stride, I64(i)), I64(LANES * j)))


def _add_where(builder, added, flag, totals, address, places):
    """totals + what lies at address(i, j) when `added` holds the flag."""
    before = builder.block
    add, after = builder.append_basic_block("add"), builder.append_basic_block("after")
    builder.cbranch(builder.icmp_signed("!=", builder.and_(added, I64(flag)), I64(0)), add, after)
    builder.position_at_end(add)
    summed = [
        builder.fadd(total, load_at(builder, address(i, j)))
        for (i, j), total in zip(places, totals, strict=True)
    ]
    builder.branch(after)
    builder.position_at_end(after)
    merged = []
    for total, value in zip(totals, summed, strict=True):
        phi = builder.phi(VECTOR)
        phi.add_incoming(total, before)
        phi.add_incoming(value, add)
        merged.append(phi)
    return merged


multiply_tile, multiply_two_thirds, multiply_third = (
    _make_multiply_tile(height, False) for height in (TILE_ROWS, 2 * ROW_STEP, ROW_STEP)
)
multiply_tile_bf16, multiply_two_thirds_bf16, multiply_third_bf16 = (
    _make_multiply_tile(height, True) for height in (TILE_ROWS, 2 * ROW_STEP, ROW_STEP)
)
