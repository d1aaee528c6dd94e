"""Matrices of float32 as (address, row stride, column stride), strides in floats: one compiled function
serves every layout. What a view is of must outlive it.
"""

from feste_dp.kernels.compilation import inlined_kernel
from feste_dp.kernels.vector.registers import address_of
from feste_dp.kernels.vector.target import FLOAT_BYTES


@inlined_kernel
def view(x):
    """Of a two-dimensional array."""
    return address_of(x), x.strides[0] // FLOAT_BYTES, x.strides[1] // FLOAT_BYTES


@inlined_kernel
def rows_at(address, width):
    """Of rows of `width` floats that lie one behind the other."""
    return address, width, 1


@inlined_kernel
def transposed(a):
    return a[0], a[2], a[1]


@inlined_kernel
def at(a, i, j):
    """The address of an element."""
    return a[0] + FLOAT_BYTES * (i * a[1] + j * a[2])


@inlined_kernel
def part(a, i, j):
    """The view that begins at an element."""
    return at(a, i, j), a[1], a[2]
