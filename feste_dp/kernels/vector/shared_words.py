"""Words that two processes share: what one wrote before it stored a word, the other sees once it has read
it."""

from numba import types
from numba.extending import intrinsic

from feste_dp.kernels.vector.llvm import I32, I64, call_llvm, pointer_to


@intrinsic
def load_shared_word(typingctx, address):
    """The 64-bit word at an address, read from memory each time."""

    def codegen(context, builder, signature, args):
        return builder.load_atomic(pointer_to(builder, args[0], I64), "acquire", 8)

    return types.int64(types.intp), codegen


@intrinsic
def store_shared_word(typingctx, address, value):
    def codegen(context, builder, signature, args):
        builder.store_atomic(args[1], pointer_to(builder, args[0], I64), "release", 8)
        return context.get_dummy_value()

    return types.void(types.intp, types.int64), codegen


@intrinsic
def exchange_shared_word(typingctx, address, expected, value):
    """Store `value` where the word is `expected`, in one; whether it was."""

    def codegen(context, builder, signature, args):
        pointer = pointer_to(builder, args[0], I64)
        result = builder.cmpxchg(pointer, args[1], args[2], "acq_rel", "acquire")
        return builder.extract_value(result, 1)

    return types.boolean(types.intp, types.int64, types.int64), codegen


@intrinsic
def yield_core(typingctx):
    """Let whoever else wants this core have it: sched_yield(2)."""

    def codegen(context, builder, signature, args):
        call_llvm(builder, "sched_yield", I32)
        return context.get_dummy_value()

    return types.void(), codegen
