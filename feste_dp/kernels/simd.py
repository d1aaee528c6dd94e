"""Vector code that Numba cannot express, written as LLVM vector IR. The only file that knows LLVM.

Every function takes addresses (integers) and strides in elements of 4 bytes. The vector width follows the
CPU: 16 float32 lanes with AVX-512, 8 with AVX, 4 elsewhere (SSE, NEON).

`precision` fp32 multiplies float32 panels; bf16 multiplies panels whose elements hold two bfloat16, an even
step of the depth in the low half and the odd one after it in the high half, as the CPU's dot product wants
them.
"""

import math
import operator

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

F32, I16, I32, I64 = ir.FloatType(), ir.IntType(16), ir.IntType(32), ir.IntType(64)
FLOAT_BYTES = 4


def _widest_vector():
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 16
    return 8 if features.get("avx") else 4


LANES = _widest_vector()
VECTOR = ir.VectorType(F32, LANES)
WORDS = ir.VectorType(I32, LANES)
HALVES = ir.VectorType(I16, 2 * LANES)

HAS_BF16 = LANES == 16 and bool(llvm.get_host_cpu_features().get("avx512bf16"))
"""Whether this CPU multiplies bfloat16 (AVX512-BF16); where it does not, the bf16 functions must not be
called."""

# Rows and vectors of the register tile of the matrix product: as many accumulators as the registers hold
# beside the operands (32 registers with AVX-512 and NEON, 16 with AVX2). Rows come in thirds, so that the 4
# rows that 12 leaves of 64, 256, 1024 are no wasted work: 12 % more on 64 rows, 3 % on 256.
TILE_ROWS, TILE_VECTORS = {16: (12, 2), 8: (6, 2), 4: (12, 2)}[LANES]
TILE_COLUMNS = TILE_VECTORS * LANES
ROW_STEP = TILE_ROWS // 3

# An operation with a flag of its own is not given those of the decorator, of which `reassoc` would let the
# compiler choose another order in each copy of the code. This one allows a * b + c in one instruction.
_IN_ORDER = ("contract",)

if HAS_BF16:
    llvm.initialize_native_asmparser()  # without it LLVM refuses inline assembly


def _element(builder, address, index):
    """Address of element `index` (an LLVM value or an int) of a float32 row at `address`."""
    if isinstance(index, int):
        return builder.add(address, I64(FLOAT_BYTES * index))
    return builder.add(address, builder.mul(index, I64(FLOAT_BYTES)))


def _pointer(builder, address, kind):
    """A pointer from an integer.

    Trap: Numba links a function into its callers after machine code was made of it, and that writes such
    addresses as offsets from the null pointer. Optimised again in the caller, an access there aliases nothing
    and may be dropped, unless the function says that null is an address like others.
    """
    set.add(builder.function.attributes, "null_pointer_is_valid")  # llvmlite does not list it
    return builder.inttoptr(address, kind.as_pointer())


def _load(builder, address, kind=VECTOR):
    load = builder.load(_pointer(builder, address, kind))
    load.align = FLOAT_BYTES
    return load


def _store(builder, value, address):
    builder.store(value, _pointer(builder, address, value.type)).align = FLOAT_BYTES


def _call(builder, name, result, *arguments):
    kinds = [argument.type for argument in arguments]
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, kinds), name)
    return builder.call(function, arguments)


def _fma(builder, x, y, z):
    name = f"llvm.fma.v{LANES}f32" if x.type == VECTOR else "llvm.fma.f32"
    return _call(builder, name, x.type, x, y, z)


def _constant(kind, value):
    return ir.Constant(kind, [value] * LANES) if kind in (VECTOR, WORDS) else kind(value)


def _spread(builder, scalar):
    """All lanes of a vector set to one value."""
    vector = ir.VectorType(scalar.type, LANES)
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, I32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(WORDS, [0] * LANES))


def _assembly(builder, text, result, constraints, *arguments):
    kinds = [argument.type for argument in arguments]
    return builder.call(
        ir.InlineAsm(ir.FunctionType(result, kinds), text, constraints, side_effect=False), arguments
    )


@intrinsic
def address_of(typingctx, array):
    """Where an array's data begins."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.ptrtoint(data, I64)

    return types.intp(array), codegen


@intrinsic
def keep_out_of_line(typingctx):
    """Stay one function in the machine code, called and not copied: for what is long and has many callers."""

    def codegen(context, builder, signature, args):
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), codegen


# Values of one register in compiled code: load, store, spread, + - * /, maximum, exp.


class VectorType(types.Type):
    """LANES float32 values in one register."""

    def __init__(self):
        super().__init__(name=f"float32x{LANES}")


vector = VectorType()


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, VECTOR)


@intrinsic
def load_vector(typingctx, address):
    """The LANES floats at an address."""
    return vector(types.intp), lambda context, builder, signature, args: _load(builder, args[0])


@intrinsic
def store_vector(typingctx, address, value):
    """Write LANES floats to an address."""

    def codegen(context, builder, signature, args):
        address, value = args
        _store(builder, value, address)
        return context.get_dummy_value()

    return types.void(types.intp, vector), codegen


@intrinsic
def spread(typingctx, x):
    """A vector of one value."""
    return vector(types.float32), lambda context, builder, signature, args: _spread(builder, args[0])


@intrinsic
def sum_of_lanes(typingctx, x):
    """Of a vector, halves upon halves: (l0 + l8) + (l4 + l12) and so on."""

    def codegen(context, builder, signature, args):
        (total,), span = args, LANES // 2
        while span:
            upper = builder.shuffle_vector(
                total, total, ir.Constant(WORDS, [(lane + span) % LANES for lane in range(LANES)])
            )
            total, span = builder.fadd(total, upper, flags=_IN_ORDER), span // 2
        return builder.extract_element(total, I32(0))

    return types.float32(vector), codegen


@intrinsic
def lane_numbers(typingctx):
    """0, 1, 2, ... LANES - 1."""
    numbers = ir.Constant(VECTOR, [float(lane) for lane in range(LANES)])
    return vector(), lambda context, builder, signature, args: numbers


@intrinsic
def where_less(typingctx, x, y, yes, no):
    """yes where x < y, no elsewhere, lane by lane."""

    def codegen(context, builder, signature, args):
        x, y, yes, no = args
        return builder.select(builder.fcmp_ordered("<", x, y), yes, no)

    return vector(vector, vector, vector, vector), codegen


def _two_operands(code):
    @intrinsic
    def function(typingctx, x, y):
        return vector(vector, vector), lambda context, builder, signature, args: code(builder, *args)

    return function


def _maximum(builder, x, y):
    """The larger one; a NaN in either stays a NaN."""
    larger = builder.select(builder.fcmp_ordered("<", x, y), y, x)
    return builder.select(builder.fcmp_unordered("uno", y, y), y, larger)


_maximum_vector = _two_operands(_maximum)


@intrinsic
def _maximum_scalar(typingctx, x, y):
    def codegen(context, builder, signature, args):
        return _call(builder, f"llvm.maximum.f{32 if x == types.float32 else 64}", args[0].type, *args)

    return x(x, x), codegen


def maximum(x, y):
    """The larger one of two floats or vectors; a NaN in either stays a NaN."""
    return max(x, y)


@overload(maximum)
def _maximum_of(x, y):
    if x == vector:
        return lambda x, y: _maximum_vector(x, y)
    return lambda x, y: _maximum_scalar(x, y)


_ARITHMETIC = {
    operator.add: _two_operands(lambda builder, x, y: builder.fadd(x, y, flags=_IN_ORDER)),
    operator.sub: _two_operands(lambda builder, x, y: builder.fsub(x, y, flags=_IN_ORDER)),
    operator.mul: _two_operands(lambda builder, x, y: builder.fmul(x, y, flags=_IN_ORDER)),
    operator.truediv: _two_operands(lambda builder, x, y: builder.fdiv(x, y, flags=_IN_ORDER)),
}


def _define(symbol, function):
    @overload(symbol)
    def _of_vectors(x, y):
        if x == vector and y == vector:
            return lambda x, y: function(x, y)
        return None


for _symbol, _function in _ARITHMETIC.items():
    _define(_symbol, _function)


def constant_like(x, value):
    """The number `value` in the type of x: float32, float64 or vector. Formulas written with it serve all."""
    return type(x)(value)


@overload(constant_like)
def _constant_like(x, value):
    if x == vector:
        return lambda x, value: spread(np.float32(value))
    if x == types.float32:
        return lambda x, value: np.float32(value)
    return lambda x, value: value


# The register tile of the matrix product.


def _multiply_add(builder, x, y, total, bf16):
    if bf16:  # both products of each lane's two bfloat16, added in float32
        return _assembly(builder, "vdpbf16ps $3, $2, $0", VECTOR, "=v,0,v,v", total, x, y)
    return _fma(builder, x, y, total)


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
                    _prefetch(builder, _tile_address(builder, c, ldc, i, j), 1)
            entry, loop, done = builder.block, *(builder.append_basic_block(n) for n in ("k_loop", "done"))
            builder.branch(loop)

            builder.position_at_end(loop)
            step, at_a, at_b = builder.phi(I64), builder.phi(I64), builder.phi(I64)
            sums = [builder.phi(VECTOR) for _ in places]
            for phi, start in ((step, I64(0)), (at_a, a_panel), (at_b, b_panel)):
                phi.add_incoming(start, entry)
            for phi in sums:
                phi.add_incoming(_constant(VECTOR, 0.0), entry)
            kind, scalar = (WORDS, I32) if bf16 else (VECTOR, F32)
            b_vectors = [
                _load(builder, _element(builder, at_b, LANES * j), kind) for j in range(TILE_VECTORS)
            ]
            totals = []
            for i in range(height):
                a = _spread(builder, _load(builder, _element(builder, at_a, i), scalar))
                for j in range(TILE_VECTORS):
                    totals.append(_multiply_add(builder, a, b_vectors[j], sums[len(totals)], bf16))
            next_step = builder.add(step, I64(1))
            step.add_incoming(next_step, loop)
            at_a.add_incoming(_element(builder, at_a, TILE_ROWS), loop)
            at_b.add_incoming(_element(builder, at_b, TILE_COLUMNS), loop)
            for phi, value in zip(sums, totals, strict=True):
                phi.add_incoming(value, loop)
            builder.cbranch(builder.icmp_signed("<", next_step, k), loop, done)

            builder.position_at_end(done)
            totals = _add_where(
                builder, added, ADD_ROW, totals, lambda i, j: _element(builder, row, LANES * j), places
            )
            totals = _add_where(
                builder, added, ADD_TILE, totals, lambda i, j: _tile_address(builder, tile, ldt, i, j), places
            )
            for (i, j), value in zip(places, totals, strict=True):
                _store(builder, value, _tile_address(builder, c, ldc, i, j))
            return context.get_dummy_value()

        return types.void(*[types.intp] * 9), codegen

    return multiply_tile


def _tile_address(builder, tile, stride, i, j):
    return _element(builder, tile, builder.add(builder.mul(stride, I64(i)), I64(LANES * j)))


def _add_where(builder, added, flag, totals, address, places):
    """totals + what lies at address(i, j) when `added` holds the flag."""
    before = builder.block
    add, after = builder.append_basic_block("add"), builder.append_basic_block("after")
    builder.cbranch(builder.icmp_signed("!=", builder.and_(added, I64(flag)), I64(0)), add, after)
    builder.position_at_end(add)
    summed = [
        builder.fadd(total, _load(builder, address(i, j)), flags=_IN_ORDER)
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
    _make_multiply_tile(height, HAS_BF16) for height in (TILE_ROWS, 2 * ROW_STEP, ROW_STEP)
)


# Rows: sums over gradient slots.


def _add_in_tree(builder, values):
    """((v0 + v1) + (v2 + v3)) + ..., in this order."""
    while len(values) > 1:
        values = [builder.fadd(x, y, flags=_IN_ORDER) for x, y in zip(values[::2], values[1::2], strict=True)]
    return values[0]


def _make_sum_rows(count):
    wide = ir.VectorType(ir.DoubleType(), LANES)

    @intrinsic
    def sum_rows(typingctx, target, source, stride, vectors, stream):
        """Target row = the sum, in a binary tree, of source rows; returns the float64 sum of its squares.

        Rows hold `vectors` >= 1 vectors and lie `stride` floats apart; the target may be the first of them.
        The squares are added in LANES sums, one a lane, and these in a binary tree. With `stream` the target,
        aligned to a vector, is written past the caches: store_fence() before another core may read it.
        """

        def codegen(context, builder, signature, args):
            target, source, stride, vectors, stream = args
            entry = builder.block
            loop, store, store_past, square, done = (
                builder.append_basic_block(name) for name in ("loop", "store", "store_past", "square", "done")
            )
            builder.branch(loop)

            builder.position_at_end(loop)
            vector, squares = builder.phi(I64), builder.phi(wide)
            vector.add_incoming(I64(0), entry)
            squares.add_incoming(ir.Constant(wide, [0.0] * LANES), entry)
            at = builder.mul(vector, I64(FLOAT_BYTES * LANES))
            rows = [
                _load(builder, builder.add(_element(builder, source, builder.mul(stride, I64(s))), at))
                for s in range(count)
            ]
            total, target = _add_in_tree(builder, rows), builder.add(target, at)
            builder.cbranch(stream, store_past, store)

            builder.position_at_end(store)
            _store(builder, total, target)
            builder.branch(square)

            builder.position_at_end(store_past)
            past = builder.store(total, _pointer(builder, target, VECTOR))
            past.align = FLOAT_BYTES * LANES
            past.set_metadata("nontemporal", builder.module.add_metadata([I32(1)]))
            builder.branch(square)

            builder.position_at_end(square)
            double = builder.fpext(total, wide)
            product = builder.fmul(double, double, flags=_IN_ORDER)
            next_squares = builder.fadd(squares, product, flags=_IN_ORDER)
            next_vector = builder.add(vector, I64(1))
            vector.add_incoming(next_vector, square)
            squares.add_incoming(next_squares, square)
            builder.cbranch(builder.icmp_signed("<", next_vector, vectors), loop, done)

            builder.position_at_end(done)
            return _add_in_tree(
                builder, [builder.extract_element(next_squares, I32(i)) for i in range(LANES)]
            )

        return types.float64(*[types.intp] * 4, types.boolean), codegen

    return sum_rows


sum_one, sum_two, sum_four, sum_eight = (_make_sum_rows(count) for count in (1, 2, 4, 8))


@intrinsic
def store_fence(typingctx):
    """Everything stored before is seen by other cores before anything stored after."""

    def codegen(context, builder, signature, args):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


# Packing: copies, roundings and transposes of one register tile.


@intrinsic
def copy_vector(typingctx, target, source):
    """Copy LANES floats."""

    def codegen(context, builder, signature, args):
        target, source = args
        _store(builder, _load(builder, source), target)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


@intrinsic
def add_vector(typingctx, target, source):
    """target += source, LANES floats."""

    def codegen(context, builder, signature, args):
        target, source = args
        total = builder.fadd(_load(builder, target), _load(builder, source), flags=_IN_ORDER)
        _store(builder, total, target)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


@intrinsic
def prefetch(typingctx, address):
    """Ask for the cache line of an address, which need not be one of ours."""

    def codegen(context, builder, signature, args):
        _prefetch(builder, args[0], 0)
        return context.get_dummy_value()

    return types.void(types.intp), codegen


def _prefetch(builder, address, for_writing):
    pointer = _pointer(builder, address, ir.IntType(8))
    _call(builder, "llvm.prefetch.p0", ir.VoidType(), pointer, I32(for_writing), I32(3), I32(1))


def _first_lanes(builder, count):
    """A mask of the first `count` lanes."""
    lanes = ir.Constant(WORDS, list(range(LANES)))
    return builder.icmp_signed("<", lanes, _spread(builder, builder.trunc(count, I32)))


def _load_lanes(builder, address, count):
    """The first `count` of LANES floats, then zeros; nothing else is read."""
    pointer, mask = _pointer(builder, address, VECTOR), _first_lanes(builder, count)
    zeros = _constant(VECTOR, 0.0)
    return _call(builder, f"llvm.masked.load.v{LANES}f32.p0", VECTOR, pointer, I32(FLOAT_BYTES), mask, zeros)


def _store_lanes(builder, value, address, count):
    """Write the first `count` lanes of a vector of floats."""
    pointer, mask = _pointer(builder, address, VECTOR), _first_lanes(builder, count)
    name = f"llvm.masked.store.v{LANES}f32.p0"
    _call(builder, name, ir.VoidType(), value, pointer, I32(FLOAT_BYTES), mask)


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
        _store(builder, _load(builder, source, F32), target)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


@intrinsic
def load_float(typingctx, address):
    """The float at an address."""
    return types.float32(types.intp), lambda context, builder, signature, args: _load(builder, args[0], F32)


@intrinsic
def store_float(typingctx, target, value):
    """Write one float."""

    def codegen(context, builder, signature, args):
        target, value = args
        _store(builder, value, target)
        return context.get_dummy_value()

    return types.void(types.intp, types.float32), codegen


def _round(builder, low, high):
    """2 LANES floats rounded to bfloat16, to nearest even (subnormal ones to zero): low's, then high's."""
    if not HAS_BF16:
        return ir.Constant(HALVES, ir.Undefined)
    return _assembly(builder, "vcvtne2ps2bf16 $2, $1, $0", HALVES, "=v,v,v", high, low)


_INTERLEAVED = ir.Constant(
    ir.VectorType(I32, 2 * LANES), [lane // 2 + LANES * (lane % 2) for lane in range(2 * LANES)]
)


def _round_pairs(builder, even, odd):
    """LANES pairs of bfloat16, as a vector of floats."""
    halves = _round(builder, even, odd)
    return builder.bitcast(builder.shuffle_vector(halves, halves, _INTERLEAVED), VECTOR)


@intrinsic
def round_vectors(typingctx, target, even, odd):
    """LANES pairs of bfloat16 from LANES floats at `even` and LANES at `odd`: one instruction and a shuffle,
    where rounding by integer arithmetic takes a dozen."""

    def codegen(context, builder, signature, args):
        target, even, odd = args
        _store(builder, _round_pairs(builder, _load(builder, even), _load(builder, odd)), target)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3), codegen


@intrinsic
def round_floats(typingctx, target, even, odd):
    """One pair of bfloat16 from the float at `even` and the one at `odd`; 0.0 where odd is no address (0)."""

    def codegen(context, builder, signature, args):
        target, even, odd = args
        missing = builder.icmp_signed("==", odd, I64(0))
        high = _load(builder, builder.select(missing, even, odd), F32)
        high = builder.select(missing, F32(0.0), high)
        pairs = _round_pairs(builder, _spread(builder, _load(builder, even, F32)), _spread(builder, high))
        _store(builder, builder.extract_element(pairs, I32(0)), target)
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
        values = _load(builder, source)
        if bf16:
            halves = _round(builder, values, _load(builder, _element(builder, source, LANES)))
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
            values = row(builder, _element(builder, source, builder.mul(source_stride, number)))
            rows.append(builder.select(missing, _constant(VECTOR, 0.0), values) if some else values)
        for j, column in enumerate(_transpose(builder, rows)):
            if height < LANES:
                keep = ir.Constant(ir.VectorType(I32, height), list(range(height)))
                column = builder.shuffle_vector(column, undefined, keep)
            _store(builder, column, _element(builder, target, builder.mul(target_stride, I64(j))))
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


ROW_TILE = min(TILE_ROWS, LANES)
"""The packing of the left operand transposes that many rows at a time, that of the right one LANES."""

# Source: that many rows of LANES floats (bf16: LANES pairs). Target: LANES rows of that many elements. Of
# `some` rows, the first `present` (may be negative) are there, and the others zeros.
transpose_rows, transpose_square = (_make_transpose_tile(height, False) for height in (ROW_TILE, LANES))
transpose_rows_bf16, transpose_square_bf16 = (
    _make_transpose_tile(height, HAS_BF16) for height in (ROW_TILE, LANES)
)
transpose_some_rows, transpose_some_rows_bf16 = (
    _make_transpose_tile(ROW_TILE, bf16, some=True) for bf16 in (False, HAS_BF16)
)


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
EXP_LOWEST, _EXP_HIGHEST = -87.3, 88.0


# Added to a number below 2^22, it leaves the nearest whole number, and a float's exponent bias of 127, in the
# low bits of the sum.
_ROUND_TO_WHOLE = 1.5 * 2**23 + 127


def _exp_float32(builder, x):
    """2^n * exp(r), n the nearest whole number to x / ln(2): n comes out of an addition, 2^n is
    a shift of its bits."""
    kind = x.type
    integer = WORDS if kind == VECTOR else I32
    # `x if not below` keeps a NaN, min/max would lose it
    for bound, below in ((EXP_LOWEST, "<"), (_EXP_HIGHEST, ">")):
        limit = _constant(kind, bound)
        x = builder.select(builder.fcmp_ordered(below, x, limit), limit, x)
    shifted = _fma(builder, x, _constant(kind, 1 / math.log(2)), _constant(kind, _ROUND_TO_WHOLE))
    n = builder.fsub(shifted, _constant(kind, _ROUND_TO_WHOLE), flags=_IN_ORDER)
    r = _fma(builder, n, _constant(kind, -_LN2_HIGH), x)
    r = _fma(builder, n, _constant(kind, -_LN2_LOW), r)
    y = _constant(kind, _EXP_COEFFICIENTS[0])
    for coefficient in _EXP_COEFFICIENTS[1:]:
        y = _fma(builder, y, r, _constant(kind, coefficient))
    y = _fma(builder, y, builder.fmul(r, r, flags=_IN_ORDER), r)
    y = builder.fadd(y, _constant(kind, 1.0), flags=_IN_ORDER)
    power = builder.shl(builder.bitcast(shifted, integer), _constant(integer, 23))
    return builder.fmul(y, builder.bitcast(power, kind), flags=_IN_ORDER)


@intrinsic
def _exp_scalar(typingctx, x):
    return types.float32(types.float32), lambda context, builder, signature, args: _exp_float32(
        builder, *args
    )


@intrinsic
def _exp_vector(typingctx, x):
    return vector(vector), lambda context, builder, signature, args: _exp_float32(builder, *args)


def exp(x):
    """e**x. float32 and vectors of it: within 2 ulp on [-87.3, 88], clamped to that range outside, NaN stays
    NaN; a plain chain of operations, so loops around it vectorise. float64: the C library's."""
    return math.exp(x)


@overload(exp)
def _exp(x):
    if x == types.float32:
        return lambda x: _exp_scalar(x)
    if x == vector:
        return lambda x: _exp_vector(x)
    return lambda x: math.exp(x)


# Words that two processes share: what one wrote before it stored a word, the other sees once it has read it.


@intrinsic
def load_shared_word(typingctx, address):
    """The 64-bit word at an address, read from memory each time."""

    def codegen(context, builder, signature, args):
        return builder.load_atomic(_pointer(builder, args[0], I64), "acquire", 8)

    return types.int64(types.intp), codegen


@intrinsic
def store_shared_word(typingctx, address, value):
    def codegen(context, builder, signature, args):
        builder.store_atomic(args[1], _pointer(builder, args[0], I64), "release", 8)
        return context.get_dummy_value()

    return types.void(types.intp, types.int64), codegen


@intrinsic
def exchange_shared_word(typingctx, address, expected, value):
    """Store `value` where the word is `expected`, in one; whether it was."""

    def codegen(context, builder, signature, args):
        pointer = _pointer(builder, args[0], I64)
        result = builder.cmpxchg(pointer, args[1], args[2], "acq_rel", "acquire")
        return builder.extract_value(result, 1)

    return types.boolean(types.intp, types.int64, types.int64), codegen


@intrinsic
def yield_core(typingctx):
    """Let whoever else wants this core have it: sched_yield(2)."""

    def codegen(context, builder, signature, args):
        _call(builder, "sched_yield", I32)
        return context.get_dummy_value()

    return types.void(), codegen
