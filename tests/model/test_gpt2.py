from pathlib import Path

import numpy as np
import pytest

from feste_dp.config.loading import load_config
from feste_dp.model import workspace as workspace_module
from feste_dp.model.gpt2 import micro_batch, micro_batch_gradient, micro_batch_loss
from feste_dp.model.parameters import Parameters, initial_params, layout, view_params
from feste_dp.model.workspace import make_workspace
from tests.kernels.finite_differences import derivative
from tests.kernels.operands import PRECISIONS, both_precisions
from tests.model.random_models import Case, draw_for, mean_loss_and_gradient, model_config, random_case

TIED = model_config(259, 30, 2, 3, 30, True)
UNTIED = model_config(259, 30, 2, 2, 14, False)

both = pytest.mark.parametrize("cfg", [TIED, UNTIED], ids=["tied", "untied"])

# The stencil is off by 1e-12 times the fifth derivative of the loss, which layer norms over 14 channels make
# some dozen times its first (measured: 2e-11).
DIFFERENCE_TOLERANCE = 1e-9


# What rounding the operands of all products to bfloat16 may change, of the norm of each tensor's gradient.
BF16_TOLERANCE = 1e-2


def add_gradient(gradient, case, dropout, draw, dloss=1.0, workspace=None, bf16=False, accumulate=True):
    cfg, flat, tokens, targets = case
    return micro_batch_gradient(
        view_params(gradient, cfg),
        workspace or make_workspace(cfg, *tokens.shape, flat.dtype.type, bf16),
        view_params(flat, cfg),
        tokens,
        targets,
        dloss,
        cfg.n_head,
        dropout,
        draw,
        accumulate,
    )


def sum_of_losses(case, draw, bf16=False):
    cfg, flat, tokens, targets = case
    workspace = make_workspace(cfg, *tokens.shape, flat.dtype.type, bf16)
    return micro_batch_loss(workspace, view_params(flat, cfg), tokens, targets, cfg.n_head, draw)


@both
@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_gradient_equals_finite_differences_with_the_same_draw(cfg, dropout, rng):
    case, draw = random_case(cfg, 2, 11, rng), draw_for(2)
    _, gradient = mean_loss_and_gradient(case, dropout, draw)
    workspace, p = make_workspace(cfg, 2, 11, np.float64), view_params(case.flat, cfg)

    def loss():
        arguments = p, workspace, p, case.tokens, case.targets
        micro_batch(*arguments, 0.0, cfg.n_head, dropout, draw, False, False)
        return float(workspace.a.losses.mean())

    for tensor in layout(cfg):
        part = gradient[tensor.start : tensor.stop]
        largest = int(np.abs(part).argmax())
        for offset in (largest, *rng.integers(0, part.size, 3)):
            expected = derivative(loss, case.flat, (tensor.start + int(offset),))
            assert part[offset] == pytest.approx(expected, rel=0, abs=DIFFERENCE_TOLERANCE), tensor.name


@both
def test_micro_batches_add_up_to_the_gradient_of_the_whole(cfg, rng):
    case = random_case(cfg, 6, 13, rng)
    seed, step, places = draw_for(6)
    whole, parts = np.zeros_like(case.flat), np.full_like(case.flat, np.nan)
    loss = add_gradient(whole, case, 0.2, (seed, step, places), 1 / 78)
    loss_of_parts = 0.0
    for first in (0, 2, 4):
        rows = slice(first, first + 2)
        part = Case(cfg, case.flat, case.tokens[rows], case.targets[rows])
        draw = seed, step, places[rows]
        loss_of_parts += add_gradient(parts, part, 0.2, draw, 1 / 78, accumulate=first > 0)
    assert loss_of_parts == pytest.approx(loss, rel=1e-13)
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-13 * np.abs(whole).max())


@both
def test_gradient_adds_to_what_the_buffer_holds_when_asked_to(cfg, rng):
    case, draw = random_case(cfg, 2, 5, rng), draw_for(2)
    start = rng.standard_normal(case.flat.size)
    gradient, buffer = np.zeros_like(start), start.copy()
    add_gradient(gradient, case, 0.1, draw)
    add_gradient(buffer, case, 0.1, draw)
    np.testing.assert_allclose(buffer - start, gradient, rtol=0, atol=1e-13 * np.abs(gradient).max())


@both
@both_precisions
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_overwriting_gives_the_bits_of_adding_to_zero(cfg, dropout, bf16, rng):
    case, draw = random_case(cfg, 2, 30, rng, np.float32), draw_for(2)
    added, overwritten = np.zeros_like(case.flat), np.full_like(case.flat, np.nan)
    loss = add_gradient(added, case, dropout, draw, bf16=bf16)
    assert loss == add_gradient(overwritten, case, dropout, draw, bf16=bf16, accumulate=False)
    np.testing.assert_array_equal(overwritten, added)


@both
@both_precisions
def test_a_used_workspace_gives_the_bits_of_a_fresh_one(cfg, bf16, rng):
    first = random_case(cfg, 2, 30, rng, np.float32)
    second = random_case(cfg, 2, 30, rng, np.float32)
    workspace = make_workspace(cfg, 2, 30, bf16=bf16)
    fresh, again = np.zeros_like(first.flat), np.zeros_like(first.flat)
    add_gradient(np.zeros_like(first.flat), second, 0.5, draw_for(2, step=9), workspace=workspace)
    loss_again = add_gradient(again, first, 0.1, draw_for(2), workspace=workspace)
    loss_fresh = add_gradient(fresh, first, 0.1, draw_for(2), bf16=bf16)
    assert loss_again == loss_fresh
    np.testing.assert_array_equal(again.view(np.uint32), fresh.view(np.uint32))


@both
def test_nothing_that_a_workspace_holds_at_the_start_is_read(cfg, rng):
    case = random_case(cfg, 2, 30, rng, np.float32)
    for bf16 in PRECISIONS:
        gradients = []
        for start in (0, np.nan):
            workspace = make_workspace(cfg, 2, 30, bf16=bf16)
            arrays = [
                *workspace.a,
                *workspace.da,
                workspace.s.branch,
                workspace.s.mask,
                *workspace.s.attention,
            ]
            for array in (*arrays, workspace.s.pack.a, workspace.s.pack.b, workspace.s.pack.tile):
                array[:] = start
            gradient = np.full_like(case.flat, start)
            add_gradient(gradient, case, 0.1, draw_for(2), workspace=workspace, accumulate=False)
            gradients.append(gradient)
        np.testing.assert_array_equal(*gradients)
        assert np.isfinite(gradients[0]).all()


@both
@both_precisions
def test_the_loss_of_a_sequence_has_the_same_bits_in_any_micro_batch(cfg, bf16, rng):
    # a row of a product depends on its depth alone, everything else on its own row
    case = random_case(cfg, 5, 30, rng, np.float32)
    seed, step, places = draw_for(5)

    def losses(rows):
        part = Case(cfg, case.flat, case.tokens[rows], case.targets[rows])
        workspace = make_workspace(cfg, *part.tokens.shape, bf16=bf16)
        add_gradient(np.zeros_like(case.flat), part, 0.3, (seed, step, places[rows]), workspace=workspace)
        return workspace.a.losses

    together = losses(slice(0, 5))
    for i in range(5):
        np.testing.assert_array_equal(losses(slice(i, i + 1))[0], together[i])


def test_validation_has_dropout_off(rng):
    case = random_case(UNTIED, 2, 20, rng, np.float32)
    loss = sum_of_losses(case, draw_for(2))
    assert loss == sum_of_losses(case, draw_for(2, seed=8))
    assert loss == add_gradient(np.zeros_like(case.flat), case, 0.0, draw_for(2))
    assert loss != add_gradient(np.zeros_like(case.flat), case, 0.1, draw_for(2))


def test_the_loss_is_the_sum_over_all_positions(rng):
    case = random_case(UNTIED, 3, 20, rng, np.float32)
    workspace = make_workspace(UNTIED, 3, 20)
    loss = add_gradient(np.zeros_like(case.flat), case, 0.0, draw_for(3), workspace=workspace)
    assert loss == pytest.approx(workspace.a.losses.sum(dtype=np.float64), rel=1e-13)
    # random weights know nothing: about log(V) for each position
    assert loss / 60 == pytest.approx(np.log(259), abs=1)


@pytest.mark.parametrize("name", Parameters._fields)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@both_precisions
def test_a_weight_that_is_no_number_makes_the_loss_nan(name, bad, bf16, rng):
    case = random_case(UNTIED, 1, 6, rng, np.float32)
    weight = getattr(view_params(case.flat, UNTIED), name)
    place = {"wte": (case.tokens[0, 0],), "lm_head_w": (3,)}.get(name, (0,))
    weight[(*place, *[1] * (weight.ndim - len(place)))] = bad
    assert np.isnan(sum_of_losses(case, draw_for(1), bf16))
    gradient = np.zeros_like(case.flat)
    assert np.isnan(add_gradient(gradient, case, 0.1, draw_for(1), bf16=bf16))
    assert np.isnan(gradient).any()


MEDIUM = load_config(Path(__file__).parents[2] / "configs/medium.yaml").model


@pytest.mark.parametrize("bf16", [True] * (True in PRECISIONS))
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("noise", [0.0, 0.02], ids=["initial", "noisy"])
def test_in_bfloat16_every_gradient_tensor_is_within_a_hundredth_of_float32s(noise, tied, bf16, rng):
    cfg = MEDIUM.model_copy(update={"tie_embeddings": tied})
    flat = initial_params(cfg, 3)
    flat += noise * rng.standard_normal(flat.size, dtype=np.float32)
    case = Case(cfg, flat, *rng.integers(0, cfg.vocab_size, (2, 2, cfg.block_size), np.int32))
    loss, gradient = mean_loss_and_gradient(case)
    rounded_loss, rounded = mean_loss_and_gradient(case, bf16=bf16)
    assert rounded_loss == pytest.approx(loss, rel=1e-3) and rounded_loss != loss
    for tensor in layout(cfg):
        expected = gradient[tensor.start : tensor.stop].astype(np.float64)
        error = np.linalg.norm(rounded[tensor.start : tensor.stop] - expected) / np.linalg.norm(expected)
        assert 1e-4 < error <= BF16_TOLERANCE, tensor.name


def test_a_head_that_takes_some_positions_at_a_time_gives_the_same_bits(monkeypatch, rng):
    cfg = model_config(300, 1100, 1, 1, 8, True)
    case, draw = random_case(cfg, 1, 1100, rng), draw_for(1)
    flat = case.flat.astype(np.float32)
    results = []
    for room in (workspace_module.LOGITS_ROOM, 600 * cfg.vocab_size):
        monkeypatch.setattr(workspace_module, "LOGITS_ROOM", room)
        workspace = make_workspace(cfg, 1, 1100)
        gradient = np.ones_like(flat)  # to be overwritten
        arguments = workspace, view_params(flat, cfg), case.tokens, case.targets
        views = view_params(gradient, cfg)
        loss = micro_batch_gradient(views, *arguments, 1 / 1100, cfg.n_head, 0.0, draw, False)
        once = gradient.copy()
        micro_batch_gradient(views, *arguments, 1 / 1100, cfg.n_head, 0.0, draw, True)
        results.append((workspace.a.logits.shape[1], loss, once.tobytes(), gradient.tobytes()))
    assert [at_once for at_once, *_ in results] == [1100, 512]
    assert results[0][1:] == results[1][1:]
