"""GPT-2 as two more listings, for text that grows: `read` takes in whole prompts, `extend` one token a row.

Both keep the keys and values of what they have seen, and compute what `forward` (gpt2.py) does in the same
order of operations. They are run by several threads at once, each with its part of the rows, columns or heads;
where one needs what others wrote, all meet. R is rows, each a position of some text.
"""

from typing import Any, NamedTuple

import numpy as np

from feste_dp.config.schema import ModelConfig
from feste_dp.kernels.attention import KEY_BLOCK, attention_head_forward, make_attention_scratch
from feste_dp.kernels.cached_attention import PANEL, cached_attention, head_room, store_key_value
from feste_dp.kernels.compilation import kernel
from feste_dp.kernels.gelu import gelu_forward_block
from feste_dp.kernels.layernorm import layernorm_forward
from feste_dp.kernels.linear import linear_forward, linear_gelu_forward, linear_residual_forward
from feste_dp.kernels.matmul import matmul
from feste_dp.kernels.meeting import WORDS_OF_A_LINE, meet, share
from feste_dp.kernels.packing import make_pack_buffers
from feste_dp.kernels.vector.target import LANES
from feste_dp.kernels.vector_product import head_rows, linear_rows
from feste_dp.model.parameters import Parameters
from feste_dp.model.workspace import Zeros

MOST_ROWS = 32
"""Rows for which a weight is read in one stream; more are worth packing it."""


class Cache(NamedTuple):
    """Keys and values of the texts that grow, a slot each; T is whole panels."""

    keys: Any  # (L, slots, H, T / PANEL, D, PANEL)
    values: Any  # (L, slots, H, T, D)


class Rows(NamedTuple):
    """What one layer after the other needs for R rows; every thread writes its part."""

    x: Any  # (R, 1, C)  residual stream
    ln: Any  # (R, 1, C)
    qkv: Any  # (R, 1, 3C)
    attn: Any  # (R, 1, C)
    fc: Any  # (R, 1, 4C)
    fc_gelu: Any  # (R, 1, 4C)
    mean: Any  # (R, 1)
    rstd: Any  # (R, 1)


class Own(NamedTuple):
    """One thread's scratch."""

    attention: Any  # as pack and lse, for the longest prompt
    pack: Any
    lse: Any  # (T,)
    ln: Any  # (R, 1, C)  every thread computes all of it: that is faster than to meet once more
    mean: Any  # (R, 1)
    rstd: Any  # (R, 1)
    last: Any  # (R, C)
    sums: Any  # (R, 4C or n_inner + LANES)
    scores: Any  # (KEY_BLOCK,)
    head: Any  # (head_room(D),)
    tile: Any  # (LANES * LANES,)
    totals: Any  # (R, 2 * LANES)


def make_cache(cfg: ModelConfig, slots: int, positions: int, make_zeros: Zeros = np.zeros) -> Cache:
    panels, head = -(-positions // PANEL), cfg.n_embd // cfg.n_head
    places = (cfg.n_layer, slots, cfg.n_head)
    return Cache(
        make_zeros((*places, panels, head, PANEL), np.float32),
        make_zeros((*places, panels * PANEL, head), np.float32),
    )


def make_rows(cfg: ModelConfig, rows: int, make_zeros: Zeros = np.zeros) -> Rows:
    def zeros(*shape: int) -> Any:
        return make_zeros((rows, *shape), np.float32)

    channels = cfg.n_embd
    return Rows(
        x=zeros(1, channels),
        ln=zeros(1, channels),
        qkv=zeros(1, 3 * channels),
        attn=zeros(1, channels),
        fc=zeros(1, cfg.mlp_width),
        fc_gelu=zeros(1, cfg.mlp_width),
        mean=zeros(1),
        rstd=zeros(1),
    )


def make_own(cfg: ModelConfig, rows: int, positions: int, make_zeros: Zeros = np.zeros) -> Own:
    """Scratch to extend `rows` texts, and to read prompts of at most so many positions."""
    head = cfg.n_embd // cfg.n_head
    return Own(
        attention=make_attention_scratch(positions, head, make_zeros),
        pack=make_pack_buffers(zeros=make_zeros),
        lse=make_zeros((positions,), np.float32),
        ln=make_zeros((rows, 1, cfg.n_embd), np.float32),
        mean=make_zeros((rows, 1), np.float32),
        rstd=make_zeros((rows, 1), np.float32),
        last=make_zeros((rows, cfg.n_embd), np.float32),
        sums=make_zeros((rows, max(4 * cfg.n_embd, cfg.mlp_width) + LANES), np.float32),
        scores=make_zeros((KEY_BLOCK,), np.float32),
        head=make_zeros((head_room(head),), np.float32),
        tile=make_zeros((LANES * LANES,), np.float32),
        totals=make_zeros((rows, 2 * LANES), np.float32),
    )


def make_words(parts: int) -> Any:
    return np.zeros((parts, WORDS_OF_A_LINE), np.int64)


# One call a line: checked against gpt2.py's listing by eye, so the formatter stays out.
# fmt: off


@kernel
def read(logits: Any, cache: Cache, r: Rows, own: Own, p: Parameters, text: Any, wanted: Any, n_head: int, words: Any, part: int) -> None:
    """Take in whole prompts, each from its position 0 on: many rows. Arguments as of `extend`, but that the rows of a
    prompt follow each other."""
    tokens, places, slots = text
    first, last = share(tokens.shape[0], 1, part, words.shape[0])
    x, ln, qkv, attn, fc, fc_gelu = r.x[first:last], r.ln[first:last], r.qkv[first:last], r.attn[first:last], r.fc[first:last], r.fc_gelu[first:last]
    mean, rstd = r.mean[first:last], r.rstd[first:last]
    _embed(r.x, tokens, places, p.wte, p.wpe, first, last)
    for layer in range(p.ln_1_w.shape[0]):
        layernorm_forward(ln, mean, rstd, x, p.ln_1_w[layer], p.ln_1_b[layer])
        linear_forward(qkv, ln, p.attn_qkv_w[layer], p.attn_qkv_b[layer], own.pack)
        meet(words, part)
        _attend_in_prompts(r, cache.keys[layer], cache.values[layer], own, places, slots, n_head, words.shape[0], part)
        meet(words, part)
        linear_residual_forward(x, attn, p.attn_proj_w[layer], p.attn_proj_b[layer], x, own.pack)
        layernorm_forward(ln, mean, rstd, x, p.ln_2_w[layer], p.ln_2_b[layer])
        linear_gelu_forward(fc, fc_gelu, ln, p.mlp_fc_w[layer], p.mlp_fc_b[layer], own.pack)
        linear_residual_forward(x, fc_gelu, p.mlp_proj_w[layer], p.mlp_proj_b[layer], x, own.pack)
    layernorm_forward(ln, mean, rstd, x, p.ln_f_w, p.ln_f_b)
    meet(words, part)
    _write_logits(logits, r.ln, own, p.lm_head_w, wanted, words.shape[0], part)
    meet(words, part)


@kernel
def extend(logits: Any, cache: Cache, r: Rows, own: Own, p: Parameters, text: Any, wanted: Any, n_head: int, words: Any, part: int) -> None:
    """Add a token to each text, or a few: row i is tokens[i], at position places[i] of the text in slots[i].

    text = (tokens, places, slots), each (R,); all positions before them are in the cache, or among the rows.
    logits (n, V) are what may come after rows wanted (n,); words, part: see meet().
    """
    tokens, places, slots = text
    parts, channels = words.shape[0], p.wte.shape[1]
    thirds, ones, fours = share(3 * channels, LANES, part, parts), share(channels, LANES, part, parts), share(r.fc.shape[2], LANES, part, parts)
    if part == 0:
        _embed(r.x, tokens, places, p.wte, p.wpe, 0, tokens.shape[0])
    meet(words, part)
    for layer in range(p.ln_1_w.shape[0]):
        layernorm_forward(own.ln, own.mean, own.rstd, r.x, p.ln_1_w[layer], p.ln_1_b[layer])
        linear_rows(r.qkv[:, 0], own.ln[:, 0], p.attn_qkv_w[layer], p.attn_qkv_b[layer], False, thirds[0], thirds[1], own.sums)
        meet(words, part)
        _attend_in_cache(r, cache.keys[layer], cache.values[layer], own, places, slots, n_head, parts, part)
        meet(words, part)
        linear_rows(r.x[:, 0], r.attn[:, 0], p.attn_proj_w[layer], p.attn_proj_b[layer], True, ones[0], ones[1], own.sums)
        meet(words, part)
        layernorm_forward(own.ln, own.mean, own.rstd, r.x, p.ln_2_w[layer], p.ln_2_b[layer])
        linear_rows(r.fc[:, 0], own.ln[:, 0], p.mlp_fc_w[layer], p.mlp_fc_b[layer], False, fours[0], fours[1], own.sums)
        gelu_forward_block(r.fc_gelu[:, 0], r.fc[:, 0], 0, tokens.shape[0], fours[0], fours[1])
        meet(words, part)
        linear_rows(r.x[:, 0], r.fc_gelu[:, 0], p.mlp_proj_w[layer], p.mlp_proj_b[layer], True, ones[0], ones[1], own.sums)
        meet(words, part)
    layernorm_forward(own.ln, own.mean, own.rstd, r.x, p.ln_f_w, p.ln_f_b)
    _write_logits(logits, own.ln, own, p.lm_head_w, wanted, parts, part)
    meet(words, part)


# fmt: on


@kernel
def _embed(x: Any, tokens: Any, places: Any, wte: Any, wpe: Any, first: int, last: int) -> None:
    for row in range(first, last):
        token, place = tokens[row], places[row]
        for c in range(x.shape[2]):
            x[row, 0, c] = wte[token, c] + wpe[place, c]


@kernel
def _attend_in_prompts(
    r: Rows, keys: Any, values: Any, own: Own, places: Any, slots: Any, n_head: int, parts: int, part: int
) -> None:
    """Each prompt's heads, spread over the threads; their keys and values are kept."""
    rows, channels = places.shape[0], r.attn.shape[2]
    head = channels // n_head
    start = prompt = 0
    while start < rows:
        stop = start + 1
        while stop < rows and places[stop] > 0:
            stop += 1
        for h in range(n_head):
            if (prompt * n_head + h) % parts != part:
                continue
            c = h * head
            q = r.qkv[start:stop, 0, c : c + head]
            k = r.qkv[start:stop, 0, channels + c : channels + c + head]
            v = r.qkv[start:stop, 0, 2 * channels + c : 2 * channels + c + head]
            for t in range(stop - start):
                store_key_value(keys[slots[start], h], values[slots[start], h], t, k[t], v[t])
            out, lse = r.attn[start:stop, 0, c : c + head], own.lse[: stop - start]
            attention_head_forward(out, lse, q, k, v, own.attention, own.pack)
        start, prompt = stop, prompt + 1


@kernel
def _attend_in_cache(
    r: Rows, keys: Any, values: Any, own: Own, places: Any, slots: Any, n_head: int, parts: int, part: int
) -> None:
    """Each text's heads, spread over the threads, with its new rows in order."""
    rows, channels = places.shape[0], r.attn.shape[2]
    head = channels // n_head
    for row in range(rows):
        slot = slots[row]
        for h in range(n_head):
            if (slot * n_head + h) % parts != part:
                continue
            c = h * head
            q = r.qkv[row, 0, c : c + head]
            k = r.qkv[row, 0, channels + c : channels + c + head]
            v = r.qkv[row, 0, 2 * channels + c : 2 * channels + c + head]
            store_key_value(keys[slot, h], values[slot, h], places[row], k, v)
            out = r.attn[row, 0, c : c + head]
            cached_attention(out, q, keys[slot, h], values[slot, h], places[row] + 1, own.scores, own.head)


@kernel
def _write_logits(logits: Any, x: Any, own: Own, weight: Any, wanted: Any, parts: int, part: int) -> None:
    """The head for some rows, spread by vocabulary, or for many, spread by rows."""
    rows = wanted.shape[0]
    if rows > MOST_ROWS:
        first, last = share(rows, 1, part, parts)
        x_rows = x.reshape(x.shape[0], x.shape[2])
        matmul(logits[first:last], x_rows[wanted[0] + first : wanted[0] + last], weight.T, False, own.pack)
    else:
        for i in range(rows):
            own.last[i] = x[wanted[i], 0]
        first, last = share(weight.shape[0], LANES, part, parts)
        head_rows(logits, own.last[:rows], weight, first, last, own.tile, own.totals)
