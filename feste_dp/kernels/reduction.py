"""Sum of the gradient slots in one fixed tree, and the partial sums of the gradient norm."""

import numpy as np

from feste_dp.kernels.compilation import kernel
from feste_dp.kernels.vector.registers import address_of
from feste_dp.kernels.vector.rows import store_fence, sum_eight, sum_four, sum_one, sum_two
from feste_dp.kernels.vector.target import FLOAT_BYTES, LANES

NORM_CHUNK = 16384  # floats; a stripe is a whole number of chunks, so each chunk's sum has one owner
TREE_BLOCK = 2048  # floats; S / 8 rows of 8 KiB stay in the L1 or L2 cache

# Slots and sum together larger than this are in no cache when they are read again. Then the sum is written
# past the caches, which saves reading its lines first. GB/s with and without on a Zen 4 core, S = 2: 36 and
# 30 for 33M floats, 44 and 38 for 4M, 76 and 92 for 160K (within the caches); S = 8, 33M: 32 and 30.
STREAM_BYTES = 32 << 20


@kernel
def reduce_slots(grad, norms, slots, first_chunk, last_chunk, tree):
    """Overwrites chunks first_chunk .. last_chunk - 1 of grad and of norms.

    grad  = ((slots[0] + slots[1]) + (slots[2] + slots[3])) + ...   per element, a binary tree over shards
    norms = sum(grad^2) of each chunk of NORM_CHUNK elements, float64: block after block of TREE_BLOCK, and in
            a block a sum for each lane of a vector, these in a binary tree

    slots   (S, P), S a power of two: a row holds the sum over as many shards as every other
    tree    (S, TREE_BLOCK)   scratch
    """
    parameters, shards = grad.shape[0], slots.shape[0]
    grad_address, slots_address = address_of(grad), address_of(slots)
    is_large = (shards + 1) * parameters * FLOAT_BYTES > STREAM_BYTES
    stream = is_large and grad_address % (LANES * FLOAT_BYTES) == 0
    for chunk in range(first_chunk, last_chunk):
        start, stop = chunk * NORM_CHUNK, min((chunk + 1) * NORM_CHUNK, parameters)
        total = 0.0
        for lo in range(start, stop, TREE_BLOCK):
            vectors = min(TREE_BLOCK, stop - lo) // LANES
            target, source = grad_address + FLOAT_BYTES * lo, slots_address + FLOAT_BYTES * lo
            total += _sum_rows(target, source, parameters, shards, vectors, stream, tree)
        rest = (stop - start) % LANES
        if rest > 0:
            total += _sum_rest(grad, slots, stop - rest, rest, tree)
        norms[chunk] = total
    store_fence()


@kernel
def add_slot(slot, other):
    """slot (P,) += other (P,), element by element: one inner node of the tree."""
    vectors = slot.shape[0] // LANES
    if vectors > 0:
        first = address_of(slot)
        stride = (address_of(other) - first) // FLOAT_BYTES
        sum_two(first, first, stride, vectors, False)
    for i in range(vectors * LANES, slot.shape[0]):
        slot[i] += other[i]


@kernel
def _sum_rows(target, source, stride, count, vectors, stream, tree):
    """target = the tree over `count` rows of `vectors` vectors; returns the sum of its squares.

    One pass adds up to eight rows and squares the sum while it is in registers, as fast as a loop in C that
    only adds (Numba's own code for that loop: 10 % less, and no stores past the caches). More rows are first
    added eight at a time into scratch.
    """
    if vectors == 0:
        return 0.0
    tree_address = address_of(tree)
    while count > 8:
        count //= 8
        for s in range(count):
            row = tree_address + FLOAT_BYTES * s * TREE_BLOCK
            sum_eight(row, source + FLOAT_BYTES * 8 * s * stride, stride, vectors, False)
        source, stride = tree_address, TREE_BLOCK
    if count == 8:
        return sum_eight(target, source, stride, vectors, stream)
    if count == 4:
        return sum_four(target, source, stride, vectors, stream)
    if count == 2:
        return sum_two(target, source, stride, vectors, stream)
    return sum_one(target, source, stride, vectors, stream)


@kernel
def _sum_rest(grad, slots, lo, count, tree):
    """The last columns, fewer than a vector: the same with a vector that zeros fill up, in scratch."""
    for s in range(slots.shape[0]):
        for i in range(LANES):
            tree[s, i] = slots[s, lo + i] if i < count else 0
    address = address_of(tree)
    total = _sum_rows(address, address, TREE_BLOCK, slots.shape[0], 1, False, tree)
    for i in range(count):
        grad[lo + i] = tree[0, i]
    return total


def chunk_norms(grad: np.ndarray, norms: np.ndarray) -> None:
    """Overwrite norms with those of grad (P,), which stays as it is: after an exchange between machines."""
    reduce_slots(grad, norms, grad.reshape(1, -1), 0, len(norms), make_tree(1))


def chunk_count(parameters: int) -> int:
    return -(-parameters // NORM_CHUNK)


def make_tree(shards: int) -> np.ndarray:
    return np.zeros((shards, TREE_BLOCK), np.float32)
