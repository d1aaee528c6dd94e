"""GPT-2 as two mirrored listings: `forward` lists a block top to bottom, `backward` bottom to top. Between them
stands `head`, which is both at once.

A. Radford et al., "Language Models are Unsupervised Multitask Learners" (2019): pre-norm blocks, learned
positions, GELU MLP of width 4C, final layer norm, output head tied to the token embedding or not.

All logits of a position are needed before the first of their gradients, so the head goes by blocks of positions:
by blocks of the vocabulary it would have to take its product twice.
"""

from typing import Any

from feste_dp.kernels.attention import attention_backward, attention_forward
from feste_dp.kernels.compilation import inlined_kernel, kernel
from feste_dp.kernels.cross_entropy import cross_entropy_backward, cross_entropy_forward
from feste_dp.kernels.dropout import dropout_residual_backward, dropout_residual_forward
from feste_dp.kernels.embedding import embedding_backward, embedding_forward
from feste_dp.kernels.layernorm import layernorm_again, layernorm_backward, layernorm_forward
from feste_dp.kernels.linear import (
    gelu_linear_backward,
    head_backward,
    head_forward,
    linear_backward,
    linear_forward,
    linear_gelu_forward,
    linear_residual_forward,
)
from feste_dp.kernels.stamps import stamped_kernel
from feste_dp.model.parameters import Parameters
from feste_dp.model.workspace import ActivationGradients, Activations, Scratch, Workspace

# One call a line: checked against its mirror by eye, so the formatter stays out.
# fmt: off


@inlined_kernel
def forward(
    a: Activations, p: Parameters, s: Scratch, tokens: Any, n_head: int, dropout: float, draw: Any
) -> None:
    """Fill `a` up to ln_f, the input of the head. tokens (B, T); draw = (seed, step, places in the global batch (B,))."""
    embedding_forward(a.x[0], tokens, p.wte, p.wpe)
    for layer in range(p.ln_1_w.shape[0]):
        x, x_mid, x_out = a.x[layer], a.x_mid[layer], a.x[layer + 1]
        layernorm_forward(s.ln, a.ln_1_mean[layer], a.ln_1_rstd[layer], x, p.ln_1_w[layer], p.ln_1_b[layer])
        linear_forward(a.qkv[layer], s.ln, p.attn_qkv_w[layer], p.attn_qkv_b[layer], s.pack)
        attention_forward(a.attn[layer], a.attn_lse[layer], a.qkv[layer], s.attention, n_head, s.pack)
        _join_residual(x_mid, a.attn[layer], p.attn_proj_w[layer], p.attn_proj_b[layer], x, s, dropout, draw, 2 * layer)
        layernorm_forward(s.ln, a.ln_2_mean[layer], a.ln_2_rstd[layer], x_mid, p.ln_2_w[layer], p.ln_2_b[layer])
        linear_gelu_forward(a.fc[layer], s.fc_gelu, s.ln, p.mlp_fc_w[layer], p.mlp_fc_b[layer], s.pack)
        _join_residual(x_out, s.fc_gelu, p.mlp_proj_w[layer], p.mlp_proj_b[layer], x_mid, s, dropout, draw, 2 * layer + 1)
    layernorm_forward(a.ln_f, a.ln_f_mean, a.ln_f_rstd, a.x[p.ln_1_w.shape[0]], p.ln_f_w, p.ln_f_b)


@inlined_kernel
def head(
    d: Parameters, da: ActivationGradients, a: Activations, p: Parameters, s: Scratch, targets: Any, dloss: float, accumulate: bool, with_gradient: bool
) -> None:
    """Fill a.losses from a.ln_f and, with_gradient, da.ln and d.lm_head_w with the gradient of dloss * (sum of all
    positions' losses): for as many positions at a time as there is room for logits."""
    for first in range(0, a.losses.size, a.logits.shape[1]):
        last = min(first + a.logits.shape[1], a.losses.size)
        logits, x, dx = _vectors(a.logits, 0, last - first), _vectors(a.ln_f, first, last), _vectors(da.ln, first, last)
        losses, highest, others = _numbers(a.losses, first, last), _numbers(a.logits_highest, first, last), _numbers(a.logits_others, first, last)
        wanted = _numbers(targets, first, last)
        head_forward(logits, x, p.lm_head_w, s.pack)
        cross_entropy_forward(losses, highest, others, logits, wanted)
        if with_gradient:
            cross_entropy_backward(logits, logits, wanted, highest, others, dloss)
            head_backward(dx, d.lm_head_w, logits, x, p.lm_head_w, accumulate or first > 0, s.pack)


@inlined_kernel
def backward(
    d: Parameters,
    da: ActivationGradients,
    a: Activations,
    p: Parameters,
    s: Scratch,
    tokens: Any,
    n_head: int,
    dropout: float,
    draw: Any,
    accumulate: bool,
) -> None:
    """Complete `d`, of which the head has written its part, or add to it when `accumulate`. Needs `a` as forward, and
    da.ln as the head left it."""
    da.x[:] = 0
    layernorm_backward(da.x, d.ln_f_w, d.ln_f_b, da.ln, a.x[p.ln_1_w.shape[0]], p.ln_f_w, a.ln_f_mean, a.ln_f_rstd)
    for layer in range(p.ln_1_w.shape[0] - 1, -1, -1):
        x, x_mid = a.x[layer], a.x_mid[layer]
        dbranch = dropout_residual_backward(da.branch, da.x, s.mask, dropout, draw[0], draw[1], draw[2], 2 * layer + 1)
        gelu_linear_backward(da.fc, d.mlp_proj_w[layer], d.mlp_proj_b[layer], dbranch, a.fc[layer], s.fc_gelu, p.mlp_proj_w[layer], accumulate, s.pack)
        layernorm_again(s.ln, x_mid, p.ln_2_w[layer], p.ln_2_b[layer], a.ln_2_mean[layer], a.ln_2_rstd[layer])
        linear_backward(da.ln, d.mlp_fc_w[layer], d.mlp_fc_b[layer], da.fc, s.ln, p.mlp_fc_w[layer], accumulate, s.pack)
        layernorm_backward(da.x, d.ln_2_w[layer], d.ln_2_b[layer], da.ln, x_mid, p.ln_2_w[layer], a.ln_2_mean[layer], a.ln_2_rstd[layer])
        dbranch = dropout_residual_backward(da.branch, da.x, s.mask, dropout, draw[0], draw[1], draw[2], 2 * layer)
        linear_backward(da.attn, d.attn_proj_w[layer], d.attn_proj_b[layer], dbranch, a.attn[layer], p.attn_proj_w[layer], accumulate, s.pack)
        attention_backward(da.qkv, da.attn, a.attn[layer], a.attn_lse[layer], a.qkv[layer], s.attention, n_head, s.pack)
        layernorm_again(s.ln, x, p.ln_1_w[layer], p.ln_1_b[layer], a.ln_1_mean[layer], a.ln_1_rstd[layer])
        linear_backward(da.ln, d.attn_qkv_w[layer], d.attn_qkv_b[layer], da.qkv, s.ln, p.attn_qkv_w[layer], accumulate, s.pack)
        layernorm_backward(da.x, d.ln_1_w[layer], d.ln_1_b[layer], da.ln, x, p.ln_1_w[layer], a.ln_1_mean[layer], a.ln_1_rstd[layer])
    embedding_backward(d.wte, d.wpe, da.x, tokens)


# fmt: on


@kernel
def _join_residual(
    out: Any,
    x: Any,
    weight: Any,
    bias: Any,
    residual: Any,
    s: Scratch,
    dropout: float,
    draw: Any,
    site: int,
) -> None:
    """out = residual + dropout(x @ weight + bias); without dropout the product adds to the residual itself."""
    if dropout == 0:
        linear_residual_forward(out, x, weight, bias, residual, s.pack)
    else:
        seed, step, sequences = draw
        linear_forward(s.branch, x, weight, bias, s.pack)
        dropout_residual_forward(out, residual, s.branch, s.mask, dropout, seed, step, sequences, site)


@inlined_kernel
def _vectors(x: Any, first: int, last: int) -> Any:
    """Of (B, T, C) positions first .. last - 1 as (1, last - first, C)."""
    return x.reshape(x.shape[0] * x.shape[1], x.shape[2])[first:last].reshape(1, last - first, x.shape[2])


@inlined_kernel
def _numbers(x: Any, first: int, last: int) -> Any:
    """Of (B, T) positions first .. last - 1 as (1, last - first)."""
    return x.reshape(x.size)[first:last].reshape(1, last - first)


@kernel
def _zero_what_is_added_to(d: Parameters) -> None:
    """All gradients but those of the linear layers' weights, whose first product overwrites them."""
    d.wte[:], d.wpe[:] = 0, 0
    d.ln_1_w[:], d.ln_1_b[:], d.ln_2_w[:], d.ln_2_b[:], d.ln_f_w[:], d.ln_f_b[:] = 0, 0, 0, 0, 0, 0
    d.attn_qkv_b[:], d.attn_proj_b[:], d.mlp_fc_b[:], d.mlp_proj_b[:] = 0, 0, 0, 0


def micro_batch_loss(w: Workspace, p: Parameters, tokens: Any, targets: Any, n_head: int, draw: Any) -> float:
    """Sum of the losses of all positions, dropout off: validation. float64, in the order of positions."""
    loss_sum: float = micro_batch(p, w, p, tokens, targets, 0.0, n_head, 0.0, draw, False, False)
    return loss_sum


def micro_batch_gradient(
    d: Parameters,
    w: Workspace,
    p: Parameters,
    tokens: Any,
    targets: Any,
    dloss: float,
    n_head: int,
    dropout: float,
    draw: Any,
    accumulate: bool,
) -> float:
    """Overwrite `d` with one micro-batch's gradient, or add to it when `accumulate`; returns the sum of the
    losses of all positions, float64."""
    loss_sum: float = micro_batch(d, w, p, tokens, targets, dloss, n_head, dropout, draw, accumulate, True)
    return loss_sum


@stamped_kernel("w.s.clock")
def micro_batch(
    d: Parameters,
    w: Workspace,
    p: Parameters,
    tokens: Any,
    targets: Any,
    dloss: float,
    n_head: int,
    dropout: float,
    draw: Any,
    accumulate: bool,
    with_gradient: bool,
) -> float:
    """The one compiled call of a micro-batch, for training and validation: two would double the first
    start's compilation. Returns the sum of losses; writes `d` only `with_gradient`."""
    forward(w.a, p, w.s, tokens, n_head, dropout, draw)
    if with_gradient and not accumulate:
        _zero_what_is_added_to(d)
    head(d, w.da, w.a, p, w.s, targets, dloss, accumulate, with_gradient)
    if with_gradient:
        backward(d, w.da, w.a, p, w.s, tokens, n_head, dropout, draw, accumulate)
    return _sum_of_losses(w.a.losses)


@kernel
def _sum_of_losses(losses: Any) -> float:
    total = 0.0
    for b in range(losses.shape[0]):
        for t in range(losses.shape[1]):
            total += losses[b, t]
    return total
