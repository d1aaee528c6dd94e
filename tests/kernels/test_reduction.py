import numpy as np
import pytest

from feste_dp.kernels.reduction import NORM_CHUNK, TREE_BLOCK, chunk_count, make_tree, reduce_slots

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


@pytest.mark.parametrize("shards", [1, 2, 4, 8, 16])
def test_grad_is_the_binary_tree_bit_for_bit(shards, rng):
    slots = random_slots(rng, shards)
    grad, norms = reduced(slots)
    expected = sum_of_tree(slots)
    np.testing.assert_array_equal(grad.view(np.uint32), expected.view(np.uint32))
    squares = expected.astype(np.float64) ** 2
    sums = np.add.reduceat(squares, np.arange(0, PARAMETERS, NORM_CHUNK))
    np.testing.assert_allclose(norms, sums, rtol=1e-12)


def test_eight_shards_are_summed_in_the_written_order(rng):
    g = random_slots(rng, 8, parameters=100)
    grad, _ = reduced(g)
    np.testing.assert_array_equal(grad, ((g[0] + g[1]) + (g[2] + g[3])) + ((g[4] + g[5]) + (g[6] + g[7])))
    # the data tells the tree from a left fold
    assert (grad != sum(g[1:], start=g[0])).any()


@pytest.mark.parametrize("shards", [1, 2, 16])
def test_any_number_of_owners_gives_the_same_bits(shards, rng):
    slots = random_slots(rng, shards)
    grad, norms = reduced(slots)
    for owners in (2, 3, 5, 8, 13):
        grad_again, norms_again = reduced(slots, owners)
        np.testing.assert_array_equal(grad_again.view(np.uint32), grad.view(np.uint32))
        np.testing.assert_array_equal(norms_again.view(np.uint64), norms.view(np.uint64))


@pytest.mark.parametrize(
    "parameters", [1, TREE_BLOCK - 1, TREE_BLOCK + 1, NORM_CHUNK - 1, NORM_CHUNK, NORM_CHUNK + 1]
)
def test_a_ragged_last_chunk_is_reduced_to_its_end(parameters, rng):
    slots = random_slots(rng, 4, parameters)
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
