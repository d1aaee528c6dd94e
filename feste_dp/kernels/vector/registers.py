"""Values of one register in compiled code: load, store, spread, + - * /, maximum; and where an array lies."""

import operator

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, overload, register_model

from feste_dp.kernels.vector.llvm import (
    I32,
    I64,
    VECTOR,
    WORDS,
    fma_of,
    load_at,
    spread_scalar,
    store_at,
)
from feste_dp.kernels.vector.target import LANES


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
    return vector(types.intp), lambda context, builder, signature, args: load_at(builder, args[0])


@intrinsic
def store_vector(typingctx, address, value):
    """Write LANES floats to an address."""

    def codegen(context, builder, signature, args):
        address, value = args
        store_at(builder, value, address)
        return context.get_dummy_value()

    return types.void(types.intp, vector), codegen


@intrinsic
def spread(typingctx, x):
    """A vector of one value."""
    return vector(types.float32), lambda context, builder, signature, args: spread_scalar(builder, args[0])


@intrinsic
def multiply_add(typingctx, x, y, z):
    """x * y + z, rounded once: three floats of one type, or three vectors."""
    return x(x, x, x), lambda context, builder, signature, args: fma_of(builder, *args)


def _over_lanes(join):
    """A function of a vector that joins halves upon halves: (l0, l8), (l4, l12) and so on."""

    def codegen(context, builder, signature, args):
        (total,), span = args, LANES // 2
        while span:
            upper = builder.shuffle_vector(
                total, total, ir.Constant(WORDS, [(lane + span) % LANES for lane in range(LANES)])
            )
            total, span = join(builder, total, upper), span // 2
        return builder.extract_element(total, I32(0))

    return types.float32(vector), codegen


@intrinsic
def sum_of_lanes(typingctx, x):
    """(l0 + l8) + (l4 + l12) and so on."""
    return _over_lanes(lambda builder, x, y: builder.fadd(x, y))


@intrinsic
def maximum_of_lanes(typingctx, x):
    """The largest lane; a NaN in any stays a NaN."""
    return _over_lanes(_maximum)


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


@intrinsic
def where_either_nan(typingctx, x, y, yes, no):
    """yes where x or y is a NaN, no elsewhere, lane by lane."""

    def codegen(context, builder, signature, args):
        x, y, yes, no = args
        return builder.select(builder.fcmp_unordered("uno", x, y), yes, no)

    return vector(vector, vector, vector, vector), codegen


@intrinsic
def larger(typingctx, x, y):
    """y where it is larger than x, else x, also where y is a NaN: one instruction; maximum takes four."""

    def codegen(context, builder, signature, args):
        x, y = args
        return builder.select(builder.fcmp_ordered("<", x, y), y, x)

    return vector(vector, vector), codegen


def _two_operands(code):
    @intrinsic
    def function(typingctx, x, y):
        return vector(vector, vector), lambda context, builder, signature, args: code(builder, *args)

    return function


def _maximum(builder, x, y):
    """The larger one; a NaN in either stays a NaN. LLVM 15 has no code for its own llvm.maximum on x86."""
    larger = builder.select(builder.fcmp_ordered("<", x, y), y, x)
    return builder.select(builder.fcmp_unordered("uno", y, y), y, larger)


_maximum_vector = _two_operands(_maximum)


@intrinsic
def _maximum_scalar(typingctx, x, y):
    return x(x, x), lambda context, builder, signature, args: _maximum(builder, *args)


def maximum(x, y):
    """The larger one of two floats or vectors; a NaN in either stays a NaN."""
    return max(x, y)


@overload(maximum)
def _maximum_of(x, y):
    if x == vector:
        return lambda x, y: _maximum_vector(x, y)
    return lambda x, y: _maximum_scalar(x, y)


_ARITHMETIC = {
    operator.add: _two_operands(lambda builder, x, y: builder.fadd(x, y)),
    operator.sub: _two_operands(lambda builder, x, y: builder.fsub(x, y)),
    operator.mul: _two_operands(lambda builder, x, y: builder.fmul(x, y)),
    operator.truediv: _two_operands(lambda builder, x, y: builder.fdiv(x, y)),
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
