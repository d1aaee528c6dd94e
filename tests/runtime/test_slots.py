"""How shards share slots: the rule, and that it changes no bit, also when workers are lost or come."""

import math
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feste_dp.errors import RunError
from feste_dp.model.parameters import initial_params
from feste_dp.runtime import slots
from feste_dp.runtime.coordinator import Coordinator
from feste_dp.runtime.faults import FAULT_VARIABLE
from feste_dp.runtime.ledger import Ledger, split_range
from feste_dp.runtime.slots import ShardBlock, partial_sums, shards_per_slot, slot_count


@pytest.mark.parametrize(
    ("shards", "workers", "per_slot", "buffers"),
    [
        (1, 1, 1, 1),
        (8, 2, 1, 8),
        (8, 8, 1, 8),
        (16, 2, 2, 8 + 2),
        (64, 2, 8, 8 + 2 * 3),
        (256, 2, 32, 8 + 2 * 5),
        (256, 8, 32, 8 + 8 * 5),
        (256, 16, 16, 16 + 16 * 4),
        (256, 3, 2, 128 + 3),
        (256, 256, 1, 256),
    ],
)
def test_memory_grows_with_the_workers_and_the_depth_of_the_tree(shards, workers, per_slot, buffers):
    assert shards_per_slot(shards, workers) == per_slot
    assert slot_count(shards, workers) + workers * partial_sums(per_slot) == buffers


@given(st.integers(0, 8), st.integers(1, 256))
def test_nobody_gets_more_to_do_than_if_single_shards_were_dealt_out(power, workers):
    shards = 2**power
    workers = min(workers, shards)
    per_slot = shards_per_slot(shards, workers)
    assert shards % per_slot == 0
    most = max(stop - first for first, stop in split_range(shards // per_slot, workers)) * per_slot
    assert most == math.ceil(shards / workers)


def test_a_worker_is_lost_at_the_item_that_it_left_word_of_if_it_held_that():
    ledger = Ledger(8)
    ledger.deal([0, 1], 2)
    assert [ledger.unfinished(1, item) for item in (-1, 3, 4, 6, 7, 8)] == [4, 4, 4, 6, 7, 4]
    assert ledger.done(1, 4, 6, [1.0, 1.0])
    assert ledger.unfinished(1, 4) == 6 and ledger.unfinished(2, 4) is None


@given(st.data())
def test_what_a_lost_worker_leaves_is_done_again_in_whole_slots(data):
    together = data.draw(st.sampled_from([1, 2, 4]))
    count = together * data.draw(st.integers(1, 12))
    ledger, alive, following, at = Ledger(count, together), [0, 1, 2], 3, {}
    for _ in range(400):
        if ledger.complete:
            break
        for worker, (first, stop) in ledger.deal([w for w in alive if not ledger.holds(w)], 3).items():
            assert first % together == stop % together == 0
            at[worker] = first
        busy = [worker for worker in alive if ledger.holds(worker)]
        worker = data.draw(st.sampled_from(busy))
        assert ledger.unfinished(worker) == at[worker]
        if data.draw(st.integers(0, 3)):
            assert ledger.done(worker, at[worker], at[worker] + 1, [float(at[worker])], 0.1)
            at[worker] += 1
        else:
            again = ledger.release(worker)
            assert again[0][0] == at[worker] - at[worker] % together
            assert all(first % together == stop % together == 0 for first, stop in again)
            alive[alive.index(worker)] = following
            following += 1
    for _ in range(count * 2):  # whatever is left, undisturbed
        for worker, run in ledger.deal([w for w in alive if not ledger.holds(w)], 3).items():
            at[worker] = run[0]
        for worker in alive:
            if ledger.holds(worker):
                ledger.done(worker, at[worker], at[worker] + 1, [float(at[worker])], 0.1)
                at[worker] += 1
    assert ledger.complete and ledger.losses() == [float(item) for item in range(count)]


@pytest.fixture
def start(make_config, token_data, compiled):
    running = []

    def started(workers, faults="", block=None):
        environ = os.environ | {FAULT_VARIABLE: faults}
        made = Coordinator(make_config(), workers, token_data.directory, environ, block=block)
        running.append(made)
        made.arena.params[:] = initial_params(make_config().model, 1)
        made.start()
        return made

    yield started
    for coordinator in running:
        coordinator.close(at_once=True)


def numbers(coordinator, step):
    losses = coordinator.gradient(step).shard_losses
    return losses, coordinator.arena.grad.tobytes(), coordinator.arena.norms.tobytes()


@pytest.fixture(scope="module")
def a_slot_each(make_config, token_data, compiled):
    """Three steps, a slot for every shard."""
    with Coordinator(make_config(), 2, token_data.directory, os.environ) as coordinator:
        coordinator.arena.params[:] = initial_params(make_config().model, 1)
        coordinator.start()
        assert coordinator.shards_per_slot == 1
        return [numbers(coordinator, step) for step in (1, 2, 3)]


def test_a_run_with_few_slots_has_the_same_bits_whoever_is_lost_and_whoever_comes(
    start, a_slot_each, monkeypatch
):
    monkeypatch.setattr(slots, "MIN_SLOTS", 1)
    coordinator = start(2, faults="worker1:step1:shard6:kill,worker0:step2:computed:kill")
    assert (
        coordinator.shards_per_slot == 4 and coordinator.arena.reserved_bytes < coordinator.arena.slots.nbytes
    )
    assert [numbers(coordinator, step) for step in (1, 2)] == a_slot_each[:2]
    coordinator.resize(4)  # which takes two slots more
    assert coordinator.shards_per_slot == 2
    assert numbers(coordinator, 3) == a_slot_each[2]
    coordinator.resize(1)
    assert coordinator.shards_per_slot == 8
    assert numbers(coordinator, 1) == a_slot_each[0]


def test_more_slots_that_find_no_memory_leave_the_workers_as_they_are(start, a_slot_each, monkeypatch):
    monkeypatch.setattr(slots, "MIN_SLOTS", 1)
    coordinator = start(1)

    def full(count):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(coordinator.arena, "reserve_slots", full)
    with pytest.raises(RunError, match="no memory for 2 gradient slots: No space left on device"):
        coordinator.resize(2)
    assert coordinator.workers == 1 and numbers(coordinator, 2) == a_slot_each[1]


def test_two_blocks_of_shards_add_up_to_the_whole(start, a_slot_each):
    first, second = start(1, block=ShardBlock(0, 4)), start(1, block=ShardBlock(4, 4))
    for step in (1, 2, 3):
        losses = first.gradient(step).shard_losses + second.gradient(step).shard_losses
        total = first.arena.grad + second.arena.grad
        assert (losses, total.tobytes()) == a_slot_each[step - 1][:2]
        assert np.isfinite(total).all()
