"""Pieces of LLVM IR that the intrinsics of this package are made of.

Every function takes an IR builder; addresses are integers, strides count elements of 4 bytes.
"""

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import cgutils

from feste_dp.kernels.vector.target import FLOAT_BYTES, HAS_BF16, LANES

F32, F64, I16, I32, I64 = ir.FloatType(), ir.DoubleType(), ir.IntType(16), ir.IntType(32), ir.IntType(64)
VECTOR = ir.VectorType(F32, LANES)
WORDS = ir.VectorType(I32, LANES)
HALVES = ir.VectorType(I16, 2 * LANES)

_FLUSH_TO_ZERO, _SUBNORMALS_ARE_ZERO = 1 << 15, 1 << 6  # of the control register of SSE and AVX

if HAS_BF16:
    llvm.initialize_native_asmparser()  # without it LLVM refuses inline assembly


def element_address(builder, address, index):
    """Address of element `index` (an LLVM value or an int) of a float32 row at `address`."""
    if isinstance(index, int):
        return builder.add(address, I64(FLOAT_BYTES * index))
    return builder.add(address, builder.mul(index, I64(FLOAT_BYTES)))


def pointer_to(builder, address, kind):
    """A pointer from an integer.

    Trap: Numba links a function into its callers after machine code was made of it, and that writes such
    addresses as offsets from the null pointer. Optimised again in the caller, an access there aliases nothing
    and may be dropped, unless the function says that null is an address like others.
    """
    set.add(builder.function.attributes, "null_pointer_is_valid")  # llvmlite does not list it
    return builder.inttoptr(address, kind.as_pointer())


def load_at(builder, address, kind=VECTOR):
    load = builder.load(pointer_to(builder, address, kind))
    load.align = FLOAT_BYTES
    return load


def store_at(builder, value, address):
    builder.store(value, pointer_to(builder, address, value.type)).align = FLOAT_BYTES


def call_llvm(builder, name, result, *arguments):
    kinds = [argument.type for argument in arguments]
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, kinds), name)
    return builder.call(function, arguments)


def fma_of(builder, x, y, z):
    kind = {VECTOR: f"v{LANES}f32", F32: "f32", F64: "f64"}[x.type]
    return call_llvm(builder, f"llvm.fma.{kind}", x.type, x, y, z)


def constant_of(kind, value):
    return ir.Constant(kind, [value] * LANES) if kind in (VECTOR, WORDS) else kind(value)


def spread_scalar(builder, scalar):
    """All lanes of a vector set to one value."""
    vector = ir.VectorType(scalar.type, LANES)
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, I32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(WORDS, [0] * LANES))


def inline_assembly(builder, text, result, constraints, *arguments):
    kinds = [argument.type for argument in arguments]
    return builder.call(
        ir.InlineAsm(ir.FunctionType(result, kinds), text, constraints, side_effect=False), arguments
    )


def prefetch_line(builder, address, for_writing, locality=3):
    """locality 3 asks for it in the L1 cache, 2 in the L2."""
    pointer = pointer_to(builder, address, ir.IntType(8))
    call_llvm(builder, "llvm.prefetch.p0", ir.VoidType(), pointer, I32(for_writing), I32(locality), I32(1))


def without_subnormals(builder):
    """From here on operands and results that are subnormal count as zero; returns what set_modes() undoes it
    with. For the CPU only: the compiler may move what does not depend on memory."""
    place = cgutils.alloca_once(builder, I32)
    _call_with_pointer(builder, "llvm.x86.sse.stmxcsr", place)
    before = builder.load(place)
    set_modes(builder, builder.or_(before, I32(_FLUSH_TO_ZERO | _SUBNORMALS_ARE_ZERO)))
    return before


def set_modes(builder, modes):
    place = cgutils.alloca_once(builder, I32)
    builder.store(modes, place)
    _call_with_pointer(builder, "llvm.x86.sse.ldmxcsr", place)


def _call_with_pointer(builder, name, place):
    call_llvm(builder, name, ir.VoidType(), builder.bitcast(place, ir.IntType(8).as_pointer()))
