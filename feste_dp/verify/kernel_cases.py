"""Every kernel of a run alone, on fixed inputs, in the order of a step: what it writes, to be hashed.

Two shapes: of whole vectors and blocks, and ragged. Inputs are made of whole numbers, not by a library.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from feste_dp.kernels.adamw import adamw
from feste_dp.kernels.attention import (
    KEY_BLOCK,
    attention_backward,
    attention_forward,
    make_attention_scratch,
)
from feste_dp.kernels.cached_attention import PANEL, cached_attention, head_room, store_key_value
from feste_dp.kernels.choice import softmax_weights
from feste_dp.kernels.compilation import kernel
from feste_dp.kernels.cross_entropy import cross_entropy_backward, cross_entropy_forward
from feste_dp.kernels.data_order import fill_offsets
from feste_dp.kernels.dropout import dropout_residual_backward, dropout_residual_forward
from feste_dp.kernels.embedding import embedding_backward, embedding_forward
from feste_dp.kernels.gelu import gelu_backward_block, gelu_forward_block
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
from feste_dp.kernels.logarithm import log, log1p
from feste_dp.kernels.normal import fill_normal
from feste_dp.kernels.packing import PackBuffers, make_pack_buffers
from feste_dp.kernels.philox import STREAM_SAMPLE, uniform
from feste_dp.kernels.reduction import add_slot, chunk_count, make_tree, reduce_slots
from feste_dp.kernels.sums import row_maximum, row_product, row_squares, row_sum
from feste_dp.kernels.vector.exponential import exp
from feste_dp.kernels.vector.registers import address_of, load_vector, store_vector
from feste_dp.kernels.vector.target import FLOAT_BYTES, LANES
from feste_dp.kernels.vector_product import head_rows, linear_rows
from feste_dp.model.choosing import Choice, choose
from feste_dp.optim.clipping import clip_factor, gradient_norm
from feste_dp.optim.schedule import Kind, learning_rate

Arrays = Sequence[Any]
"""Whose bytes, in order, are what a kernel gave."""


class Case(NamedTuple):
    name: str
    file: str
    """Its source, below feste_dp/"""
    run: Callable[[], Arrays]


@dataclass(frozen=True)
class _Shape:
    """Sizes by the letters of kernels/__init__.py."""

    b: int
    t: int
    c: int
    h: int
    v: int

    @property
    def rows(self) -> tuple[int, int]:
        return self.b, self.t


_SHAPES = (_Shape(1, 208, 128, 2, 512), _Shape(2, 37, 45, 3, 301))
_DEEP = 1100  # of a product: more than two blocks of depth
_SEED, _PROBABILITY = np.uint64(2024), 0.15


def kernel_cases() -> Iterator[Case]:
    yield Case("data order", "kernels/data_order.py", _data_order)
    yield Case("initial weights", "kernels/normal.py", _normal)
    yield Case("logarithm", "kernels/logarithm.py", _logarithm)
    yield Case("exponential", "kernels/vector/exponential.py", _exponential)
    yield Case("sums", "kernels/sums.py", _sums)
    yield from _forward_cases()
    yield from _backward_cases()
    yield Case("sum of slots", "kernels/reduction.py", _reduction)
    yield Case("clipping", "optim/clipping.py", _clipping)
    yield Case("schedule", "optim/schedule.py", _schedule)
    yield Case("adamw", "kernels/adamw.py", _adamw)
    yield Case("linear, few rows", "kernels/vector_product.py", _few_rows)
    yield Case("attention, cached", "kernels/cached_attention.py", _cached_attention)
    yield Case("choice of a token", "model/choosing.py", _choice)


def _forward_cases() -> Iterator[Case]:
    yield _shaped("embedding forward", "kernels/embedding.py", _embedding_forward)
    yield _shaped("layernorm forward", "kernels/layernorm.py", _layernorm_forward)
    yield from _products("linear forward", "kernels/matmul.py", _linear_forward)
    yield from _products("attention forward", "kernels/attention.py", _attention_forward)
    yield _shaped("dropout forward", "kernels/dropout.py", _dropout_forward)
    yield _shaped("gelu forward", "kernels/gelu.py", _gelu_forward)
    yield from _products("linear + gelu forward", "kernels/matmul.py", _linear_gelu_forward)
    yield from _products("linear + residual forward", "kernels/matmul.py", _linear_residual_forward)
    yield from _products("head forward", "kernels/matmul.py", _head_forward)
    yield _shaped("cross-entropy forward", "kernels/cross_entropy.py", _cross_entropy_forward)


def _backward_cases() -> Iterator[Case]:
    yield _shaped("cross-entropy backward", "kernels/cross_entropy.py", _cross_entropy_backward)
    yield from _products("head backward", "kernels/matmul.py", _head_backward)
    yield _shaped("layernorm backward", "kernels/layernorm.py", _layernorm_backward)
    yield _shaped("dropout backward", "kernels/dropout.py", _dropout_backward)
    yield _shaped("gelu backward", "kernels/gelu.py", _gelu_backward)
    yield from _products("gelu + linear backward", "kernels/matmul.py", _gelu_linear_backward)
    yield from _products("linear backward", "kernels/matmul.py", _linear_backward)
    yield from _products("attention backward", "kernels/attention.py", _attention_backward)
    yield _shaped("embedding backward", "kernels/embedding.py", _embedding_backward)


def _shaped(name: str, file: str, run: Callable[[_Shape], Arrays]) -> Case:
    return Case(name, file, lambda: [array for shape in _SHAPES for array in run(shape)])


def _products(name: str, file: str, run: Callable[[_Shape, PackBuffers], Arrays]) -> Iterator[Case]:
    for precision in ("fp32", "bf16"):

        def in_precision(shape: _Shape, is_bf16: bool = precision == "bf16") -> Arrays:
            return run(shape, make_pack_buffers(is_bf16))

        yield _shaped(f"{name}, {precision}", file, in_precision)


def _values(*shape: int, seed: int = 0, scale: float = 1.0) -> NDArray[np.float32]:
    """Evenly spread in [-scale, scale), scale a power of two: 24 bits of SplitMix64 of each place."""
    word = np.arange(1, 1 + np.prod(shape, dtype=np.int64), dtype=np.uint64)
    word = (word + np.uint64(seed << 32)) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        word = (word ^ (word >> np.uint64(shift))) * np.uint64(factor)
    word ^= word >> np.uint64(31)
    numbers = (word >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)
    return (numbers * np.float32(scale)).reshape(shape)


def _tokens(shape: _Shape, seed: int) -> NDArray[np.int32]:
    return ((_values(*shape.rows, seed=seed) + np.float32(1)) * np.float32(shape.v // 2)).astype(np.int32)


def _zeros(*shape: int) -> NDArray[np.float32]:
    return np.zeros(shape, np.float32)


def _data_order() -> Arrays:
    long, short = np.zeros(300, np.int64), np.zeros(90, np.int64)
    fill_offsets(long, _SEED, 250, 24_000, 64)
    fill_offsets(short, _SEED, 11, 1_000, 37)
    return long, short


def _normal() -> Arrays:
    out = _zeros(20_001)  # enough for some from the rare tails
    fill_normal(out, 0.02, 3, _SEED)
    return (out,)


@kernel
def _fill_logarithms(out: Any, x: Any) -> None:
    for i in range(x.shape[0]):
        out[0, i], out[1, i] = log(x[i]), log1p(x[i])


def _logarithm() -> Arrays:
    steps = np.arange(4000, dtype=np.float64)
    x = np.concatenate([(1 + steps) / 3001, 1 + 300 * steps, np.ldexp(1 + steps / 4001, -60)])
    out = np.zeros((2, len(x)))
    _fill_logarithms(out, x)
    return (out,)


@kernel
def _fill_exponentials(out: Any, x: Any) -> None:
    """out[0] by vectors, out[1] one by one; x (n,), n whole vectors"""
    for i in range(0, x.shape[0], LANES):
        at = FLOAT_BYTES * i
        store_vector(address_of(out[0]) + at, exp(load_vector(address_of(x) + at)))  # type: ignore[call-arg]
    for i in range(x.shape[0]):
        out[1, i] = exp(x[i])


def _exponential() -> Arrays:
    x = np.concatenate([_values(4096, scale=128.0), _values(4096, scale=1.0), _values(4096, scale=2.0**-9)])
    out = _zeros(2, len(x))
    _fill_exponentials(out, x)
    return (out,)


@kernel
def _fill_sums(out: Any, x: Any, y: Any) -> None:
    n = x.shape[0]
    out[0] = row_sum(address_of(x), n)  # type: ignore[call-arg]
    out[1] = row_squares(address_of(x), n, y[0])
    out[2] = row_product(address_of(x), address_of(y), n)
    out[3] = row_maximum(address_of(x), n)


def _sums() -> Arrays:
    lengths = (1, 7, 16, 31, 257, 1000)
    sums = _zeros(len(lengths), 4)
    for row, n in enumerate(lengths):
        x, y = _values(n, seed=1), _values(n, seed=2)
        _fill_sums(sums[row], x, y)
    return (sums,)


def _embedding_forward(shape: _Shape) -> Arrays:
    out, wte, wpe = _zeros(*shape.rows, shape.c), _values(shape.v, shape.c), _values(shape.t, shape.c, seed=1)
    embedding_forward(out, _tokens(shape, 2), wte, wpe)
    return (out,)


def _embedding_backward(shape: _Shape) -> Arrays:
    dwte, dwpe = _values(shape.v, shape.c), _values(shape.t, shape.c, seed=1)
    embedding_backward(dwte, dwpe, _values(*shape.rows, shape.c, seed=2), _tokens(shape, 3))
    return dwte, dwpe


def _normalized(shape: _Shape) -> tuple[Any, ...]:
    x, weight, bias = (
        _values(*shape.rows, shape.c),
        _values(shape.c, seed=1),
        _values(shape.c, seed=2),
    )
    out, mean, rstd = _zeros(*x.shape), _zeros(*shape.rows), _zeros(*shape.rows)
    layernorm_forward(out, mean, rstd, x, weight, bias)
    return out, x, weight, bias, mean, rstd


def _layernorm_forward(shape: _Shape) -> Arrays:
    out, x, weight, bias, mean, rstd = _normalized(shape)
    again = _zeros(*x.shape)
    layernorm_again(again, x, weight, bias, mean, rstd)
    return out, again, mean, rstd


def _layernorm_backward(shape: _Shape) -> Arrays:
    _, x, weight, _, mean, rstd = _normalized(shape)
    dx, dout = _values(*x.shape, seed=3), _values(*x.shape, seed=4)
    dweight, dbias = _values(shape.c, seed=5), _values(shape.c, seed=6)
    layernorm_backward(dx, dweight, dbias, dout, x, weight, mean, rstd)
    return dx, dweight, dbias


def _layer(shape: _Shape) -> tuple[Any, ...]:
    """x, weight and bias of a linear layer, and its room for out."""
    x, weight = _values(*shape.rows, _DEEP), _values(_DEEP, shape.c, seed=1, scale=0.125)
    return x, weight, _values(shape.c, seed=2), _zeros(*shape.rows, shape.c)


def _linear_forward(shape: _Shape, pack: PackBuffers) -> Arrays:
    x, weight, bias, out = _layer(shape)
    linear_forward(out, x, weight, bias, pack)
    return (out,)


def _linear_residual_forward(shape: _Shape, pack: PackBuffers) -> Arrays:
    x, weight, bias, out = _layer(shape)
    linear_residual_forward(out, x, weight, bias, _values(*out.shape, seed=3), pack)
    return (out,)


def _linear_gelu_forward(shape: _Shape, pack: PackBuffers) -> Arrays:
    x, weight, bias, out = _layer(shape)
    gelu_out = _zeros(*out.shape)
    linear_gelu_forward(out, gelu_out, x, weight, bias, pack)
    return out, gelu_out


def _linear_backward(shape: _Shape, pack: PackBuffers) -> Arrays:
    x, weight, bias, out = _layer(shape)
    dx, dweight, dbias, dout = _zeros(*x.shape), _values(*weight.shape, seed=3), bias, out
    given = []
    dout[...] = _values(*out.shape, seed=4)
    for accumulate in (False, True):
        linear_backward(dx, dweight, dbias, dout, x, weight, accumulate, pack)
        given += [dx.copy(), dweight.copy(), dbias.copy()]
    return given


def _gelu_linear_backward(shape: _Shape, pack: PackBuffers) -> Arrays:
    pre, weight, dbias, dout = _layer(shape)
    dpre, gelu_pre, dweight = _zeros(*pre.shape), _zeros(*pre.shape), _zeros(*weight.shape)
    dout[...] = _values(*dout.shape, seed=3)
    gelu_linear_backward(dpre, dweight, dbias, dout, pre, gelu_pre, weight, False, pack)
    return dpre, gelu_pre, dweight, dbias


def _head_forward(shape: _Shape, pack: PackBuffers) -> Arrays:
    logits, x = _zeros(*shape.rows, shape.v), _values(*shape.rows, shape.c)
    head_forward(logits, x, _values(shape.v, shape.c, seed=1), pack)
    return (logits,)


def _head_backward(shape: _Shape, pack: PackBuffers) -> Arrays:
    x, weight = _values(*shape.rows, shape.c), _values(shape.v, shape.c, seed=1)
    dx, dweight = _zeros(*x.shape), _zeros(*weight.shape)
    head_backward(dx, dweight, _values(*shape.rows, shape.v, seed=2), x, weight, False, pack)
    return dx, dweight


def _attended(shape: _Shape, pack: PackBuffers) -> tuple[Any, ...]:
    qkv, out = _values(*shape.rows, 3 * shape.c, scale=2.0), _zeros(*shape.rows, shape.c)
    lse, scratch = _zeros(shape.b, shape.h, shape.t), make_attention_scratch(shape.t, shape.c // shape.h)
    attention_forward(out, lse, qkv, scratch, shape.h, pack)
    return out, lse, qkv, scratch


def _attention_forward(shape: _Shape, pack: PackBuffers) -> Arrays:
    return _attended(shape, pack)[:2]


def _attention_backward(shape: _Shape, pack: PackBuffers) -> Arrays:
    out, lse, qkv, scratch = _attended(shape, pack)
    dqkv, dout = _zeros(*qkv.shape), _values(*out.shape, seed=1)
    attention_backward(dqkv, dout, out, lse, qkv, scratch, shape.h, pack)
    return (dqkv,)


def _dropout_forward(shape: _Shape) -> Arrays:
    residual, branch = _values(*shape.rows, shape.c), _values(*shape.rows, shape.c, seed=1)
    out, mask, places = _zeros(*branch.shape), _zeros(shape.c + 3), np.arange(5, 5 + shape.b)
    dropout_residual_forward(out, residual, branch, mask, _PROBABILITY, _SEED, 7, places, 3)
    return (out,)


def _dropout_backward(shape: _Shape) -> Arrays:
    dout, mask, places = _values(*shape.rows, shape.c), _zeros(shape.c + 3), np.arange(5, 5 + shape.b)
    dbranch = _zeros(*dout.shape)
    dropout_residual_backward(dbranch, dout, mask, _PROBABILITY, _SEED, 7, places, 3)
    return (dbranch,)


def _gelu_forward(shape: _Shape) -> Arrays:
    x, out = _values(shape.t, shape.c, scale=8.0), _zeros(shape.t, shape.c)
    gelu_forward_block(out, x, 0, shape.t, 0, shape.c)
    return (out,)


def _gelu_backward(shape: _Shape) -> Arrays:
    x, dx = _values(shape.t, shape.c, scale=8.0), _values(shape.t, shape.c, seed=1)
    out = _zeros(*x.shape)
    gelu_backward_block(dx, out, x, 0, shape.t, 0, shape.c)
    return dx, out


def _scored(shape: _Shape) -> tuple[Any, ...]:
    logits, targets = _values(*shape.rows, shape.v, scale=16.0), _tokens(shape, 1)
    losses, highest, others = (_zeros(*shape.rows) for _ in range(3))
    cross_entropy_forward(losses, highest, others, logits, targets)
    return losses, highest, others, logits, targets


def _cross_entropy_forward(shape: _Shape) -> Arrays:
    return _scored(shape)[:3]


def _cross_entropy_backward(shape: _Shape) -> Arrays:
    _, highest, others, logits, targets = _scored(shape)
    cross_entropy_backward(logits, logits, targets, highest, others, 1 / logits.size)
    return (logits,)


def _reduction() -> Arrays:
    given: list[Any] = []
    for shards, parameters in ((1, 100), (2, 40_007), (16, 20_000)):
        slots, grad = _values(shards, parameters), _zeros(parameters)
        norms = np.zeros(chunk_count(parameters))
        reduce_slots(grad, norms, slots, 0, len(norms), make_tree(shards))
        given += [grad, norms]
    slot = _values(1001)
    add_slot(slot, _values(1001, seed=1))
    return [*given, slot]


def _clipping() -> Arrays:
    norms = _values(500).astype(np.float64) ** 2
    norm = gradient_norm(norms)
    return (np.array([norm, clip_factor(norm, 1.0), clip_factor(norm, 1e3)]),)


def _schedule() -> Arrays:
    kinds: tuple[Kind, ...] = ("cosine", "linear", "constant")
    rates = [
        learning_rate(step, lr=3e-3, min_lr=1e-4, warmup_steps=7, steps=211, kind=kind)
        for kind in kinds
        for step in range(1, 220)
    ]
    return (np.array(rates),)


def _adamw() -> Arrays:
    n = 5003
    params, m, v = _values(n), _values(n, seed=1, scale=0.125), np.abs(_values(n, seed=2, scale=2.0**-6))
    grad = _values(n, seed=3)
    for step in (1, 2, 1000):
        adamw(params, m, v, grad, 0, 3001, 0.3, 1e-3, 0.9, 0.98, 1e-8, 0.1, step)
        adamw(params, m, v, grad, 3001, n, 0.3, 1e-3, 0.9, 0.98, 1e-8, 0.0, step)
    return params, m, v


def _few_rows() -> Arrays:
    x, weight, bias = _values(3, _DEEP), _values(_DEEP, 77, seed=1, scale=0.125), _values(77, seed=2)
    out, sums = _values(3, 77, seed=3), _zeros(3, 77 + LANES)
    linear_rows(out, x, weight, bias, True, 0, 77, sums)
    logits, head = _zeros(3, 301), _values(301, 45, seed=4)
    head_rows(
        logits,
        np.ascontiguousarray(x[:, :45]),
        head,
        0,
        301,
        _zeros(LANES * LANES),
        _zeros(3, 2 * LANES),
    )
    return out, logits


def _cached_attention() -> Arrays:
    head, positions = 45, 300
    panels = -(-positions // PANEL)
    keys, values = _zeros(panels, head, PANEL), _zeros(panels * PANEL, head)
    for t in range(positions):
        store_key_value(keys, values, t, _values(head, seed=2 * t), _values(head, seed=2 * t + 1))
    given = []
    for count in (1, 17, positions):
        out, scores, sums = _zeros(head), _zeros(KEY_BLOCK), _zeros(head_room(head))
        cached_attention(out, _values(head, seed=1000, scale=2.0), keys, values, count, scores, sums)
        given.append(out)
    return given


def _choice() -> Arrays:
    scores = _values(512, scale=8.0)
    weights = np.zeros(len(scores))
    softmax_weights(weights, scores, float(scores.max()), 0.7)
    choices = (Choice(), Choice(1.5, top_k=20), Choice(1.0, top_p=0.8, min_p=0.01), Choice(0.5))
    tokens = [
        choose(scores, uniform(i, 0, 3, STREAM_SAMPLE, _SEED), choices[i % len(choices)]) for i in range(64)
    ]
    return weights, np.array(tokens, np.int64)
