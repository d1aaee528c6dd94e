"""The sum over nodes has the bits, and the norms, of one machine, on every node."""

import random

import numpy as np
import pytest

from feste_dp.kernels.reduction import NORM_CHUNK, chunk_count, chunk_norms, make_tree, reduce_slots
from feste_dp.nodes import array_sum
from feste_dp.nodes.array_sum import CHUNK_FLOATS, ArraySum
from feste_dp.nodes.blocks import additions, node_blocks
from feste_dp.nodes.link_speed import SMALL_FLOATS
from tests.nodes.wires import Wires, linked

SHARDS = 8
SMALL = [1, NORM_CHUNK - 1, 3 * NORM_CHUNK + 5]
LARGE = [SMALL_FLOATS + 1, 17 * CHUNK_FLOATS + 3 * NORM_CHUNK + 11]


def slots_of(parameters, seed=7):
    rng = np.random.default_rng(seed)
    slots = rng.standard_normal((SHARDS, parameters), np.float32)
    slots *= np.float32(2.0) ** rng.integers(-60, 60, SHARDS).astype(np.float32)[:, None]
    return slots


def reduced(slots):
    parameters = slots.shape[1]
    grad, norms = np.empty(parameters, np.float32), np.empty(chunk_count(parameters))
    reduce_slots(grad, norms, slots, 0, len(norms), make_tree(len(slots)))
    return grad, norms


def summed(wires, slots, rounds=1):
    """grad and norms of each node, after so many sums of the same."""
    blocks, parameters = node_blocks(SHARDS, wires.size), slots.shape[1]
    ends = wires.ends()

    def body(link):
        block = blocks[link.rank]
        adder = ArraySum(link, ends[link.rank], additions(blocks), parameters)
        results = []
        for _ in range(rounds):
            grad, norms = reduced(np.ascontiguousarray(slots[block.first : block.first + block.count]))
            parts = []

            def finished(first, last, grad=grad, norms=norms, parts=parts):
                parts.append((first, last))
                chunk_norms(grad[first:last], norms[first // NORM_CHUNK : -(-last // NORM_CHUNK)])

            if adder.is_small:
                adder.begin(grad)(finished)
            else:
                adder.all_reduce(grad, finished)
            edges = sorted(parts)
            assert [0, *(last for _, last in edges)] == [*(first for first, _ in edges), parameters]
            results.append((grad.tobytes(), norms.tobytes()))
        return results

    return linked(ends, body)


@pytest.mark.parametrize("nodes", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("parameters", SMALL + LARGE)
def test_the_sum_and_its_norms_are_those_of_one_machine_on_every_node(nodes, parameters):
    slots = slots_of(parameters)
    grad, norms = reduced(slots)
    for results in summed(Wires(nodes), slots):
        assert results == [(grad.tobytes(), norms.tobytes())]


@pytest.mark.parametrize("eager_bytes", [0, 64 << 20])
@pytest.mark.parametrize("nodes", [2, 5])
def test_messages_that_come_late_and_are_taken_early_or_late_change_nothing(nodes, eager_bytes):
    slots = slots_of(LARGE[-1])
    expected = [values.tobytes() for values in reduced(slots)]
    rng = random.Random(3)
    wires = Wires(nodes, lambda source, to, tag: rng.choice([0.0, 0.002, 0.02]), eager_bytes)
    for results in summed(wires, slots, rounds=2):
        assert results == [tuple(expected)] * 2


def test_one_slow_node_delays_the_others_and_changes_nothing(rng):
    slots = slots_of(LARGE[0])
    expected = tuple(values.tobytes() for values in reduced(slots))
    wires = Wires(3, lambda source, to, tag: 0.01 if source == 2 else 0.0, eager_bytes=0)
    assert summed(wires, slots) == [[expected]] * 3


def test_the_tags_of_the_largest_model_are_tags_of_every_mpi():
    """MPI has to have tags up to 32767."""
    most_chunks = array_sum.MOST_FLOATS // CHUNK_FLOATS
    assert array_sum._WHOLE < array_sum._PART
    assert array_sum._PART + most_chunks <= array_sum._SUM
    assert array_sum._SUM + most_chunks <= 1 << 15
    assert array_sum.MOST_FLOATS > 2e9
