"""Sum of the gradient slots in one fixed tree, and the partial sums of the gradient norm."""

import numpy as np

from feste_dp.kernels.compilation import kernel

NORM_CHUNK = 16384  # floats; a stripe is a whole number of chunks, so each chunk's sum has one owner
TREE_BLOCK = 2048  # floats; S / 2 blocks of 8 KiB stay in the L1 cache


@kernel
def reduce_slots(grad, norms, slots, first_chunk, last_chunk, tree):
    """Overwrites chunks first_chunk .. last_chunk - 1 of grad and of norms.

    grad  = ((slots[0] + slots[1]) + (slots[2] + slots[3])) + ...   per element, a binary tree over shards
    norms = sum(grad^2) of each chunk of NORM_CHUNK elements, float64

    slots   (S, P), S a power of two
    tree    (S / 2 or more, TREE_BLOCK)   scratch
    """
    parameters = grad.shape[0]
    for chunk in range(first_chunk, last_chunk):
        start, stop = chunk * NORM_CHUNK, min((chunk + 1) * NORM_CHUNK, parameters)
        for lo in range(start, stop, TREE_BLOCK):
            _sum_block(grad, slots, lo, min(lo + TREE_BLOCK, stop), tree)
        total = 0.0
        for i in range(start, stop):
            total += np.float64(grad[i]) * np.float64(grad[i])
        norms[chunk] = total


@kernel
def _sum_block(grad, slots, lo, hi, tree):
    n = hi - lo
    pairs = slots.shape[0] // 2
    if pairs == 0:
        for i in range(n):
            grad[lo + i] = slots[0, lo + i]
        return
    for s in range(pairs):
        for i in range(n):
            tree[s, i] = slots[2 * s, lo + i] + slots[2 * s + 1, lo + i]
    while pairs > 1:
        pairs //= 2
        for s in range(pairs):
            for i in range(n):
                tree[s, i] = tree[2 * s, i] + tree[2 * s + 1, i]
    for i in range(n):
        grad[lo + i] = tree[0, i]


def chunk_count(parameters: int) -> int:
    return -(-parameters // NORM_CHUNK)


def make_tree(shards: int) -> np.ndarray:
    return np.zeros((max(1, shards // 2), TREE_BLOCK), np.float32)
