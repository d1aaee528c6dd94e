import math

import numpy as np
import pytest
import torch

from feste_dp.kernels.adamw import adamw
from feste_dp.kernels.dropout import dropout_residual_forward
from feste_dp.kernels.reduction import chunk_count, make_tree, reduce_slots
from feste_dp.model.gpt2 import micro_batch_gradient
from feste_dp.model.parameters import DECAYED, decayed_count, initial_params, layout, view_params
from feste_dp.model.workspace import make_workspace
from tests.model.random_models import draw_for, mean_loss_and_gradient, model_config, random_case
from tests.model.torch_gpt2 import torch_loss, torch_weights

# config, sequences, positions
CASES = {
    "tiny": (model_config(512, 64, 2, 1, 64, False), 2, 64),
    "tied, several heads": (model_config(300, 40, 2, 4, 32, True), 3, 40),
    "odd sizes, three heads": (model_config(259, 37, 3, 3, 30, False), 2, 37),
    "odd sizes, tied": (model_config(257, 19, 1, 5, 35, True), 1, 19),
    "shorter than its block": (model_config(259, 100, 2, 2, 18, True), 2, 71),
    "one position": (model_config(256, 8, 2, 2, 6, False), 3, 1),
    "heads of one channel, one layer": (model_config(256, 5, 1, 8, 8, False), 1, 5),
    "an MLP of a width of its own": (model_config(259, 23, 2, 3, 30, True, n_inner=77), 2, 23),
    "two tiles of attention": (model_config(261, 140, 1, 3, 21, False), 1, 140),
}

FLOAT64_TOLERANCE = 1e-9

# Of the largest element of each gradient tensor. Each passes through some 20 layers of sums of up to 300
# terms, each with a handful of roundings of 2^-24 that mostly cancel (measured: 1e-6).
FLOAT32_TOLERANCE = 1e-5

# Losses of two float32 programs that round differently may drift apart by a few roundings a step.
CURVE_TOLERANCE = 1e-4


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """PyTorch's threads wait by spinning, which is slow where the cores are busy with other tests."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def assert_tensors_match(cfg, gradient, weights, tolerance):
    """Every gradient tensor, by name, against autograd's."""
    for tensor in layout(cfg):
        expected = weights[tensor.name].grad.numpy()
        got = gradient[tensor.start : tensor.stop].reshape(tensor.shape)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * scale, err_msg=tensor.name)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(np.float64, FLOAT64_TOLERANCE), (np.float32, FLOAT32_TOLERANCE)]
)
def test_loss_and_every_gradient_tensor_equal_autograds(name, dtype, tolerance, rng):
    cfg, sequences, positions = CASES[name]
    case = random_case(cfg, sequences, positions, rng, dtype)
    loss, gradient = mean_loss_and_gradient(case)

    weights = torch_weights(case.flat.astype(np.float64), cfg)
    expected = torch_loss(weights, cfg, case.tokens, case.targets)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=tolerance)
    assert_tensors_match(cfg, gradient, weights, tolerance)


def test_gradients_with_dropout_equal_autograds_with_the_same_masks(rng):
    probability = 0.2
    cfg = model_config(259, 23, 2, 3, 30, True)
    case = random_case(cfg, 3, 17, rng)
    draw = draw_for(3)
    loss, gradient = mean_loss_and_gradient(case, probability, draw)

    masks = np.zeros((2 * cfg.n_layer, 3, 17, cfg.n_embd))
    ones, scratch = np.ones(masks.shape[1:]), np.zeros(cfg.n_embd + 3)
    for site, mask in enumerate(masks):
        dropout_residual_forward(mask, np.zeros_like(ones), ones, scratch, probability, *draw, site)
    assert 0.15 < (masks == 0).mean() < 0.25

    weights = torch_weights(case.flat, cfg)
    expected = torch_loss(weights, cfg, case.tokens, case.targets, masks)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=FLOAT64_TOLERANCE)
    assert_tensors_match(cfg, gradient, weights, FLOAT64_TOLERANCE)


def learnable_batches(cfg, steps, sequences, positions, rng):
    """Text in which a token nearly determines the next one: the loss has somewhere to go."""
    following = rng.permutation(cfg.vocab_size)
    for _ in range(steps):
        text = rng.integers(0, cfg.vocab_size, (sequences, positions + 1))
        for t in range(positions):
            known = rng.random(sequences) < 0.9
            text[known, t + 1] = following[text[known, t]]
        yield np.ascontiguousarray(text[:, :-1], np.int32), np.ascontiguousarray(text[:, 1:], np.int32)


SHARDS, MICRO_BATCH, SEQUENCES, POSITIONS = 4, 1, 8, 64
BETAS, EPS, DECAY = (0.9, 0.98), 1e-8, 0.1
LEARNING_RATES = [3e-3 * min(1, (step + 1) / 5) * (1 - step / 25) for step in range(20)]


def train_with_kernels(cfg, batches, clip_norm):
    """Losses and gradient norms of a run in shards, micro-batches, tree reduction, clip and AdamW."""
    flat = initial_params(cfg, 7)
    m, v, grad = np.zeros_like(flat), np.zeros_like(flat), np.zeros_like(flat)
    slots, norms = np.zeros((SHARDS, flat.size), np.float32), np.zeros(chunk_count(flat.size))
    workspace, tree = make_workspace(cfg, MICRO_BATCH, POSITIONS), make_tree(SHARDS)
    split = decayed_count(cfg)
    for step, (lr, (tokens, targets)) in enumerate(zip(LEARNING_RATES, batches, strict=True), start=1):
        slots[:] = np.nan  # the first micro-batch of each shard overwrites
        loss = 0.0
        for first in range(0, SEQUENCES, MICRO_BATCH):
            rows = slice(first, first + MICRO_BATCH)
            loss += micro_batch_gradient(
                view_params(slots[first * SHARDS // SEQUENCES], cfg),
                workspace,
                view_params(flat, cfg),
                tokens[rows],
                targets[rows],
                1.0 / tokens.size,
                cfg.n_head,
                0.0,
                (np.uint64(0), step, np.arange(rows.start, rows.stop)),
                first * SHARDS % SEQUENCES > 0,
            )
        reduce_slots(grad, norms, slots, 0, len(norms), tree)
        norm = math.sqrt(norms.sum())
        clip = min(1.0, clip_norm / norm)
        for start, stop, decay in ((0, split, DECAY), (split, flat.size, 0.0)):
            adamw(flat, m, v, grad, start, stop, clip, lr, *BETAS, EPS, decay, step)
        yield loss / tokens.size, norm


def train_with_torch(cfg, batches, clip_norm):
    weights = torch_weights(initial_params(cfg, 7), cfg)
    groups = [
        {"params": [weights[name] for name in weights if name in DECAYED], "weight_decay": DECAY},
        {"params": [weights[name] for name in weights if name not in DECAYED], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=BETAS, eps=EPS)
    for lr, (tokens, targets) in zip(LEARNING_RATES, batches, strict=True):
        optimizer.zero_grad()
        loss = torch_loss(weights, cfg, tokens, targets)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(weights.values(), clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        yield loss.item(), norm.item()


# each norm in the midst of the run's own, so that some steps are clipped and some are not
@pytest.mark.parametrize(("tied", "clip_norm"), [(False, 0.49), (True, 1.0)])
def test_twenty_steps_of_training_follow_torch(tied, clip_norm, rng):
    cfg = model_config(512, POSITIONS, 2, 2, 64, tied)
    batches = list(learnable_batches(cfg, 20, SEQUENCES, POSITIONS, rng))
    ours = np.array(list(train_with_kernels(cfg, batches, clip_norm)))
    theirs = np.array(list(train_with_torch(cfg, batches, clip_norm)))
    np.testing.assert_allclose(ours[:, 0], theirs[:, 0], rtol=0, atol=CURVE_TOLERANCE)
    np.testing.assert_allclose(ours[:, 1], theirs[:, 1], rtol=1e-3)
    # the run learns, and clipping and no clipping both occur
    assert theirs[-1, 0] < theirs[0, 0] - 0.3
    assert theirs[:, 1].min() < clip_norm < theirs[:, 1].max()
