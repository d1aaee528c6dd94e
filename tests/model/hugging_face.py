"""GPT-2 models of transformers in folders, and what they compute."""

from pathlib import Path

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from feste_dp.config.schema import ModelConfig
from tests.model.plain_path import plain_logits

LOGITS_TOLERANCE = 1e-4
SMALL = {"vocab_size": 300, "n_positions": 40, "n_layer": 2, "n_head": 3, "n_embd": 30}


def make_model(seed: int = 1, noise: bool = True, **settings: object) -> GPT2LMHeadModel:
    """Random weights; with noise on everything no bias is zero and no layer norm is one."""
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(GPT2Config(**SMALL | {"bos_token_id": None, "eos_token_id": None} | settings))
    if not noise:
        return model.eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


def logits_of(folder_or_model: Path | GPT2LMHeadModel, tokens: np.ndarray) -> np.ndarray:
    """(B, T, V) of transformers, float32."""
    model = folder_or_model
    if isinstance(model, Path):
        model = GPT2LMHeadModel.from_pretrained(model).eval()
    with torch.no_grad():
        return model(torch.from_numpy(tokens.astype(np.int64))).logits.numpy()


def own_logits(flat: np.ndarray, cfg: ModelConfig, tokens: np.ndarray) -> np.ndarray:
    """(B, T, V) by the kernels of training."""
    return np.stack([plain_logits(cfg, flat, row.astype(np.int32)) for row in tokens])
