"""GPT-2 as PyTorch users write it: modules, fused attention, autograd. The peer in speed; the reference in
correctness is tests/model/torch_gpt2.py. Only torch_steps.py, a process of its own, imports this."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from feste_dp.config.schema import ModelConfig
from feste_dp.model.parameters import view_params


class Block(nn.Module):
    """Attention and MLP, each behind a layer norm and added to the residual stream."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        channels = cfg.n_embd
        self.n_head, self.dropout = cfg.n_head, nn.Dropout(cfg.dropout)
        self.ln_1, self.ln_2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attn_qkv = nn.Linear(channels, 3 * channels)
        self.attn_proj = nn.Linear(channels, channels)
        self.mlp_fc = nn.Linear(channels, cfg.mlp_width)
        self.mlp_proj = nn.Linear(cfg.mlp_width, channels)

    def forward(self, x: Any) -> Any:
        sequences, positions, channels = x.shape
        q, k, v = (
            part.view(sequences, positions, self.n_head, -1).transpose(1, 2)
            for part in self.attn_qkv(self.ln_1(x)).split(channels, dim=2)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.dropout(self.attn_proj(mixed.transpose(1, 2).reshape(x.shape)))
        hidden = functional.gelu(self.mlp_fc(self.ln_2(x)), approximate="tanh")
        return x + self.dropout(self.mlp_proj(hidden))


class TorchGPT2(nn.Module):
    """Mean loss over all positions from tokens and targets (B, T)."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        self.wte = nn.Embedding(cfg.vocab_size, cfg.n_embd)
        self.wpe = nn.Embedding(cfg.block_size, cfg.n_embd)
        self.blocks = nn.ModuleList([Block(cfg) for _ in range(cfg.n_layer)])
        self.ln_f = nn.LayerNorm(cfg.n_embd)
        self.lm_head = nn.Linear(cfg.n_embd, cfg.vocab_size, bias=False)
        if cfg.tie_embeddings:
            self.lm_head.weight = self.wte.weight

    def forward(self, tokens: Any, targets: Any) -> Any:
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        logits = self.lm_head(self.ln_f(x))
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def set_weights(model: TorchGPT2, flat: NDArray[np.float32], cfg: ModelConfig) -> None:
    """Copy feste-dp's weights (P,) into the model; its linear layers are (out, in), ours (in, out)."""
    p = view_params(flat, cfg)
    with torch.no_grad():
        for layer, block in enumerate(model.blocks):
            for name in ("attn_qkv", "attn_proj", "mlp_fc", "mlp_proj"):
                linear = getattr(block, name)
                linear.weight.copy_(torch.from_numpy(getattr(p, f"{name}_w")[layer].T.copy()))
                linear.bias.copy_(torch.from_numpy(getattr(p, f"{name}_b")[layer]))
            for name in ("ln_1", "ln_2"):
                norm = getattr(block, name)
                norm.weight.copy_(torch.from_numpy(getattr(p, f"{name}_w")[layer]))
                norm.bias.copy_(torch.from_numpy(getattr(p, f"{name}_b")[layer]))
        model.ln_f.weight.copy_(torch.from_numpy(p.ln_f_w))
        model.ln_f.bias.copy_(torch.from_numpy(p.ln_f_b))
        model.wte.weight.copy_(torch.from_numpy(p.wte))
        model.wpe.weight.copy_(torch.from_numpy(p.wpe))
        if not cfg.tie_embeddings:
            model.lm_head.weight.copy_(torch.from_numpy(p.lm_head_w))


def make_optimizer(model: Any, lr: float, weight_decay: float) -> Any:
    """Fused AdamW that decays matrices and embeddings only."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)
