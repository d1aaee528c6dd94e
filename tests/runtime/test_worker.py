import os
import subprocess

import numpy as np
import pytest

from feste_dp.data.order import Spacing, train_offsets
from feste_dp.kernels.reduction import NORM_CHUNK, chunk_norms
from feste_dp.model.gpt2 import micro_batch_gradient, micro_batch_loss
from feste_dp.model.parameters import initial_params, parameter_count, view_params
from feste_dp.model.workspace import make_workspace
from feste_dp.runtime.arena import create_arena
from feste_dp.runtime.child_process import child_command, child_environment
from feste_dp.runtime.shard_computer import ShardComputer, ShardSpec
from feste_dp.runtime.slots import ShardBlock
from feste_dp.runtime.worker import WorkerSpec

STEP, SHARD = 4, 5
SPACING = Spacing(span=45, gaps=2)


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def spec(request, make_config):
    config = make_config()
    return ShardSpec(
        model=config.model,
        shards=8,
        block=ShardBlock(0, 8),
        sequences_per_shard=2,
        micro_batch=1,
        seed=config.train.seed,
        precision=request.param,
    )


def workspace_of(spec):
    return make_workspace(spec.model, 1, spec.model.block_size, bf16=spec.precision == "bf16")


@pytest.fixture
def arena(spec):
    arena = create_arena(parameter_count(spec.model), spec.shards)
    arena.params[:] = initial_params(spec.model, 1)
    yield arena
    os.close(arena.fd)


def rows(tokens, offset, block):
    return (
        tokens[None, offset : offset + block].astype(np.int32),
        tokens[None, offset + 1 : offset + block + 1].astype(np.int32),
    )


@pytest.fixture
def told(spec):
    return WorkerSpec(
        worker=0,
        life=0,
        coordinator_pid=1,
        endpoint="ipc:///nowhere",
        token=b"0123456789abcdef",
        arena_fd=3,
        bell_fd=4,
        shard=spec,
        data_directory="/nowhere",
        tokens=None,
        cpu=None,
        listen_s=0.0,
    )


def test_what_a_worker_is_told_survives_the_way_to_it(told):
    assert WorkerSpec.model_validate_json(told.model_dump_json()) == told


def test_a_slot_is_the_gradient_of_its_sequences_over_the_token_count_of_the_batch(spec, arena, token_data):
    arena.slots[SHARD] = np.nan  # what an earlier step, or another worker, left there
    loss = ShardComputer(spec, arena, token_data).shard(STEP, SHARD)
    expected, workspace = np.zeros_like(arena.params), workspace_of(spec)
    total = 0.0
    block, size = spec.model.block_size, spec.sequences_per_shard
    batch = train_offsets(spec.seed, STEP, spec.shards * size, len(token_data.train), block)
    for place in range(SHARD * size, (SHARD + 1) * size):
        total += micro_batch_gradient(
            view_params(expected, spec.model),
            workspace,
            view_params(arena.params, spec.model),
            *rows(token_data.train, batch[place], block),
            1 / (8 * 2 * spec.model.block_size),
            spec.model.n_head,
            spec.model.dropout,
            (np.uint64(spec.seed), STEP, np.array([place])),
            True,
        )
    assert loss == total
    assert arena.slots[SHARD].tobytes() == expected.tobytes()
    others = np.delete(arena.slots, SHARD, axis=0)
    assert not others.any()


def test_a_shard_computed_twice_overwrites_its_slot_with_the_same_bits(spec, arena, token_data):
    first, second = (ShardComputer(spec, arena, token_data) for _ in range(2))
    loss = first.shard(STEP, SHARD)
    once = arena.slots[SHARD].tobytes()
    first.shard(STEP, 0)  # other work between leaves no trace
    assert second.shard(STEP, SHARD) == first.shard(STEP, SHARD) == loss
    assert arena.slots[SHARD].tobytes() == once


def test_bfloat16_is_used_where_the_spec_asks_for_it_and_nowhere_else(spec, arena, token_data):
    losses = {}
    for precision in ("fp32", spec.precision):
        computer = ShardComputer(spec.model_copy(update={"precision": precision}), arena, token_data)
        losses[precision] = computer.shard(STEP, SHARD), computer.validation_unit(STEP, 3, SPACING)
    for one, other in zip(losses["fp32"], losses[spec.precision], strict=True):
        assert (one == other) == (spec.precision == "fp32")
        assert one == pytest.approx(other, rel=1e-3)


def test_step_and_place_decide_the_dropout_masks(spec, arena, token_data):
    computer = ShardComputer(spec, arena, token_data)
    losses = {
        computer.shard(STEP, SHARD),
        computer.shard(STEP + 1, SHARD),
        computer.shard(STEP, SHARD + 1),
    }
    assert len(losses) == 3


def test_micro_batches_of_two_give_the_same_loss_as_of_one_but_for_rounding(spec, arena, token_data):
    one = ShardComputer(spec, arena, token_data).shard(STEP, SHARD)
    gradient = arena.slots[SHARD].copy()
    two = ShardComputer(spec.model_copy(update={"micro_batch": 2}), arena, token_data)
    assert two.shard(STEP, SHARD) == pytest.approx(one, rel=1e-6)
    np.testing.assert_allclose(arena.slots[SHARD], gradient, rtol=1e-4, atol=1e-7)


def test_validation_reads_the_held_out_tokens_without_dropout_and_writes_nothing(spec, arena, token_data):
    computer = ShardComputer(spec, arena, token_data)
    loss = computer.validation_unit(STEP, 3, SPACING)
    workspace = workspace_of(spec)
    params = view_params(arena.params, spec.model)
    expected = 0.0
    for offset in (135, 157):  # sequences 6 and 7
        row = rows(token_data.val, offset, spec.model.block_size)
        expected += micro_batch_loss(
            workspace, params, *row, spec.model.n_head, (np.uint64(0), 0, np.zeros(1, np.int64))
        )
    assert loss == expected
    assert not arena.slots.any() and not arena.grad.any()


def test_stripes_that_several_workers_sum_are_the_sum_of_one(spec, arena, token_data, rng):
    computer = ShardComputer(spec, arena, token_data)
    arena.slots[:] = rng.standard_normal(arena.slots.shape, dtype=np.float32)
    chunks = len(arena.norms)
    assert chunks == -(-len(arena.params) // NORM_CHUNK) > 1
    computer.stripe(0, chunks, 8)
    grad, norms = arena.grad.tobytes(), arena.norms.tobytes()
    arena.grad[:], arena.norms[:] = np.nan, np.nan
    for chunk in reversed(range(chunks)):
        computer.stripe(chunk, chunk + 1, 8)
    assert (arena.grad.tobytes(), arena.norms.tobytes()) == (grad, norms)
    pairs = arena.slots[0::2] + arena.slots[1::2]
    tree = (pairs[0] + pairs[1]) + (pairs[2] + pairs[3])
    assert arena.grad.tobytes() == tree.tobytes()


@pytest.mark.parametrize("per_slot", [2, 4, 8])
def test_shards_that_share_a_slot_are_added_up_in_the_tree_s_order(spec, arena, token_data, per_slot):
    computer = ShardComputer(spec, arena, token_data)
    losses = [computer.shard(STEP, shard) for shard in range(8)]
    computer.stripe(0, len(arena.norms), 8)
    alone = arena.slots.copy(), arena.grad.tobytes(), arena.norms.tobytes()
    arena.slots[:] = np.nan
    slots = range(8 // per_slot)
    for slot in [1, *slots] if len(slots) > 1 else slots:  # one twice, and not in order
        for shard in range(slot * per_slot, (slot + 1) * per_slot):
            assert computer.shard(STEP, shard, per_slot) == losses[shard]
    computer.stripe(0, len(arena.norms), len(slots))
    assert (arena.grad.tobytes(), arena.norms.tobytes()) == alone[1:]
    assert np.isnan(arena.slots[len(slots) :]).all()  # untouched
    assert len(computer._buffers) == per_slot.bit_length() - 1


def test_what_was_begun_of_a_slot_leaves_no_trace_when_it_is_begun_again(spec, arena, token_data):
    computer = ShardComputer(spec, arena, token_data)
    for shard in (0, 1, 2, 3, 0, 1, 2, 4, 5, 6, 7, 0, 1, 2, 3):
        computer.shard(STEP, shard, 4)
    found = arena.slots[:2].copy()
    for shard in range(8):
        ShardComputer(spec, arena, token_data).shard(STEP, shard)
    pairs = arena.slots[0::2] + arena.slots[1::2]
    assert found.tobytes() == (pairs[0::2] + pairs[1::2]).tobytes()


def test_the_norms_after_an_exchange_are_those_of_the_reduction(spec, arena, token_data, rng):
    arena.slots[:] = rng.standard_normal(arena.slots.shape, dtype=np.float32)
    ShardComputer(spec, arena, token_data).stripe(0, len(arena.norms), 8)
    grad, norms = arena.grad.tobytes(), arena.norms.tobytes()
    arena.norms[:] = np.nan
    chunk_norms(arena.grad, arena.norms)
    assert (arena.grad.tobytes(), arena.norms.tobytes()) == (grad, norms)


def test_a_worker_whose_coordinator_is_not_its_parent_ends_at_once(told):
    command = child_command("feste_dp.runtime.worker_boot")
    command[command.index(str(os.getpid()))] = "1"
    done = subprocess.run(
        command,
        env=child_environment(os.environ),
        input=told.model_dump_json().encode(),
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")


def test_a_worker_that_is_told_nothing_ends_in_silence():
    done = subprocess.run(
        child_command("feste_dp.runtime.worker_boot"),
        env=child_environment(os.environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")
