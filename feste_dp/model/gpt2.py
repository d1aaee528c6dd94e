"""GPT-2 as two mirrored listings: `forward` lists a block top to bottom, `backward` bottom to top.

A. Radford et al., "Language Models are Unsupervised Multitask Learners" (2019): pre-norm blocks, learned
positions, GELU MLP of width 4C, final layer norm, output head tied to the token embedding or not.
"""

from typing import Any

from feste_dp.kernels.attention import attention_backward, attention_forward
from feste_dp.kernels.compilation import kernel
from feste_dp.kernels.cross_entropy import cross_entropy_backward, cross_entropy_forward
from feste_dp.kernels.dropout import dropout_residual_backward, dropout_residual_forward
from feste_dp.kernels.embedding import embedding_backward, embedding_forward
from feste_dp.kernels.gelu import gelu_backward, gelu_forward
from feste_dp.kernels.layernorm import layernorm_backward, layernorm_forward
from feste_dp.kernels.linear import head_backward, head_forward, linear_backward, linear_forward
from feste_dp.model.parameters import Parameters
from feste_dp.model.workspace import ActivationGradients, Activations, Scratch, Workspace

# One call a line: checked against its mirror by eye, so the formatter stays out.
# fmt: off


@kernel
def forward(
    a: Activations, p: Parameters, s: Scratch, tokens: Any, n_head: int, dropout: float, draw: Any
) -> None:
    """Fill `a` up to the logits. tokens (B, T); draw = (seed, step, places in the global batch (B,))."""
    seed, step, sequences = draw
    embedding_forward(a.x[0], tokens, p.wte, p.wpe)
    for layer in range(p.ln_1_w.shape[0]):
        x, x_mid, x_out = a.x[layer], a.x_mid[layer], a.x[layer + 1]
        layernorm_forward(a.ln_1[layer], a.ln_1_mean[layer], a.ln_1_rstd[layer], x, p.ln_1_w[layer], p.ln_1_b[layer])
        linear_forward(a.qkv[layer], a.ln_1[layer], p.attn_qkv_w[layer], p.attn_qkv_b[layer], s.pack)
        attention_forward(a.attn[layer], a.attn_lse[layer], a.qkv[layer], s.scores, n_head, s.pack)
        linear_forward(s.branch, a.attn[layer], p.attn_proj_w[layer], p.attn_proj_b[layer], s.pack)
        dropout_residual_forward(x_mid, x, s.branch, s.mask, dropout, seed, step, sequences, 2 * layer)
        layernorm_forward(a.ln_2[layer], a.ln_2_mean[layer], a.ln_2_rstd[layer], x_mid, p.ln_2_w[layer], p.ln_2_b[layer])
        linear_forward(a.fc[layer], a.ln_2[layer], p.mlp_fc_w[layer], p.mlp_fc_b[layer], s.pack)
        gelu_forward(a.fc_gelu[layer], a.fc[layer])
        linear_forward(s.branch, a.fc_gelu[layer], p.mlp_proj_w[layer], p.mlp_proj_b[layer], s.pack)
        dropout_residual_forward(x_out, x_mid, s.branch, s.mask, dropout, seed, step, sequences, 2 * layer + 1)
    layernorm_forward(a.ln_f, a.ln_f_mean, a.ln_f_rstd, a.x[p.ln_1_w.shape[0]], p.ln_f_w, p.ln_f_b)
    head_forward(a.logits, a.ln_f, p.lm_head_w, s.pack)


@kernel
def backward(
    d: Parameters,
    da: ActivationGradients,
    a: Activations,
    p: Parameters,
    s: Scratch,
    tokens: Any,
    targets: Any,
    dloss: float,
    n_head: int,
    dropout: float,
    draw: Any,
) -> None:
    """Add to `d` the gradient of dloss * (sum of all positions' losses). Needs `a` as forward and
    cross_entropy_forward left it."""
    seed, step, sequences = draw
    da.logits[:] = 0
    cross_entropy_backward(da.logits, a.logits, targets, a.logits_lse, dloss)
    da.ln[:] = 0
    head_backward(da.ln, d.lm_head_w, da.logits, a.ln_f, p.lm_head_w, s.pack)
    da.x[:] = 0
    layernorm_backward(da.x, d.ln_f_w, d.ln_f_b, da.ln, a.x[p.ln_1_w.shape[0]], p.ln_f_w, a.ln_f_mean, a.ln_f_rstd)
    for layer in range(p.ln_1_w.shape[0] - 1, -1, -1):
        x, x_mid = a.x[layer], a.x_mid[layer]
        da.branch[:] = 0
        dropout_residual_backward(da.branch, da.x, s.mask, dropout, seed, step, sequences, 2 * layer + 1)
        da.fc_gelu[:] = 0
        linear_backward(da.fc_gelu, d.mlp_proj_w[layer], d.mlp_proj_b[layer], da.branch, a.fc_gelu[layer], p.mlp_proj_w[layer], s.pack)
        da.fc[:] = 0
        gelu_backward(da.fc, da.fc_gelu, a.fc[layer])
        da.ln[:] = 0
        linear_backward(da.ln, d.mlp_fc_w[layer], d.mlp_fc_b[layer], da.fc, a.ln_2[layer], p.mlp_fc_w[layer], s.pack)
        layernorm_backward(da.x, d.ln_2_w[layer], d.ln_2_b[layer], da.ln, x_mid, p.ln_2_w[layer], a.ln_2_mean[layer], a.ln_2_rstd[layer])
        da.branch[:] = 0
        dropout_residual_backward(da.branch, da.x, s.mask, dropout, seed, step, sequences, 2 * layer)
        da.attn[:] = 0
        linear_backward(da.attn, d.attn_proj_w[layer], d.attn_proj_b[layer], da.branch, a.attn[layer], p.attn_proj_w[layer], s.pack)
        da.qkv[:] = 0
        attention_backward(da.qkv, da.attn, a.attn[layer], a.attn_lse[layer], a.qkv[layer], s.scores, s.dscores, n_head, s.pack)
        da.ln[:] = 0
        linear_backward(da.ln, d.attn_qkv_w[layer], d.attn_qkv_b[layer], da.qkv, a.ln_1[layer], p.attn_qkv_w[layer], s.pack)
        layernorm_backward(da.x, d.ln_1_w[layer], d.ln_1_b[layer], da.ln, x, p.ln_1_w[layer], a.ln_1_mean[layer], a.ln_1_rstd[layer])
    embedding_backward(d.wte, d.wpe, da.x, tokens)


# fmt: on


@kernel
def micro_batch_loss(w: Workspace, p: Parameters, tokens: Any, targets: Any, n_head: int, draw: Any) -> float:
    """Sum of the losses of all positions, dropout off: validation. float64, in the order of positions."""
    forward(w.a, p, w.s, tokens, n_head, 0.0, draw)
    cross_entropy_forward(w.a.losses, w.a.logits_lse, w.a.logits, targets)
    return _sum_of_losses(w.a.losses)


@kernel
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
) -> float:
    """Add one micro-batch's gradient to `d`; returns the sum of the losses of all positions, float64."""
    forward(w.a, p, w.s, tokens, n_head, dropout, draw)
    cross_entropy_forward(w.a.losses, w.a.logits_lse, w.a.logits, targets)
    backward(d, w.da, w.a, p, w.s, tokens, targets, dloss, n_head, dropout, draw)
    return _sum_of_losses(w.a.losses)


@kernel
def _sum_of_losses(losses: Any) -> float:
    total = 0.0
    for b in range(losses.shape[0]):
        for t in range(losses.shape[1]):
            total += losses[b, t]
    return total
