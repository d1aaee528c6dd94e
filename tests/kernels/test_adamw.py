import numpy as np
import pytest
import torch

from feste_dp.kernels.adamw import adamw

SIZE = 1003
BETAS, EPS = (0.9, 0.98), 1e-8
LEARNING_RATES = [1e-3, 2e-3, 3e-3, 2e-3, 1e-3, 5e-4]

# A step changes a weight by about lr, with some five roundings of 2^-24 of it, and rounds the weight, of
# order one, once or twice: 2^-23 a step, six steps.
TOLERANCE = 1e-6


def update(params, m, v, grad, lr, step, *, decay=0.0, clip=1.0, ranges=((0, SIZE),)):
    for start, stop in ranges:
        adamw(params, m, v, grad, start, stop, clip, lr, *BETAS, EPS, decay, step)


def random_run(rng):
    params = rng.standard_normal(SIZE).astype(np.float32)
    sizes = np.exp2(rng.integers(-20, 5, SIZE)).astype(np.float32)
    gradients = [rng.standard_normal(SIZE).astype(np.float32) * sizes for _ in LEARNING_RATES]
    return params, gradients


@pytest.mark.parametrize("decay", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("clip", [1.0, 0.37])
def test_several_steps_follow_torch(decay, clip, rng):
    params, gradients = random_run(rng)
    m, v = np.zeros_like(params), np.zeros_like(params)
    weights = torch.tensor(params, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.AdamW([weights], lr=1.0, betas=BETAS, eps=EPS, weight_decay=decay)
    for step, (lr, grad) in enumerate(zip(LEARNING_RATES, gradients, strict=True), start=1):
        update(params, m, v, grad, lr, step, decay=decay, clip=clip)
        optimizer.param_groups[0]["lr"] = lr
        weights.grad = torch.tensor(grad.astype(np.float64) * clip)
        optimizer.step()
        np.testing.assert_allclose(params, weights.detach().numpy(), rtol=0, atol=TOLERANCE)
    state = optimizer.state[weights]
    for ours, theirs in ((m, state["exp_avg"]), (v, state["exp_avg_sq"])):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-12)


def test_the_first_step_moves_by_the_learning_rate_against_the_gradient(rng):
    params, (grad, *_) = random_run(rng)
    before, m, v = params.copy(), np.zeros_like(params), np.zeros_like(params)
    update(params, m, v, grad, 0.01, 1)
    large = np.abs(grad) > 1e-4
    np.testing.assert_allclose(params[large], before[large] - 0.01 * np.sign(grad[large]), rtol=0, atol=2e-6)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_any_cut_into_ranges_gives_the_same_bits(decay, rng):
    cuts = {
        "whole": ((0, SIZE),),
        "halves": ((0, 501), (501, SIZE)),
        "backwards": ((640, SIZE), (64, 640), (0, 64)),
        "ragged": ((0, 1), (1, 18), (18, 19), (19, 300), (300, 333), (333, SIZE)),
        "single": tuple((i, i + 1) for i in range(SIZE)),
    }
    start, gradients = random_run(rng)
    results = {}
    for name, ranges in cuts.items():
        state = [start.copy(), np.zeros_like(start), np.zeros_like(start)]
        for step, (lr, grad) in enumerate(zip(LEARNING_RATES, gradients, strict=True), start=1):
            update(*state, grad, lr, step, decay=decay, clip=0.7, ranges=ranges)
        results[name] = np.concatenate(state).view(np.uint32)
    for name, bits in results.items():
        np.testing.assert_array_equal(bits, results["whole"], err_msg=name)


def test_nothing_outside_of_the_range_changes(rng):
    params, (grad, *_) = random_run(rng)
    state = [params.copy(), np.ones_like(params), np.ones_like(params)]
    before = [array.copy() for array in state]
    update(*state, grad, 0.1, 1, decay=0.1, ranges=((100, 200),))
    for array, old in zip(state, before, strict=True):
        changed = np.flatnonzero(array != old)
        assert changed.min() == 100 and changed.max() == 199


def test_decay_shrinks_a_weight_without_gradient():
    params, zeros = np.full(SIZE, 2, np.float32), np.zeros(SIZE, np.float32)
    update(params, zeros.copy(), zeros.copy(), zeros, 0.5, 1, decay=0.1)
    np.testing.assert_array_equal(params, np.float32(1.9))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [3, 500, 992, SIZE - 1])
def test_a_weight_that_is_not_finite_is_found_where_it_is_looked_for(rng, bad, place):
    params, (grad, *_) = random_run(rng)
    state = [params, np.zeros_like(params), np.zeros_like(params)]
    rest = (1.0, 0.1, *BETAS, EPS, 0.0, 1)
    assert adamw(*state, grad, 0, SIZE, *rest)
    params[place] = bad
    assert not adamw(*state, grad, 0, SIZE, *rest)
    assert not adamw(*state, grad, place, place + 1, *rest)
    assert adamw(*state, grad, 0, place, *rest) and adamw(*state, grad, place + 1, SIZE, *rest)
    params[place] = np.finfo(np.float32).max
    assert adamw(*state, grad, 0, SIZE, *rest)


def test_an_update_that_overflows_is_found(rng):
    params, (grad, *_) = random_run(rng)
    state = [params, np.zeros_like(params), np.zeros_like(params)]
    assert not adamw(*state, np.full_like(grad, 1.0), 0, SIZE, 1.0, 3e38, 0.0, 0.0, 1e-8, 2.0, 1)


def test_a_nan_gradient_spoils_its_weight_and_no_other(rng):
    params, (grad, *_) = random_run(rng)
    grad[77] = np.nan
    update(params, np.zeros_like(params), np.zeros_like(params), grad, 0.1, 1)
    assert np.flatnonzero(np.isnan(params)).tolist() == [77]
