"""Which shards a node has, and that sums of blocks are the upper levels of the one tree over shards."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feste_dp.errors import UsageError
from feste_dp.kernels.reduction import add_slot, chunk_count, make_tree, reduce_slots
from feste_dp.nodes.blocks import additions, node_blocks, uneven
from feste_dp.runtime.results import tree_sum

SHARDS = [1 << power for power in range(7)]
FLOATS = 37  # no whole number of vectors


@st.composite
def jobs(draw):
    """(shards, nodes)"""
    shards = draw(st.sampled_from(SHARDS))
    return shards, draw(st.integers(1, shards))


def floats_of_all_sizes(rng, rows):
    """Subnormal ones, ones that overflow when they are added, and all between."""
    signs = rng.choice([-1.0, 1.0], (rows, FLOATS))
    with np.errstate(over="ignore", under="ignore"):
        return (signs * 2.0 ** rng.uniform(-149, 127.9, (rows, FLOATS))).astype(np.float32)


def reduced(slots):
    grad, norms = np.empty(FLOATS, np.float32), np.empty(chunk_count(FLOATS))
    reduce_slots(grad, norms, np.ascontiguousarray(slots), 0, len(norms), make_tree(len(slots)))
    return grad


@pytest.mark.parametrize("shards", SHARDS)
def test_blocks_are_aligned_powers_of_two_that_cover_all_shards(shards):
    for nodes in range(1, shards + 1):
        blocks = node_blocks(shards, nodes)
        covered = [shard for block in blocks for shard in range(block.first, block.first + block.count)]
        assert len(blocks) == nodes and covered == list(range(shards))
        for block in blocks:
            assert block.count & (block.count - 1) == 0 and block.first % block.count == 0
        counts = [block.count for block in blocks]
        assert counts == sorted(counts) and max(counts) <= 2 * min(counts)


@given(jobs(), st.randoms(use_true_random=False))
def test_additions_of_blocks_give_the_sum_of_the_tree(job, random):
    shards, nodes = job
    losses = [random.uniform(-1, 1) * 10.0 ** random.randrange(-30, 30) for _ in range(shards)]
    blocks = node_blocks(shards, nodes)
    sums = [tree_sum(losses[block.first : block.first + block.count]) for block in blocks]
    for into, other in additions(blocks):
        sums[into] += sums[other]
    assert sums[0] == tree_sum(losses)


@given(jobs(), st.integers(0, 2**32))
def test_blocks_reduced_and_added_have_the_bits_of_all_slots_reduced(job, seed):
    shards, nodes = job
    slots = floats_of_all_sizes(np.random.default_rng(seed), shards)
    blocks = node_blocks(shards, nodes)
    sums = [reduced(slots[block.first : block.first + block.count]) for block in blocks]
    for into, other in additions(blocks):
        add_slot(sums[into], sums[other])
    assert sums[0].tobytes() == reduced(slots).tobytes()


def test_more_nodes_than_shards_are_refused_with_what_to_set():
    with pytest.raises(
        UsageError, match=r"5 nodes are more than train.shards 4: use at most 4 nodes"
    ) as told:
        node_blocks(4, 5)
    assert told.value.settings == {"train.shards": 8}


@pytest.mark.parametrize("shards", SHARDS)
def test_blocks_that_differ_are_told_with_the_numbers_of_nodes_that_have_alike_ones(shards):
    for nodes in range(1, shards + 1):
        line = uneven(node_blocks(shards, nodes))
        if nodes & (nodes - 1) == 0:
            assert line is None
        else:
            lower = 1 << (nodes.bit_length() - 1)
            assert line is not None and line.endswith(f"; {lower} or {2 * lower} nodes share them equally")
            assert f"no faster than {lower} nodes" in line
