"""GPT-2 once more, written in PyTorch operations, with gradients by autograd."""

from collections.abc import Mapping

import numpy as np
import torch
from torch.nn import functional

from feste_dp.config.schema import ModelConfig
from feste_dp.model.parameters import layout

Weights = Mapping[str, torch.Tensor]


def torch_weights(flat: np.ndarray, cfg: ModelConfig) -> dict[str, torch.Tensor]:
    """Leaf tensors by name, copied from the flat buffer; a tied model has no lm_head_w."""
    return {
        tensor.name: torch.tensor(flat[tensor.start : tensor.stop].reshape(tensor.shape), requires_grad=True)
        for tensor in layout(cfg)
    }


def torch_logits(
    weights: Weights, cfg: ModelConfig, tokens: np.ndarray, masks: np.ndarray | None = None
) -> torch.Tensor:
    """(B, T, V). masks (2 L, B, T, C) multiply the branches, in the order in which they join; None = ones."""
    index = torch.from_numpy(tokens)
    positions = tokens.shape[1]
    future = torch.ones(positions, positions, dtype=torch.bool).triu(1)

    def normalised(x, name, layer=...):
        return functional.layer_norm(
            x, (cfg.n_embd,), weights[name + "_w"][layer], weights[name + "_b"][layer], 1e-5
        )

    def linear(x, name, layer):
        return x @ weights[name + "_w"][layer] + weights[name + "_b"][layer]

    def dropped(branch, site):
        return branch if masks is None else branch * torch.from_numpy(masks[site])

    def heads(x):
        return x.reshape(*x.shape[:2], cfg.n_head, -1).transpose(1, 2)

    x = weights["wte"][index] + weights["wpe"][:positions]
    for layer in range(cfg.n_layer):
        q, k, v = map(heads, linear(normalised(x, "ln_1", layer), "attn_qkv", layer).chunk(3, dim=2))
        scores = (q @ k.transpose(2, 3) / q.shape[3] ** 0.5).masked_fill(future, -torch.inf)
        mixed = (scores.softmax(3) @ v).transpose(1, 2).reshape(x.shape)
        x = x + dropped(linear(mixed, "attn_proj", layer), 2 * layer)
        hidden = functional.gelu(linear(normalised(x, "ln_2", layer), "mlp_fc", layer), approximate="tanh")
        x = x + dropped(linear(hidden, "mlp_proj", layer), 2 * layer + 1)
    head = weights["wte"] if cfg.tie_embeddings else weights["lm_head_w"]
    return normalised(x, "ln_f") @ head.T


def torch_loss(
    weights: Weights,
    cfg: ModelConfig,
    tokens: np.ndarray,
    targets: np.ndarray,
    masks: np.ndarray | None = None,
) -> torch.Tensor:
    """Mean loss over all positions."""
    logits = torch_logits(weights, cfg, tokens, masks)
    return functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(targets).long().flatten())
