"""Copies, roundings to bfloat16 and transposes: what packing is made of."""

from functools import partial

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from feste_dp.kernels.vector.llvm import (
    F32,
    HALVES,
    I16,
    I32,
    I64,
    VECTOR,
    WORDS,
    call_llvm,
    constant_of,
    element_address,
    inline_assembly,
    load_at,
    pointer_to,
    prefetch_line,
    spread_scalar,
    store_at,
)
from feste_dp.kernels.vector.registers import vector
from feste_dp.kernels.vector.target import FLOAT_BYTES, HAS_BF16, LANES, ROW_TILE

_HALF = ir.VectorType(I16, LANES)


@intrinsic
def copy_vector(typingctx, target, source):
    """Copy LANES floats."""

    def codegen(context, builder, signature, args):
        target, source = args
        store_at(builder, load_at(builder, source), target)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


@intrinsic
def add_vector(typingctx, target, source):
    """target += source, LANES floats."""

    def codegen(context, builder, signature, args):
        target, source = args
        total = builder.fadd(load_at(builder, target), load_at(builder, source))
        store_at(builder, total, target)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


@intrinsic
def prefetch(typingctx, address):
    """Ask for the cache line of an address, which need not be one of ours."""

    def codegen(context, builder, signature, args):
        prefetch_line(builder, args[0], 0)
        return context.get_dummy_value()

    return types.void(types.intp), codegen


@intrinsic
def prefetch_to_l2(typingctx, address):
    """As prefetch, for what comes so much later that it would only be in the way of the L1 cache."""

    def codegen(context, builder, signature, args):
        prefetch_line(builder, args[0], 0, locality=2)
        return context.get_dummy_value()

    return types.void(types.intp), codegen


def _first_lanes(builder, count):
    """A mask of the first `count` lanes."""
    lanes = ir.Constant(WORDS, list(range(LANES)))
    return builder.icmp_signed("<", lanes, spread_scalar(builder, builder.trunc(count, I32)))


def _load_lanes(builder, address, count):
    """The first `count` of LANES floats, then zeros; nothing else is read."""
    pointer, mask = pointer_to(builder, address, VECTOR), _first_lanes(builder, count)
    zeros = constant_of(VECTOR, 0.0)
    return call_llvm(
        builder, f"llvm.masked.load.v{LANES}f32.p0", VECTOR, pointer, I32(FLOAT_BYTES), mask, zeros
    )


def _store_lanes(builder, value, address, count):
    """Write the first `count` lanes of a vector of floats."""
    pointer, mask = pointer_to(builder, address, VECTOR), _first_lanes(builder, count)
    name = f"llvm.masked.store.v{LANES}f32.p0"
    call_llvm(builder, name, ir.VoidType(), value, pointer, I32(FLOAT_BYTES), mask)


@intrinsic
def load_lanes(typingctx, address, count):
    """A vector of the first `count` <= LANES floats at an address, then zeros."""
    return vector(types.intp, types.intp), lambda context, builder, signature, args: _load_lanes(
        builder, *args
    )


@intrinsic
def store_lanes(typingctx, address, value, count):
    """Write the first `count` <= LANES floats of a vector."""

    def codegen(context, builder, signature, args):
        address, value, count = args
        _store_lanes(builder, value, address, count)
        return context.get_dummy_value()

    return types.void(types.intp, vector, types.intp), codegen


@intrinsic
def copy_lanes(typingctx, target, source, present, width):
    """Copy `present` <= LANES floats, then zeros up to `width` <= LANES."""

    def codegen(context, builder, signature, args):
        target, source, present, width = args
        _store_lanes(builder, _load_lanes(builder, source, present), target, width)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), codegen


@intrinsic
def round_lanes(typingctx, target, even, odd, even_present, odd_present, width):
    """`width` <= LANES pairs of bfloat16 from so many floats at `even` and at `odd`, the rest zeros."""

    def codegen(context, builder, signature, args):
        target, even, odd, even_present, odd_present, width = args
        low, high = _load_lanes(builder, even, even_present), _load_lanes(builder, odd, odd_present)
        _store_lanes(builder, _round_pairs(builder, low, high), target, width)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 6), codegen


@intrinsic
def copy_float(typingctx, target, source):
    """Copy one float."""

    def codegen(context, builder, signature, args):
        target, source = args
        store_at(builder, load_at(builder, source, F32), target)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


@intrinsic
def load_float(typingctx, address):
    """The float at an address."""
    return types.float32(types.intp), lambda context, builder, signature, args: load_at(builder, args[0], F32)


@intrinsic
def store_float(typingctx, target, value):
    """Write one float."""

    def codegen(context, builder, signature, args):
        target, value = args
        store_at(builder, value, target)
        return context.get_dummy_value()

    return types.void(types.intp, types.float32), codegen


def _round(builder, low, high):
    """2 LANES floats rounded to bfloat16, to nearest even (subnormal ones to zero): low's, then high's."""
    if HAS_BF16:
        return inline_assembly(builder, "vcvtne2ps2bf16 $2, $1, $0", HALVES, "=v,v,v", high, low)
    both = [builder.trunc(_rounded(builder, values), _HALF) for values in (low, high)]
    return builder.shuffle_vector(*both, ir.Constant(ir.VectorType(I32, 2 * LANES), list(range(2 * LANES))))


def _rounded(builder, values):
    """LANES words that hold a bfloat16 each, as VCVTNE2PS2BF16 rounds them."""
    word = partial(constant_of, WORDS)
    bits = builder.bitcast(values, WORDS)
    upper = builder.lshr(bits, word(16))
    odd = builder.and_(upper, word(1))
    nearest = builder.lshr(builder.add(bits, builder.add(odd, word(0x7FFF))), word(16))
    magnitude, sign = builder.and_(bits, word(0x7FFFFFFF)), builder.and_(upper, word(0x8000))
    is_nan = builder.icmp_unsigned(">", magnitude, word(0x7F800000))
    is_small = builder.icmp_unsigned("<", magnitude, word(0x00800000))
    rounded = builder.select(is_nan, builder.or_(upper, word(0x40)), nearest)
    return builder.select(is_small, sign, rounded)


_INTERLEAVED = ir.Constant(
    ir.VectorType(I32, 2 * LANES), [lane // 2 + LANES * (lane % 2) for lane in range(2 * LANES)]
)


def _round_pairs(builder, even, odd):
    """LANES pairs of bfloat16, as a vector of floats."""
    halves = _round(builder, even, odd)
    return builder.bitcast(builder.shuffle_vector(halves, halves, _INTERLEAVED), VECTOR)


@intrinsic
def round_vectors(typingctx, target, even, odd):
    """LANES pairs of bfloat16 from LANES floats at `even` and LANES at `odd`: one instruction and a shuffle
    where the CPU has it, where rounding by integer arithmetic takes a dozen."""

    def codegen(context, builder, signature, args):
        target, even, odd = args
        store_at(builder, _round_pairs(builder, load_at(builder, even), load_at(builder, odd)), target)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3), codegen


@intrinsic
def round_floats(typingctx, target, even, odd):
    """One pair of bfloat16 from the float at `even` and the one at `odd`; 0.0 where odd is no address (0)."""

    def codegen(context, builder, signature, args):
        target, even, odd = args
        missing = builder.icmp_signed("==", odd, I64(0))
        high = load_at(builder, builder.select(missing, even, odd), F32)
        high = builder.select(missing, F32(0.0), high)
        pairs = _round_pairs(
            builder, spread_scalar(builder, load_at(builder, even, F32)), spread_scalar(builder, high)
        )
        store_at(builder, builder.extract_element(pairs, I32(0)), target)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3), codegen


def _transpose(builder, rows):
    """LANES vectors of LANES floats, transposed by a butterfly of shuffles."""
    span = 1
    while span < LANES:
        low = [c if c & span == 0 else c - span + LANES for c in range(LANES)]
        high = [c + span if c & span == 0 else c + LANES for c in range(LANES)]
        mask = [ir.Constant(WORDS, m) for m in (low, high)]
        rows = list(rows)
        for i in range(LANES):
            if i & span == 0:
                x, y = rows[i], rows[i + span]
                rows[i] = builder.shuffle_vector(x, y, mask[0])
                rows[i + span] = builder.shuffle_vector(x, y, mask[1])
        span *= 2
    return rows


def _make_transpose_tile(height, bf16, some=False):
    def row(builder, source):
        """One row of the tile: LANES floats, or 2 LANES rounded to LANES pairs of bfloat16."""
        values = load_at(builder, source)
        if bf16:
            halves = _round(builder, values, load_at(builder, element_address(builder, source, LANES)))
            values = builder.bitcast(halves, VECTOR)
        return values

    def code(context, builder, signature, args):
        target, target_stride, source, source_stride = args[:4]
        undefined = ir.Constant(VECTOR, ir.Undefined)
        rows = []
        for i in range(LANES):
            if i >= height:
                rows.append(undefined)
                continue
            number = I64(i)
            if some:  # a missing row reads the first one
                missing = builder.icmp_signed(">=", number, args[4])
                number = builder.select(missing, I64(0), number)
            values = row(builder, element_address(builder, source, builder.mul(source_stride, number)))
            rows.append(builder.select(missing, constant_of(VECTOR, 0.0), values) if some else values)
        for j, column in enumerate(_transpose(builder, rows)):
            if height < LANES:
                keep = ir.Constant(ir.VectorType(I32, height), list(range(height)))
                column = builder.shuffle_vector(column, undefined, keep)
            store_at(builder, column, element_address(builder, target, builder.mul(target_stride, I64(j))))
        return context.get_dummy_value()

    if some:

        @intrinsic
        def transpose_some(typingctx, target, target_stride, source, source_stride, present):
            return types.void(*[types.intp] * 5), code

        return transpose_some

    @intrinsic
    def transpose_tile(typingctx, target, target_stride, source, source_stride):
        return types.void(*[types.intp] * 4), code

    return transpose_tile


# Source: that many rows of LANES floats (bf16: LANES pairs). Target: LANES rows of that many elements. Of
# `some` rows, the first `present` (may be negative) are there, and the others zeros.
transpose_rows, transpose_square = (_make_transpose_tile(height, False) for height in (ROW_TILE, LANES))
transpose_rows_bf16, transpose_square_bf16 = (
    _make_transpose_tile(height, True) for height in (ROW_TILE, LANES)
)
transpose_some_rows, transpose_some_rows_bf16 = (
    _make_transpose_tile(ROW_TILE, bf16, some=True) for bf16 in (False, True)
)
