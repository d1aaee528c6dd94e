"""What one micro-batch needs beside the weights: saved activations, their gradients, scratch.

Allocated once a worker, used for every micro-batch: nothing is allocated inside a step.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from feste_dp.config.schema import ModelConfig
from feste_dp.kernels.attention import AttentionScratch, make_attention_scratch
from feste_dp.kernels.packing import BLOCK_DEPTH, PackBuffers, make_pack_buffers
from feste_dp.kernels.stamps import make_clock

LOGITS_ROOM = 2**25
"""Floats, 128 MiB: the head of GPT-2 takes 512 positions at a time. Fewer read and write the gradient of the
vocabulary's weights more often."""

Zeros = Callable[[tuple[int, ...], type[np.floating[Any]]], Any]


class Activations(NamedTuple):
    """Values that forward writes and backward reads; L leads where layers are stacked.

    What is cheap to have again is not kept: the outputs of the blocks' layer norms and of GELU, 6 of 16 C
    floats a position and layer, are recomputed in backward for under 1 % of a step.
    """

    x: Any  # (L + 1, B, T, C)  residual stream before each block, and after the last
    ln_1_mean: Any  # (L, B, T)
    ln_1_rstd: Any
    qkv: Any  # (L, B, T, 3C)
    attn: Any  # (L, B, T, C)
    attn_lse: Any  # (L, B, H, T)
    x_mid: Any  # (L, B, T, C)  residual stream between attention and MLP
    ln_2_mean: Any
    ln_2_rstd: Any
    fc: Any  # (L, B, T, 4C)
    ln_f: Any  # (B, T, C)
    ln_f_mean: Any
    ln_f_rstd: Any
    logits: Any  # (1, n, V)  of as many positions as fit into LOGITS_ROOM; their gradient is left here
    logits_highest: Any  # (B, T)
    logits_others: Any  # (B, T)  sum of exp(logit - highest) over all but the target
    losses: Any  # (B, T)


class ActivationGradients(NamedTuple):
    """Gradients of one layer's activations; every layer uses them again. `x` flows through all of them."""

    x: Any  # (B, T, C)
    branch: Any
    ln: Any
    attn: Any
    qkv: Any  # (B, T, 3C)
    fc: Any  # (B, T, 4C)


class Scratch(NamedTuple):
    ln: Any  # (B, T, C)  output of a block's layer norm
    fc_gelu: Any  # (B, T, 4C)  output of GELU
    branch: Any  # (B, T, C)  output of a projection before it joins the residual stream
    attention: AttentionScratch
    mask: Any  # see kernels/dropout.py
    pack: PackBuffers
    clock: Any  # see kernels/stamps.py: without room, no times are taken


class Workspace(NamedTuple):
    a: Activations
    da: ActivationGradients
    s: Scratch


def positions_at_once(positions: int, vocab_size: int) -> int:
    """For how many of a micro-batch's positions the head computes logits together: all, or a multiple of what
    the product adds up at a time, so that the gradient of its weights is the same sum."""
    fit = LOGITS_ROOM // vocab_size // BLOCK_DEPTH * BLOCK_DEPTH
    return min(positions, max(BLOCK_DEPTH, fit))


def make_activations(
    cfg: ModelConfig,
    sequences: int,
    positions: int,
    dtype: type[np.floating[Any]] = np.float32,
    make_zeros: Zeros = np.zeros,
) -> Activations:
    layers, channels, heads = cfg.n_layer, cfg.n_embd, cfg.n_head

    def zeros(*shape: int) -> Any:
        return make_zeros(shape, dtype)

    rows = (sequences, positions)
    return Activations(
        x=zeros(layers + 1, *rows, channels),
        ln_1_mean=zeros(layers, *rows),
        ln_1_rstd=zeros(layers, *rows),
        qkv=zeros(layers, *rows, 3 * channels),
        attn=zeros(layers, *rows, channels),
        attn_lse=zeros(layers, sequences, heads, positions),
        x_mid=zeros(layers, *rows, channels),
        ln_2_mean=zeros(layers, *rows),
        ln_2_rstd=zeros(layers, *rows),
        fc=zeros(layers, *rows, cfg.mlp_width),
        ln_f=zeros(*rows, channels),
        ln_f_mean=zeros(*rows),
        ln_f_rstd=zeros(*rows),
        logits=zeros(1, positions_at_once(sequences * positions, cfg.vocab_size), cfg.vocab_size),
        logits_highest=zeros(*rows),
        logits_others=zeros(*rows),
        losses=zeros(*rows),
    )


def make_activation_gradients(
    cfg: ModelConfig,
    sequences: int,
    positions: int,
    dtype: type[np.floating[Any]] = np.float32,
    make_zeros: Zeros = np.zeros,
) -> ActivationGradients:
    def zeros(width: int) -> Any:
        return make_zeros((sequences, positions, width), dtype)

    channels = cfg.n_embd
    return ActivationGradients(
        x=zeros(channels),
        branch=zeros(channels),
        ln=zeros(channels),
        attn=zeros(channels),
        qkv=zeros(3 * channels),
        fc=zeros(cfg.mlp_width),
    )


def make_scratch(
    cfg: ModelConfig,
    sequences: int,
    positions: int,
    dtype: type[np.floating[Any]] = np.float32,
    bf16: bool = False,
    make_zeros: Zeros = np.zeros,
) -> Scratch:
    rows = (sequences, positions)
    return Scratch(
        ln=make_zeros((*rows, cfg.n_embd), dtype),
        fc_gelu=make_zeros((*rows, cfg.mlp_width), dtype),
        branch=make_zeros((*rows, cfg.n_embd), dtype),
        attention=make_attention_scratch(positions, cfg.n_embd // cfg.n_head, make_zeros),
        mask=make_zeros((cfg.n_embd + 3,), dtype),
        pack=make_pack_buffers(bf16, make_zeros),
        clock=make_clock(0),
    )


def make_workspace(
    cfg: ModelConfig,
    sequences: int,
    positions: int,
    dtype: type[np.floating[Any]] = np.float32,
    bf16: bool = False,
    make_zeros: Zeros = np.zeros,
) -> Workspace:
    """Room for micro-batches of `sequences` by `positions`; bf16: products round their operands."""
    return Workspace(
        make_activations(cfg, sequences, positions, dtype, make_zeros),
        make_activation_gradients(cfg, sequences, positions, dtype, make_zeros),
        make_scratch(cfg, sequences, positions, dtype, bf16, make_zeros),
    )


def workspace_bytes(cfg: ModelConfig, sequences: int, positions: int) -> int:
    """What make_workspace would take, found out without taking it."""
    counter = ByteCounter()
    make_workspace(cfg, sequences, positions, make_zeros=counter)
    return counter.bytes


class ByteCounter:
    """Adds up the bytes it is asked for instead of allocating them."""

    def __init__(self) -> None:
        self.bytes = 0

    def __call__(self, shape: int | tuple[int, ...], dtype: type[np.floating[Any]]) -> None:
        count = shape if isinstance(shape, int) else math.prod(shape)
        self.bytes += count * np.dtype(dtype).itemsize
