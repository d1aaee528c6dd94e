"""Vector code that Numba cannot express, written as LLVM vector IR. The only file that knows LLVM.

Every function takes addresses (integers) and strides in elements. The vector width follows the CPU:
16 float32 lanes with AVX-512, 8 with AVX, 4 elsewhere (SSE, NEON).
"""

import math

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

F32, I32, I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
FLOAT_BYTES = 4


def _widest_vector():
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 16
    return 8 if features.get("avx") else 4


LANES = _widest_vector()
VECTOR = ir.VectorType(F32, LANES)

# Rows and vectors of the register tile of the matrix product: as many accumulators as the registers hold
# beside the operands (32 registers with AVX-512 and NEON, 16 with AVX2).
TILE_ROWS, TILE_VECTORS = {16: (12, 2), 8: (6, 2), 4: (8, 2)}[LANES]
TILE_COLUMNS = TILE_VECTORS * LANES


def _element(builder, address, index):
    """Address of element `index` (an LLVM value or an int) of a float32 row at `address`."""
    if isinstance(index, int):
        return builder.add(address, I64(FLOAT_BYTES * index))
    return builder.add(address, builder.mul(index, I64(FLOAT_BYTES)))


def _load(builder, address, kind=VECTOR):
    load = builder.load(builder.inttoptr(address, kind.as_pointer()))
    load.align = FLOAT_BYTES
    return load


def _store(builder, value, address):
    builder.store(value, builder.inttoptr(address, value.type.as_pointer())).align = FLOAT_BYTES


def _fma(builder, x, y, z):
    name = f"llvm.fma.v{LANES}f32" if x.type == VECTOR else "llvm.fma.f32"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(x.type, [x.type] * 3), name)
    return builder.call(function, [x, y, z])


@intrinsic
def multiply_tile(typingctx, c, ldc, a_panel, b_panel, k, accumulate):
    """C tile (TILE_ROWS, TILE_COLUMNS) = or += A panel @ B panel, in registers.

    a_panel is packed (k, TILE_ROWS), b_panel (k, TILE_COLUMNS); k >= 1. Each element is one chain of fused
    multiply-adds in the order of k, started from C or from zero, so its bits do not depend on its place.
    """

    def codegen(context, builder, signature, args):
        c, ldc, a_panel, b_panel, k, accumulate = args
        tiles = [
            _element(builder, c, builder.add(builder.mul(ldc, I64(i)), I64(LANES * j)))
            for i in range(TILE_ROWS)
            for j in range(TILE_VECTORS)
        ]
        entry = builder.block
        load_c, loop, done = (builder.append_basic_block(name) for name in ("load_c", "k_loop", "done"))
        builder.cbranch(accumulate, load_c, loop)

        builder.position_at_end(load_c)
        loaded = [_load(builder, tile) for tile in tiles]
        builder.branch(loop)

        builder.position_at_end(loop)
        row, at_a, at_b = builder.phi(I64), builder.phi(I64), builder.phi(I64)
        sums = [builder.phi(VECTOR) for _ in tiles]
        for block in (entry, load_c):
            row.add_incoming(I64(0), block)
            at_a.add_incoming(a_panel, block)
            at_b.add_incoming(b_panel, block)
        zero = ir.Constant(VECTOR, [0.0] * LANES)
        for phi, start in zip(sums, loaded, strict=True):
            phi.add_incoming(zero, entry)
            phi.add_incoming(start, load_c)
        b_vectors = [_load(builder, _element(builder, at_b, LANES * j)) for j in range(TILE_VECTORS)]
        undefined, first = (
            ir.Constant(VECTOR, ir.Undefined),
            ir.Constant(ir.VectorType(I32, LANES), [0] * LANES),
        )
        next_sums = []
        for i in range(TILE_ROWS):
            scalar = _load(builder, _element(builder, at_a, i), F32)
            spread = builder.shuffle_vector(
                builder.insert_element(undefined, scalar, I32(0)), undefined, first
            )
            next_sums += [
                _fma(builder, spread, b_vectors[j], sums[i * TILE_VECTORS + j]) for j in range(TILE_VECTORS)
            ]
        next_row = builder.add(row, I64(1))
        row.add_incoming(next_row, loop)
        at_a.add_incoming(_element(builder, at_a, TILE_ROWS), loop)
        at_b.add_incoming(_element(builder, at_b, TILE_COLUMNS), loop)
        for phi, value in zip(sums, next_sums, strict=True):
            phi.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", next_row, k), loop, done)

        builder.position_at_end(done)
        for tile, value in zip(tiles, next_sums, strict=True):
            _store(builder, value, tile)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5, types.boolean), codegen


@intrinsic
def copy_vector(typingctx, target, source):
    """Copy LANES floats."""

    def codegen(context, builder, signature, args):
        target, source = args
        _store(builder, _load(builder, source), target)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


@intrinsic
def copy_float(typingctx, target, source):
    """Copy one float."""

    def codegen(context, builder, signature, args):
        target, source = args
        _store(builder, _load(builder, source, F32), target)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


@intrinsic
def store_zero(typingctx, target):
    """Store one 0.0."""

    def codegen(context, builder, signature, args):
        _store(builder, F32(0.0), args[0])
        return context.get_dummy_value()

    return types.void(types.intp), codegen


def _transpose(builder, rows):
    """LANES vectors of LANES floats, transposed by a butterfly of shuffles."""
    span = 1
    while span < LANES:
        low = [c if c & span == 0 else c - span + LANES for c in range(LANES)]
        high = [c + span if c & span == 0 else c + LANES for c in range(LANES)]
        mask = [ir.Constant(ir.VectorType(I32, LANES), m) for m in (low, high)]
        rows = list(rows)
        for i in range(LANES):
            if i & span == 0:
                x, y = rows[i], rows[i + span]
                rows[i] = builder.shuffle_vector(x, y, mask[0])
                rows[i + span] = builder.shuffle_vector(x, y, mask[1])
        span *= 2
    return rows


def _make_transpose_tile(height):
    @intrinsic
    def transpose_tile(typingctx, target, target_stride, source, source_stride):
        def codegen(context, builder, signature, args):
            target, target_stride, source, source_stride = args
            undefined = ir.Constant(VECTOR, ir.Undefined)
            rows = [
                _load(builder, _element(builder, source, builder.mul(source_stride, I64(i))))
                if i < height
                else undefined
                for i in range(LANES)
            ]
            for j, column in enumerate(_transpose(builder, rows)):
                if height < LANES:
                    keep = ir.Constant(ir.VectorType(I32, height), list(range(height)))
                    column = builder.shuffle_vector(column, undefined, keep)
                _store(builder, column, _element(builder, target, builder.mul(target_stride, I64(j))))
            return context.get_dummy_value()

        return types.void(*[types.intp] * 4), codegen

    return transpose_tile


# Source: that many rows of LANES floats. Target: LANES rows of that many floats. The packing of the left
# operand takes TILE_ROWS = _row_tile + _row_rest rows at a time, that of the right one LANES rows.
ROW_TILE = min(TILE_ROWS, LANES)
ROW_REST = TILE_ROWS - ROW_TILE
transpose_rows = _make_transpose_tile(ROW_TILE)
transpose_rest = _make_transpose_tile(ROW_REST) if ROW_REST else transpose_rows
transpose_square = _make_transpose_tile(LANES)


# exp(r) on |r| <= ln(2)/2: minimax coefficients of degree 6 (Cephes expf, S. Moshier, 1989).
_EXP_COEFFICIENTS = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
_EXP_LOWEST, _EXP_HIGHEST = -87.3, 88.0


@intrinsic
def _exp_float32(typingctx, x):
    def codegen(context, builder, signature, args):
        (x,) = args
        # `x if not below` keeps a NaN, min/max would lose it
        for bound, below in ((_EXP_LOWEST, "<"), (_EXP_HIGHEST, ">")):
            x = builder.select(builder.fcmp_ordered(below, x, F32(bound)), F32(bound), x)
        floor = cgutils.get_or_insert_function(builder.module, ir.FunctionType(F32, [F32]), "llvm.floor.f32")
        n = builder.call(floor, [_fma(builder, x, F32(1 / math.log(2)), F32(0.5))])
        r = _fma(builder, n, F32(-_LN2_HIGH), x)
        r = _fma(builder, n, F32(-_LN2_LOW), r)
        y = F32(_EXP_COEFFICIENTS[0])
        for coefficient in _EXP_COEFFICIENTS[1:]:
            y = _fma(builder, y, r, F32(coefficient))
        y = _fma(builder, y, builder.fmul(r, r), r)
        y = builder.fadd(y, F32(1.0))
        exponent = builder.shl(builder.add(builder.fptosi(n, I32), I32(127)), I32(23))
        return builder.fmul(y, builder.bitcast(exponent, F32))

    return types.float32(types.float32), codegen


def exp(x):
    """e**x. float32: within 2 ulp on [-87.3, 88], clamped to that range outside, NaN stays NaN; a plain
    chain of operations, so loops around it vectorise. float64: the C library's."""
    return math.exp(x)


@overload(exp)
def _exp(x):
    if x == types.float32:
        return lambda x: _exp_float32(x)
    return lambda x: math.exp(x)
