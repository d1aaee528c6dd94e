"""Every kernel of a step at the shapes of one config, with its arithmetic and its traffic.

The one place that calls kernels alone, so the one to change with their arguments. Each case has buffers of
its own and may be run any number of times. Knows nothing of clocks.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from feste_dp.config.schema import Config
from feste_dp.kernels.adamw import adamw
from feste_dp.kernels.attention import attention_backward, attention_forward, make_attention_scratch
from feste_dp.kernels.cross_entropy import cross_entropy_backward, cross_entropy_forward
from feste_dp.kernels.dropout import dropout_residual_backward, dropout_residual_forward
from feste_dp.kernels.embedding import embedding_backward, embedding_forward
from feste_dp.kernels.gelu import gelu_backward_block, gelu_forward_block
from feste_dp.kernels.layernorm import layernorm_backward, layernorm_forward
from feste_dp.kernels.linear import (
    gelu_linear_backward,
    head_backward,
    head_forward,
    linear_backward,
    linear_forward,
    linear_gelu_forward,
    linear_residual_forward,
)
from feste_dp.kernels.packing import PackBuffers, make_pack_buffers
from feste_dp.kernels.reduction import chunk_count, make_tree, reduce_slots
from feste_dp.model.parameters import parameter_count

# Operations of one exp (a chain of fused multiply-adds and a few more) and of one dropout mask value (a
# quarter of ten rounds of Philox).
EXP_OPS, MASK_OPS = 20, 30


class Case(NamedTuple):
    """A kernel to time. It does `flops` operations and must move `bytes` at least; its buffers together are
    `working_set` bytes. `calls` is how often one micro-batch (for reduce and adamw: one step) does this."""

    name: str
    run: Callable[[], object]
    flops: float
    bytes: float
    working_set: float
    calls: int


def kernel_cases(config: Config) -> Iterator[Case]:
    """The cases, each made when it is asked for."""
    yield from _linear_cases(config)
    yield from _attention_cases(config)
    yield from _row_cases(config)
    yield from _vocabulary_cases(config)
    yield from _flat_cases(config)


def _linear_cases(config: Config) -> Iterator[Case]:
    channels, layers = config.model.n_embd, config.model.n_layer
    pack = _pack(config)
    for name, inner, outer in (
        ("qkv", channels, 3 * channels),
        ("attention projection + residual", channels, channels),
        ("mlp in + gelu", channels, config.model.mlp_width),
        ("gelu + mlp out + residual", config.model.mlp_width, channels),
    ):
        x, weight, bias = _values(*_rows(config), inner), _values(inner, outer), _values(outer)
        dx, dweight, dbias = _zeros(*x.shape), _zeros(*weight.shape), _zeros(outer)
        out, other = _values(*_rows(config), outer), _values(*_rows(config), outer)
        product, traffic = 2.0 * x.size * outer, [x, weight, bias, out]
        forward, backward = partial(linear_forward, out, x, weight, bias, pack), None
        if "residual" in name:
            forward = partial(linear_residual_forward, out, x, weight, bias, other, pack)
        elif "gelu" in name:
            forward = partial(linear_gelu_forward, out, other, x, weight, bias, pack)
        if forward.func is not linear_forward:
            traffic = [*traffic, other]
        backward = partial(linear_backward, dx, dweight, dbias, out, x, weight, False, pack)
        if name.startswith("gelu"):
            pre = _values(*x.shape)
            backward = partial(gelu_linear_backward, dx, dweight, dbias, out, pre, x, weight, False, pack)
        yield _case(f"linear forward, {name}", forward, product, traffic, layers)
        yield _case(
            f"linear backward, {name}",
            backward,
            2 * product,
            [dx, dweight, dbias, out, x, weight],
            layers,
        )


def _attention_cases(config: Config) -> Iterator[Case]:
    cfg, pack = config.model, _pack(config)
    sequences, positions = _rows(config)
    qkv, out = _values(*_rows(config), 3 * cfg.n_embd), _zeros(*_rows(config), cfg.n_embd)
    lse, dqkv, dout = _zeros(sequences, cfg.n_head, positions), _zeros(*qkv.shape), _values(*out.shape)
    scratch = make_attention_scratch(positions, cfg.n_embd // cfg.n_head)
    pairs = sequences * positions * (positions + 1) / 2  # of a query and a key that it may see
    product, exps = 2.0 * pairs * cfg.n_embd, EXP_OPS * pairs * cfg.n_head
    yield _case(
        "attention forward",
        partial(attention_forward, out, lse, qkv, scratch, cfg.n_head, pack),
        2 * product + exps,
        [qkv, out, lse],
        cfg.n_layer,
    )
    yield _case(
        "attention backward",
        partial(attention_backward, dqkv, dout, out, lse, qkv, scratch, cfg.n_head, pack),
        5 * product + exps,  # the scores once more, and four products of gradients
        [dqkv, dout, out, lse, qkv],
        cfg.n_layer,
    )


def _row_cases(config: Config) -> Iterator[Case]:
    cfg, rows = config.model, _rows(config)
    x, residual, out = _values(*rows, cfg.n_embd), _values(*rows, cfg.n_embd), _zeros(*rows, cfg.n_embd)
    mean, rstd = _zeros(*rows), _zeros(*rows)
    weight, bias, dweight, dbias = (_values(cfg.n_embd) for _ in range(4))
    norms = 2 * cfg.n_layer + 1
    yield _case(
        "layernorm forward",
        partial(layernorm_forward, out, mean, rstd, x, weight, bias),
        8.0 * x.size,
        [out, x, mean, rstd],
        norms,
    )
    dx = _zeros(*x.shape)
    yield _case(
        "layernorm backward",
        partial(layernorm_backward, dx, dweight, dbias, residual, x, weight, mean, rstd),
        16.0 * x.size,
        [dx, dx, residual, x, mean, rstd],
        norms,
    )
    mask, places, seed = _zeros(cfg.n_embd + 3), np.arange(rows[0], dtype=np.int64), np.uint64(1)
    probability = cfg.dropout or 0.1
    yield _case(
        f"dropout {probability:g} + residual forward",
        partial(dropout_residual_forward, out, residual, x, mask, probability, seed, 1, places, 0),
        (MASK_OPS + 2.0) * x.size,
        [out, residual, x],
        2 * cfg.n_layer,
    )
    yield _case(
        f"dropout {probability:g} backward",
        partial(dropout_residual_backward, dx, residual, mask, probability, seed, 1, places, 0),
        (MASK_OPS + 1.0) * x.size,
        [dx, residual],
        2 * cfg.n_layer,
    )
    height, width = rows[0] * rows[1], cfg.mlp_width
    wide, wide_out, dwide = _values(height, width), _values(height, width), _zeros(height, width)
    yield _case(
        "gelu forward",
        partial(gelu_forward_block, wide_out, wide, 0, height, 0, width),
        (EXP_OPS + 7.0) * wide.size,
        [wide_out, wide],
        cfg.n_layer,
    )
    yield _case(
        "gelu backward",
        partial(gelu_backward_block, dwide, wide_out, wide, 0, height, 0, width),
        (EXP_OPS + 17.0) * wide.size,
        [dwide, dwide, wide_out, wide],
        cfg.n_layer,
    )


def _vocabulary_cases(config: Config) -> Iterator[Case]:
    cfg, rows, pack = config.model, _rows(config), _pack(config)
    random = np.random.default_rng(1)
    tokens, targets = (random.integers(0, cfg.vocab_size, rows, dtype=np.int32) for _ in range(2))
    x, dx = _values(*rows, cfg.n_embd), _zeros(*rows, cfg.n_embd)
    wte, wpe = _values(cfg.vocab_size, cfg.n_embd), _values(cfg.block_size, cfg.n_embd)
    dwte, dwpe = _zeros(*wte.shape), _zeros(*wpe.shape)
    yield _case("embedding forward", partial(embedding_forward, x, tokens, wte, wpe), x.size, [x] * 3, 1)
    yield _case(
        "embedding backward", partial(embedding_backward, dwte, dwpe, x, tokens), 2.0 * x.size, [x] * 5, 1
    )
    logits, dlogits = _values(*rows, cfg.vocab_size), _zeros(*rows, cfg.vocab_size)
    product = 2.0 * x.size * cfg.vocab_size
    yield _case("head forward", partial(head_forward, logits, x, wte, pack), product, [logits, x, wte], 1)
    losses, highest, others = _zeros(*rows), _zeros(*rows), _zeros(*rows)
    yield _case(
        "cross-entropy forward",
        partial(cross_entropy_forward, losses, highest, others, logits, targets),
        (EXP_OPS + 3.0) * logits.size,
        [losses, highest, others, logits],
        1,
    )
    yield _case(
        "cross-entropy backward",
        # in place, as a step does it
        partial(cross_entropy_backward, dlogits, dlogits, targets, highest, others, 1e-6),
        (EXP_OPS + 3.0) * logits.size,
        [dlogits, dlogits],
        1,
    )
    yield _case(
        "head backward",
        partial(head_backward, dx, dwte, dlogits, x, wte, False, pack),
        2 * product,
        [dx, dwte, dlogits, x, wte],
        1,
    )


def _flat_cases(config: Config) -> Iterator[Case]:
    parameters, shards = parameter_count(config.model), config.train.shards
    grad, norms = _zeros(parameters), np.zeros(chunk_count(parameters))
    slots, tree = _values(shards, parameters), make_tree(shards)
    yield _case(
        f"reduce of {shards} slots",
        partial(reduce_slots, grad, norms, slots, 0, len(norms), tree),
        (shards + 1.0) * parameters,
        [slots, grad],
        1,
    )
    params, m, v = _values(parameters), _zeros(parameters), _zeros(parameters)
    yield _case(
        "adamw",
        partial(adamw, params, m, v, grad, 0, parameters, 1.0, 1e-6, 0.9, 0.98, 1e-8, 0.1, 5),
        12.0 * parameters,
        [params, params, m, m, v, v, grad],
        1,
    )


def _rows(config: Config) -> tuple[int, int]:
    return config.train.micro_batch, config.model.block_size


def _pack(config: Config) -> PackBuffers:
    return make_pack_buffers(config.train.precision == "bf16")


def _values(*shape: int) -> Any:
    return np.random.default_rng(len(shape)).standard_normal(shape, np.float32) * np.float32(0.1)


def _zeros(*shape: int) -> Any:
    return np.zeros(shape, np.float32)


def _case(name: str, run: Callable[[], object], flops: float, traffic: list[Any], calls: int) -> Case:
    """`traffic` names each buffer once for every time that it is read or written."""
    moved = sum(array.nbytes for array in traffic)
    working_set = sum({id(array): array.nbytes for array in traffic}.values())
    return Case(name, run, flops, moved, working_set, calls)
