import math

import numpy as np
import pytest

from feste_dp.model.parameters import (
    DECAYED,
    Parameters,
    decayed_count,
    initial_params,
    initial_std,
    layout,
    param_shapes,
    parameter_count,
    view_params,
)
from tests.model.random_models import model_config

TINY = model_config(512, 64, 2, 1, 64, False)
GPT2_87M = model_config(1536, 1024, 12, 12, 768, True)
TIED = model_config(300, 40, 3, 2, 16, True)
UNTIED = model_config(300, 40, 3, 2, 16, False)

both = pytest.mark.parametrize("cfg", [TIED, UNTIED], ids=["tied", "untied"])


def test_tiny_and_gpt2_87m_have_the_documented_sizes():
    assert parameter_count(TINY) == 169_728
    assert parameter_count(GPT2_87M) == 87_022_080


def test_a_tied_head_owns_no_elements():
    assert parameter_count(UNTIED) - parameter_count(TIED) == 300 * 16
    assert "lm_head_w" not in [tensor.name for tensor in layout(TIED)]
    assert {tensor.name for tensor in layout(UNTIED)} == set(Parameters._fields)


@both
def test_layout_covers_the_buffer_without_gap_or_overlap(cfg):
    end = 0
    for tensor in layout(cfg):
        assert tensor.start == end
        assert tensor.stop - tensor.start == math.prod(tensor.shape)
        assert tensor.shape == getattr(param_shapes(cfg), tensor.name)
        end = tensor.stop
    assert end == parameter_count(cfg)


@both
def test_views_have_their_shapes_and_share_the_memory(cfg):
    flat = np.zeros(parameter_count(cfg), np.float32)
    views = view_params(flat, cfg)
    assert tuple(view.shape for view in views) == tuple(param_shapes(cfg))
    for tensor in layout(cfg):
        view = getattr(views, tensor.name)
        assert np.shares_memory(view, flat)
        view[:] = 1
        assert (flat[tensor.start : tensor.stop] == 1).all()
        assert flat.sum() == tensor.stop
    flat[:] = 2
    assert all((view == 2).all() for view in views)


def test_a_tied_model_has_one_tensor_behind_both_names():
    flat = np.arange(parameter_count(TIED), dtype=np.float32)
    views = view_params(flat, TIED)
    assert views.lm_head_w is views.wte
    views = view_params(np.zeros(parameter_count(UNTIED)), UNTIED)
    assert not np.shares_memory(views.lm_head_w, views.wte)


@both
def test_decay_takes_matrices_and_embeddings_and_nothing_else(cfg):
    split = decayed_count(cfg)
    for tensor in layout(cfg):
        decays = tensor.stop <= split
        assert decays or tensor.start >= split
        assert decays == (tensor.name in DECAYED)
        is_bias_or_norm = tensor.name.endswith("_b") or tensor.name.startswith("ln_")
        assert decays != is_bias_or_norm


def test_initial_weights_are_the_same_in_every_run():
    flat = initial_params(TINY, 1)
    assert flat.dtype == np.float32
    np.testing.assert_array_equal(flat, initial_params(TINY, 1))
    assert (flat != initial_params(TINY, 2))[: decayed_count(TINY)].mean() > 0.99


LINEAR = 0.02 * math.sqrt(768 / 256)
RESIDUAL = LINEAR / math.sqrt(2 * 4)
LAYERS = {"attn_qkv_w": LINEAR, "mlp_fc_w": LINEAR, "attn_proj_w": RESIDUAL, "mlp_proj_w": RESIDUAL}


@pytest.mark.parametrize(
    ("tied", "spread"),
    [
        (False, LAYERS | {"wte": 1.0, "wpe": 0.2, "lm_head_w": 0.02}),
        (True, LAYERS | {"wte": 0.02, "wpe": 0.02, "lm_head_w": 0.02}),
    ],
)
def test_initial_weights_have_the_documented_spread(tied, spread):
    cfg = model_config(1536, 256, 4, 4, 256, tied)
    views = view_params(initial_params(cfg, 3), cfg)
    for name, view in zip(Parameters._fields, views, strict=True):
        if name in DECAYED:
            # five standard errors of a standard deviation and of a mean
            assert abs(view.std() / spread[name] - 1) < 5 / math.sqrt(2 * view.size)
            assert abs(view.mean(dtype=np.float64)) < 5 * spread[name] / math.sqrt(view.size)
        else:
            assert (view == (1 if name.startswith("ln_") and name.endswith("_w") else 0)).all()


def test_gpt2s_own_spread_is_kept_at_its_own_width():
    assert initial_std("attn_qkv_w", model_config(1536, 1024, 12, 12, 768, True)) == pytest.approx(0.02)


def test_no_two_tensors_start_from_the_same_numbers():
    views = view_params(initial_params(UNTIED, 1), UNTIED)
    starts = [tuple(np.sign(getattr(views, name)).ravel()[:64]) for name in DECAYED]
    assert len(set(starts)) == len(DECAYED)
