"""Sums over a row of float32. By definition: 16 partial sums, element i to partial i mod 16, the last ones
filled up with zeros, and these in a tree, (p0 + p8) + (p4 + p12) and so on. So every CPU adds in one order,
in one register of 16 or in two of 8.

Rows are given by address and length, for a view of each row of an array costs as much as the sum of 64.
"""

import math

import numpy as np

from feste_dp.kernels.compilation import inlined_kernel, kernel
from feste_dp.kernels.vector.moves import load_lanes
from feste_dp.kernels.vector.registers import (
    lane_numbers,
    larger,
    load_vector,
    maximum,
    maximum_of_lanes,
    spread,
    sum_of_lanes,
    where_either_nan,
    where_less,
)
from feste_dp.kernels.vector.target import FLOAT_BYTES, LANES


@inlined_kernel
def whole_vectors(count):
    """How many of the first elements fill whole vectors."""
    return count - count % LANES


@kernel
def load_lanes_or(address, count, filler):
    """A vector of the first `count` floats at an address, then `filler`."""
    lanes = load_lanes(address, count)
    return where_less(lane_numbers(), spread(np.float32(count)), lanes, spread(np.float32(filler)))


@kernel
def row_sum(x, count):
    """sum(x)"""
    total, whole = spread(np.float32(0)), whole_vectors(count)
    for i in range(0, whole, LANES):
        total = total + load_vector(x + FLOAT_BYTES * i)
    if whole < count:
        total = total + load_lanes(x + FLOAT_BYTES * whole, count - whole)
    return sum_of_lanes(total)


@kernel
def row_squares(x, count, mean):
    """sum((x - mean)^2)"""
    total, whole, means = spread(np.float32(0)), whole_vectors(count), spread(mean)
    for i in range(0, whole, LANES):
        distance = load_vector(x + FLOAT_BYTES * i) - means
        total = total + distance * distance
    if whole < count:
        distance = load_lanes_or(x + FLOAT_BYTES * whole, count - whole, mean) - means
        total = total + distance * distance
    return sum_of_lanes(total)


@kernel
def row_product(x, y, count):
    """sum(x * y)"""
    total, whole = spread(np.float32(0)), whole_vectors(count)
    for i in range(0, whole, LANES):
        at = FLOAT_BYTES * i
        total = total + load_vector(x + at) * load_vector(y + at)
    if whole < count:
        at, rest = FLOAT_BYTES * whole, count - whole
        total = total + load_lanes(x + at, rest) * load_lanes(y + at, rest)
    return sum_of_lanes(total)


@kernel
def row_maximum(x, count):
    """max(x); a NaN among them is the maximum

    Which of two is taken first changes nothing, so four chains go beside each other, for one alone waits for
    itself, and NaNs are kept apart.
    """
    whole = whole_vectors(count)
    highest = load_lanes_or(x + FLOAT_BYTES * whole, count - whole, -math.inf)
    second = third = fourth = found = highest
    nans = spread(np.float32(math.nan))
    fours = whole - whole % (4 * LANES)
    for i in range(0, fours, 4 * LANES):
        at = x + FLOAT_BYTES * i
        a, b = load_vector(at), load_vector(at + FLOAT_BYTES * LANES)
        c, d = load_vector(at + FLOAT_BYTES * 2 * LANES), load_vector(at + FLOAT_BYTES * 3 * LANES)
        highest, second = larger(highest, a), larger(second, b)
        third, fourth = larger(third, c), larger(fourth, d)
        found = where_either_nan(c, d, nans, where_either_nan(a, b, nans, found))
    for i in range(fours, whole, LANES):
        highest = maximum(highest, load_vector(x + FLOAT_BYTES * i))
    highest = maximum(maximum(highest, second), maximum(third, fourth))
    return maximum_of_lanes(maximum(highest, found))
