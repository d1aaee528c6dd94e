"""Matrices in the midst of larger arrays, and what rounding to bfloat16 makes of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
import pytest

GUARD = 19  # floats around every operand; a vector is at most 16
WRITTEN_ONLY_BY_A_BUG = np.float32(12345.678)

PRECISIONS = [False, True]
"""Values of PackBuffers.bf16 that this CPU can multiply with."""

both_precisions = pytest.mark.parametrize("bf16", PRECISIONS, ids=["fp32", "bf16"][: len(PRECISIONS)])


def in_any_layout(kernel: Any) -> Callable[..., None]:
    """The kernel as it is compiled for arrays of any layout. Left alone, Numba takes views with a length of 1
    for whole arrays, and compiles the same kernel for each mixture of the two."""

    def call(*arguments: Any) -> None:
        given = map(numba.typeof, arguments)
        types = tuple(
            each.copy(layout="A") if isinstance(each, numba.types.Array) else each for each in given
        )
        if types not in kernel.overloads:
            kernel.compile(types)
        kernel.overloads[types].entry_point(*arguments)

    return call


def placed(matrix: np.ndarray, layout: str, around: float) -> np.ndarray:
    """The matrix as a view into a larger array that is full of `around`."""
    rows, columns = matrix.shape
    if layout == "columns":
        return placed(matrix.T, "rows", around).T
    step = 2 if layout == "every other" else 1
    room = np.full((2 * GUARD + step * rows, 2 * GUARD + step * columns), around, matrix.dtype)
    view = room[GUARD : GUARD + step * rows : step, GUARD : GUARD + step * columns : step]
    view[:] = matrix
    return view


class Guarded:
    """`view`: an array full of NaN with guards on all sides of its last two axes, or of its only one."""

    def __init__(self, *shape: int, dtype: type = np.float32) -> None:
        guarded = [*shape[:-2], *(size + 2 * GUARD for size in shape[-2:])]
        self._room = np.full(guarded, WRITTEN_ONLY_BY_A_BUG, dtype)
        self.view = self._room[(..., *[slice(GUARD, -GUARD)] * len(shape[-2:]))]
        self.view[:] = np.nan

    def assert_nothing_written_around(self) -> None:
        room = self._room.copy()
        room[(..., *[slice(GUARD, -GUARD)] * min(room.ndim, 2))] = WRITTEN_ONLY_BY_A_BUG
        np.testing.assert_array_equal(room, np.full_like(room, WRITTEN_ONLY_BY_A_BUG))


class GuardedBuffers:
    """`buffers`: a tuple as the given one, its arrays full of NaN and with guards at both ends."""

    def __init__(self, buffers: NamedTuple) -> None:
        self._rooms: list[np.ndarray] = []
        self.buffers = type(buffers)(*map(self._guarded, buffers))

    def _guarded(self, buffer: np.ndarray | bool) -> np.ndarray | bool:
        if isinstance(buffer, bool):
            return buffer
        self._rooms.append(np.full(buffer.size + 2 * GUARD, WRITTEN_ONLY_BY_A_BUG))
        view = self._rooms[-1][GUARD:-GUARD]
        view[:] = np.nan
        return view

    def assert_nothing_written_around(self) -> None:
        for room in self._rooms:
            ends = np.concatenate([room[:GUARD], room[-GUARD:]])
            np.testing.assert_array_equal(ends, np.full_like(ends, WRITTEN_ONLY_BY_A_BUG))


def random_matrix(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    return rng.standard_normal((rows, columns)).astype(np.float32)


def bfloat16_bits(x: np.ndarray) -> np.ndarray:
    """The upper halves of the float32s nearest to x that have nothing in the lower one, of two equally near
    ones the even; zero of x's sign where x is subnormal; a NaN stays one, made quiet."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).copy()
    sign, magnitude = bits & 0x80000000, bits & 0x7FFFFFFF
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    rounded = np.where(magnitude < 0x00800000, sign >> 16, rounded)
    return np.where(magnitude > 0x7F800000, bits >> 16 | 0x40, rounded).astype(np.uint16)


def rounded_to_bfloat16(x: np.ndarray) -> np.ndarray:
    return (bfloat16_bits(x).astype(np.uint32) << 16).view(np.float32)


ROUNDING = 2.0**-24
BFLOAT16_ROUNDING = 2.0**-8


def as_multiplied(x: np.ndarray, bf16: bool) -> np.ndarray:
    """The operand that a product sees, in float64."""
    return (rounded_to_bfloat16(x) if bf16 else x).astype(np.float64)


def product_and_bound(
    a: np.ndarray, b: np.ndarray, start: np.ndarray | float, bf16: bool
) -> tuple[np.ndarray, np.ndarray]:
    """start + a @ b of the operands as they are multiplied, and how far float32 sums may be off.

    Each element is a chain of K additions to which each product comes unrounded, then one of `start`: at most
    K + 1 roundings of its absolute sum; one more where bfloat16 fills up an odd K.
    """
    wide_a, wide_b = as_multiplied(a, bf16), as_multiplied(b, bf16)
    start = np.asarray(start, np.float64)
    bound = (
        (a.shape[1] + 1 + bf16 * a.shape[1] % 2)
        * ROUNDING
        * (np.abs(wide_a) @ np.abs(wide_b) + np.abs(start))
    )
    return wide_a @ wide_b + start, bound


def assert_within(got: np.ndarray, expected: np.ndarray, bound: np.ndarray) -> None:
    error = np.abs(got - expected)
    assert (error <= bound).all(), f"error {error.max()}, bound there {bound.flat[error.argmax()]}"


def assert_product_is_right(
    c: np.ndarray, a: np.ndarray, b: np.ndarray, start: np.ndarray | float = 0.0, bf16: bool = False
) -> None:
    """Against the operands as they are multiplied, tightly, and as they are, within their rounding."""
    expected, bound = product_and_bound(a, b, start, bf16)
    assert_within(c, expected, bound)
    exact, _ = product_and_bound(a, b, start, False)
    of_operands = np.abs(a).astype(np.float64) @ np.abs(b) * bf16
    assert_within(c, exact, bound + (2 * BFLOAT16_ROUNDING + BFLOAT16_ROUNDING**2) * of_operands)
