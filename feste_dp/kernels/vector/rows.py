"""Sums over rows: gradient slots, in a fixed binary tree."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from feste_dp.kernels.vector.llvm import (
    I32,
    I64,
    VECTOR,
    element_address,
    load_at,
    pointer_to,
    store_at,
)
from feste_dp.kernels.vector.target import FLOAT_BYTES, LANES


def _add_in_tree(builder, values):
    """((v0 + v1) + (v2 + v3)) + ..., in this order."""
    while len(values) > 1:
        values = [builder.fadd(x, y) for x, y in zip(values[::2], values[1::2], strict=True)]
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
                load_at(
                    builder, builder.add(element_address(builder, source, builder.mul(stride, I64(s))), at)
                )
                for s in range(count)
            ]
            total, target = _add_in_tree(builder, rows), builder.add(target, at)
            builder.cbranch(stream, store_past, store)

            builder.position_at_end(store)
            store_at(builder, total, target)
            builder.branch(square)

            builder.position_at_end(store_past)
            past = builder.store(total, pointer_to(builder, target, VECTOR))
            past.align = FLOAT_BYTES * LANES
            past.set_metadata("nontemporal", builder.module.add_metadata([I32(1)]))
            builder.branch(square)

            builder.position_at_end(square)
            double = builder.fpext(total, wide)
            product = builder.fmul(double, double)
            next_squares = builder.fadd(squares, product)
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
