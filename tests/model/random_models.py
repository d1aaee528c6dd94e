"""Models of odd sizes with random weights, and one call for their loss and gradient."""

from typing import NamedTuple

import numpy as np

from feste_dp.config.schema import ModelConfig
from feste_dp.model.gpt2 import micro_batch_gradient
from feste_dp.model.parameters import initial_params, view_params
from feste_dp.model.workspace import make_workspace

Draw = tuple[np.uint64, int, np.ndarray]


class Case(NamedTuple):
    cfg: ModelConfig
    flat: np.ndarray
    tokens: np.ndarray
    targets: np.ndarray


def model_config(
    vocab_size, block_size, n_layer, n_head, n_embd, tie_embeddings, dropout=0.0, n_inner=0
) -> ModelConfig:
    return ModelConfig(
        vocab_size=vocab_size,
        block_size=block_size,
        n_layer=n_layer,
        n_head=n_head,
        n_embd=n_embd,
        dropout=dropout,
        tie_embeddings=tie_embeddings,
        n_inner=n_inner,
    )


def random_case(cfg, sequences, positions, rng, dtype=np.float64) -> Case:
    """Initial weights with noise on everything, so that no bias is zero and no layer norm is one; tokens as a
    run has them, whose compiled code it then calls."""
    flat = initial_params(cfg, 1) + 0.1 * rng.standard_normal(initial_params(cfg, 1).size, dtype=np.float32)
    tokens, targets = rng.integers(0, cfg.vocab_size, (2, sequences, positions)).astype(np.int32)
    return Case(cfg, flat.astype(dtype), tokens, targets)


def draw_for(sequences, seed=5, step=3) -> Draw:
    return np.uint64(seed), step, np.arange(10, 10 + sequences)


def mean_loss_and_gradient(
    case: Case, dropout=0.0, draw: Draw | None = None, bf16=False
) -> tuple[float, np.ndarray]:
    """Mean loss over all positions of one micro-batch, and its gradient, flat, written over NaNs."""
    cfg, flat, tokens, targets = case
    gradient = np.full_like(flat, np.nan)
    workspace = make_workspace(cfg, *tokens.shape, flat.dtype.type, bf16)
    loss = micro_batch_gradient(
        view_params(gradient, cfg),
        workspace,
        view_params(flat, cfg),
        tokens,
        targets,
        1.0 / tokens.size,
        cfg.n_head,
        dropout,
        draw or draw_for(tokens.shape[0]),
        False,
    )
    return loss / tokens.size, gradient
