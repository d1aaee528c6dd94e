"""Single sequences have the bits of the step that they are part of, and the one that spoils it is found."""

from types import SimpleNamespace

import numpy as np
import pytest

from feste_dp.data.order import train_offsets
from feste_dp.data.preparation import prepare_for_run
from feste_dp.model.parameters import initial_params, layout, parameter_count, view_params
from feste_dp.runtime.arena import create_arena
from feste_dp.runtime.shard_computer import ShardComputer, ShardSpec
from feste_dp.runtime.slots import ShardBlock
from feste_dp.train import nonfinite, sequence_probe
from feste_dp.train.nonfinite import all_finite, explain_own, explain_sum, first_bad_tensor, is_usable
from feste_dp.train.sequence_probe import SequenceProbe

STEP = 3


@pytest.fixture(scope="module")
def make_place(runs):
    """A step in this process: config, data, arena, offsets, and what computes its shards."""

    def make(**changes):
        config = runs.config(model__vocab_size=256, **changes)
        train, block = config.train, config.model.block_size
        data = prepare_for_run(config.data.corpus, 256, config.data.val_fraction, block, runs.cache)
        arena = create_arena(parameter_count(config.model), train.shards)
        arena.params[:] = initial_params(config.model, 1)
        spec = ShardSpec.of(config, ShardBlock(0, train.shards))
        offsets = train_offsets(train.seed, STEP, train.batch_size, len(data.train), block)
        return SimpleNamespace(
            config=config,
            data=data,
            arena=arena,
            offsets=offsets,
            computer=ShardComputer(spec, arena, data),
            block=spec.block,
            shards_per_slot=1,
        )

    return make


def compute_all(place):
    """Every slot; the loss sums of the shards."""
    with np.errstate(all="ignore"):
        return [
            place.computer.shard(STEP, shard, place.shards_per_slot)
            for shard in range(place.config.train.shards)
        ]


def explained(place, losses):
    place.computer.stripe(0, len(place.arena.norms), len(losses) // place.shards_per_slot)
    own = explain_own(place.config, place.data, place, STEP, losses)
    return own or explain_sum(place.arena.grad)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("micro_batch", [1, 2, 4])
def test_every_position_of_every_sequence_has_the_loss_it_had_in_its_micro_batch(
    micro_batch, precision, make_place
):
    place = make_place(train__micro_batch=micro_batch, train__shards=4, train__precision=precision)
    gradient = np.empty_like(place.arena.params)
    probe = SequenceProbe(place.config, place.data, place.arena.params, gradient)
    for shard in range(4):
        sequences = range(4 * shard, 4 * shard + 4)
        place.computer.shard(STEP, shard)
        last = place.computer._workspace.a.losses  # of the shard's last micro-batch
        for row, number in enumerate(sequences[-micro_batch:]):
            found = probe.compute(STEP, number)
            assert found.losses.tobytes() == last[row].tobytes()
            assert found.loss == found.losses.astype(np.float64).mean() and found.origin is None


def test_a_shard_of_one_sequence_has_that_sequences_gradient_to_the_last_bit(make_place):
    place = make_place(train__batch_size=8)
    compute_all(place)
    probe = SequenceProbe(place.config, place.data, place.arena.params, np.empty_like(place.arena.params))
    for number in (0, 5):
        probe.compute(STEP, number)
        assert probe.gradient.tobytes() == place.arena.slots[number].tobytes()


def test_the_gradients_of_a_shards_sequences_add_up_to_the_shards(make_place):
    place = make_place(train__micro_batch=2)
    compute_all(place)
    probe = SequenceProbe(place.config, place.data, place.arena.params, np.empty_like(place.arena.params))
    total = np.zeros(len(place.arena.params))
    for number in (6, 7):
        probe.compute(STEP, number)
        total += probe.gradient
    largest = np.abs(place.arena.slots[3]).max()
    assert np.abs(total - place.arena.slots[3]).max() < 1e-6 * largest


@pytest.mark.parametrize("micro_batch", [1, 2])
def test_the_sequence_with_the_token_that_spoils_it_is_named(micro_batch, make_place):
    place = make_place(train__micro_batch=micro_batch, model__tie_embeddings=False)
    block = place.config.model.block_size
    seen = [place.data.train[offset : offset + block].tolist() for offset in place.offsets]
    number, token = next(
        (number, token)
        for number in range(3, 16)
        for token in sorted(seen[number])
        if not any(token in other for other in seen[:number])
    )
    view_params(place.arena.params, place.config.model).wte[token] = np.inf
    offset = int(place.offsets[number])
    assert explained(place, compute_all(place)) == (
        f"shard {number // 2} has a NaN or infinity in the gradient of wte, from sequence {number} of the "
        f"batch (token {offset} of the training text): the forward pass has it first in the embeddings, at "
        f"token {offset + seen[number].index(token)}"
    )


@pytest.mark.parametrize(
    ("name", "origin"),
    [
        ("wpe", "the embeddings"),
        ("attn_qkv_b", "attn_qkv of layer 1"),
        ("attn_proj_b", "attn_proj of layer 1"),
        ("mlp_fc_b", "mlp_fc of layer 1"),
        ("mlp_proj_b", "mlp_proj of layer 1"),
        ("ln_f_b", "ln_f"),
        ("lm_head_w", "the output head"),
    ],
)
def test_the_first_value_of_the_forward_pass_that_is_not_finite_is_named(name, origin, make_place):
    place = make_place(model__tie_embeddings=False)
    tensor = getattr(view_params(place.arena.params, place.config.model), name)
    tensor[-1] = np.nan
    probe = SequenceProbe(place.config, place.data, place.arena.params, np.empty_like(place.arena.params))
    assert probe.compute(STEP, 0).origin == origin


def test_what_overflows_only_on_the_way_back_is_said_to(make_place):
    place = make_place(
        model__tie_embeddings=False, model__block_size=4, train__batch_size=1, train__shards=1, run__workers=1
    )
    params = view_params(place.arena.params, place.config.model)
    # the final layer norm scales to nothing what the output head scales up; the gradient of its weight is
    # the head's size times the layer norm's input, which is +1 or -1 everywhere
    place.arena.params[:] = 0
    params.wpe[:, 0::2], params.wpe[:, 1::2] = 1, -1
    params.ln_f_w[:] = 1e-38
    params.lm_head_w[:] = -2e38
    targets = place.data.train[place.offsets[0] + 1 : place.offsets[0] + 5]
    params.lm_head_w[targets] = 2e38
    losses = compute_all(place)
    assert np.isfinite(losses).all()
    text = explained(place, losses)
    assert text.startswith("shard 0 has a NaN or infinity in the gradient of ")
    assert "from sequence 0 of the batch" in text
    assert "it arises in the backward pass, first bad tensor " in text


def test_a_fault_that_does_not_come_again_points_at_the_machine(make_place):
    place = make_place()
    losses = compute_all(place)
    place.arena.slots[5, 3] = np.nan
    assert explained(place, losses) == (
        "shard 5 has a NaN or infinity in the gradient of wte, though computed again it is finite: suspect "
        "this machine's memory or processor"
    )


def test_finite_sequences_whose_sum_overflows_are_not_blamed_one_by_one(make_place, monkeypatch):
    place = make_place()
    losses = compute_all(place)
    place.arena.slots[5] = np.inf
    real = SequenceProbe.compute

    def huge(probe, step, number):
        found = real(probe, step, number)
        probe.gradient[:] = 3e38
        return found

    monkeypatch.setattr(SequenceProbe, "compute", huge)
    with np.errstate(over="ignore"):
        assert "from the sum over its sequences, each of which is finite" in explained(place, losses)


def test_without_memory_for_it_the_shard_is_named_and_the_run_may_go_on(make_place, monkeypatch):
    place = make_place()
    losses = compute_all(place)
    place.arena.slots[5] = np.nan
    monkeypatch.setattr(sequence_probe, "available_memory", lambda: 1000)
    assert explained(place, losses).endswith("of wte, with too little memory left to find the sequence")


def test_the_first_bad_tensor_is_found_wherever_it_is(make_place):
    model = make_place().config.model
    for tensor in layout(model):
        flat = np.zeros(parameter_count(model), np.float32)
        assert all_finite(flat) and first_bad_tensor(flat, model) is None
        flat[tensor.stop - 1] = -np.inf
        assert not all_finite(flat) and first_bad_tensor(flat, model) == tensor.name


def test_a_gradient_can_be_used_when_its_squares_stay_in_float32():
    assert is_usable(4.0, 1e30, clip_norm=1.0) and is_usable(4.0, 1e19, clip_norm=0)
    assert not is_usable(4.0, 2e19, clip_norm=0)
    for loss, norm in ((np.nan, 1.0), (np.inf, 1.0), (4.0, np.nan), (4.0, np.inf)):
        assert not is_usable(loss, norm, clip_norm=1.0)
    assert np.isfinite(np.float32(nonfinite.NORM_LIMIT) ** 2)
