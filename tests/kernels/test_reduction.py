import numpy as np
import pytest

from feste_dp.kernels.reduction import (
    NORM_CHUNK,
    STREAM_BYTES,
    TREE_BLOCK,
    chunk_count,
    make_tree,
    reduce_slots,
)
from feste_dp.kernels.vector.target import FLOAT_BYTES, LANES

PARAMETERS = 9 * NORM_CHUNK + 1234


def random_slots(rng, shards, parameters=PARAMETERS):
    """Numbers of very different size, so that another association gives other bits."""
    slots = rng.standard_normal((shards, parameters), dtype=np.float32)
    return slots * np.exp2(rng.integers(-8, 8, (shards, 1))).astype(np.float32)


def reduced(slots, owners=1):
    """grad and norms, each owner reducing its stripe of whole chunks; the last owner comes first."""
    chunks = chunk_count(slots.shape[1])
    grad, norms = np.full(slots.shape[1], np.nan, np.float32), np.full(chunks, np.nan)
    for owner in reversed(range(owners)):
        tree = make_tree(slots.shape[0])
        tree[:] = np.nan
        reduce_slots(grad, norms, slots, chunks * owner // owners, chunks * (owner + 1) // owners, tree)
    return grad, norms


def sum_of_tree(slots):
    return slots[0] if len(slots) == 1 else sum_of_tree(slots[0::2] + slots[1::2])


def aligned(shape, offset=0):
    """Uninitialised floats that start `offset` floats after a cache line's start."""
    buffer = np.empty(np.prod(shape) + 32, np.float32)
    skip = -buffer.ctypes.data % 64 // FLOAT_BYTES + offset
    return buffer[skip : skip + np.prod(shape)].reshape(shape)


@pytest.mark.parametrize("shards", [1, 2, 4, 8, 16, 32, 64, 128, 256])
def test_grad_is_the_binary_tree_bit_for_bit(shards, rng):
    parameters = PARAMETERS if shards <= 16 else NORM_CHUNK + 1234
    slots = random_slots(rng, shards, parameters)
    grad, norms = reduced(slots)
    expected = sum_of_tree(slots)
    np.testing.assert_array_equal(grad.view(np.uint32), expected.view(np.uint32))
    squares = expected.astype(np.float64) ** 2
    sums = np.add.reduceat(squares, np.arange(0, parameters, NORM_CHUNK))
    np.testing.assert_allclose(norms, sums, rtol=1e-12)


def test_eight_shards_are_summed_in_the_written_order(rng):
    g = random_slots(rng, 8, parameters=100)
    grad, _ = reduced(g)
    np.testing.assert_array_equal(grad, ((g[0] + g[1]) + (g[2] + g[3])) + ((g[4] + g[5]) + (g[6] + g[7])))
    # the data tells the tree from a left fold
    assert (grad != sum(g[1:], start=g[0])).any()


@pytest.mark.parametrize("shards", [1, 2, 4, 8])
def test_a_sum_written_past_the_caches_has_the_same_bits(shards, rng):
    parameters = STREAM_BYTES // FLOAT_BYTES // (shards + 1) + 1000
    slots, chunks = random_slots(rng, shards, parameters), chunk_count(parameters)
    results = []
    for offset in (0, 1):  # a sum that is not aligned to vectors is written as any other
        grad, norms = aligned(parameters, offset), np.full(chunks, np.nan)
        reduce_slots(grad, norms, slots, 0, chunks, make_tree(shards))
        np.testing.assert_array_equal(grad.view(np.uint32), sum_of_tree(slots).view(np.uint32))
        results.append(norms)
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("shards", [1, 2, 8, 16])
def test_the_norms_are_those_of_the_written_order(shards, rng):
    slots = random_slots(rng, shards, NORM_CHUNK + TREE_BLOCK + 3 * LANES + 5)
    grad, norms = reduced(slots)
    np.testing.assert_array_equal(norms, [norm_in_order(grad[:NORM_CHUNK]), norm_in_order(grad[NORM_CHUNK:])])


def norm_in_order(chunk):
    """In a block a sum for each lane, these in a binary tree; block after block, then what is left over."""
    whole = len(chunk) // LANES * LANES
    blocks = [chunk[lo : min(lo + TREE_BLOCK, whole)] for lo in range(0, whole, TREE_BLOCK)]
    if whole < len(chunk):
        blocks.append(np.concatenate([chunk[whole:], np.zeros(LANES - len(chunk) + whole, np.float32)]))
    total = 0.0
    for block in blocks:
        lanes = np.zeros(LANES)
        for vector in block.astype(np.float64).reshape(-1, LANES):
            lanes += vector * vector  # exact products, so a fused multiply-add gives the same
        total += sum_of_tree(lanes[:, None])[0]
    return total


@pytest.mark.parametrize("shards", [1, 2, 16])
def test_any_number_of_owners_gives_the_same_bits(shards, rng):
    slots = random_slots(rng, shards)
    grad, norms = reduced(slots)
    for owners in (2, 3, 5, 8, 13):
        grad_again, norms_again = reduced(slots, owners)
        np.testing.assert_array_equal(grad_again.view(np.uint32), grad.view(np.uint32))
        np.testing.assert_array_equal(norms_again.view(np.uint64), norms.view(np.uint64))


@pytest.mark.parametrize(
    "parameters",
    [
        1,
        LANES - 1,
        LANES,
        LANES + 1,
        TREE_BLOCK - 1,
        TREE_BLOCK + 1,
        NORM_CHUNK - 1,
        NORM_CHUNK,
        NORM_CHUNK + 1,
    ],
)
@pytest.mark.parametrize("shards", [1, 4, 16, 128])
def test_a_ragged_last_chunk_is_reduced_to_its_end(parameters, shards, rng):
    slots = random_slots(rng, shards, parameters)
    grad, norms = reduced(slots)
    np.testing.assert_array_equal(grad, sum_of_tree(slots))
    np.testing.assert_allclose(norms.sum(), (grad.astype(np.float64) ** 2).sum(), rtol=1e-12)


def test_a_stripe_writes_nothing_outside_of_its_chunks(rng):
    slots = random_slots(rng, 2)
    grad, norms = np.full(PARAMETERS, np.nan, np.float32), np.full(chunk_count(PARAMETERS), np.nan)
    reduce_slots(grad, norms, slots, 2, 4, make_tree(2))
    assert np.isfinite(norms[2:4]).all() and np.isnan(np.delete(norms, [2, 3])).all()
    written = np.isfinite(grad)
    assert written[2 * NORM_CHUNK : 4 * NORM_CHUNK].all()
    assert written.sum() == 2 * NORM_CHUNK


def test_a_nan_in_one_slot_reaches_grad_and_its_chunks_norm(rng):
    slots = random_slots(rng, 8)
    slots[5, NORM_CHUNK + 3] = np.nan
    grad, norms = reduced(slots)
    assert np.flatnonzero(np.isnan(grad)).tolist() == [NORM_CHUNK + 3]
    assert np.flatnonzero(np.isnan(norms)).tolist() == [1]


def test_the_norm_of_large_gradients_does_not_overflow(rng):
    slots = np.full((2, 10), 1e30, np.float32)
    _, norms = reduced(slots)
    np.testing.assert_allclose(norms, 4e61, rtol=1e-6)
