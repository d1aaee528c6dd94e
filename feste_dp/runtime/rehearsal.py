"""Calls every compiled function once, on a model of a few parameters, with the types of a real run.

That fills the cache of compiled code when it is empty (warmup.py), and checks that a worker loads its
code from there (worker.py).
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feste_dp.config.schema import ModelConfig, OptimConfig
from feste_dp.data.order import Spacing
from feste_dp.data.tokens import TokenData
from feste_dp.errors import RunError
from feste_dp.kernels.code_cache import code_place
from feste_dp.kernels.data_order import fill_offsets
from feste_dp.kernels.handover import go_away, hand_over, is_full, is_listening, listen, look
from feste_dp.kernels.peak import make_register_loop, make_triad_operands, triad
from feste_dp.kernels.reduction import add_slot, reduce_slots
from feste_dp.model.decoder import Decoder
from feste_dp.model.gpt2 import micro_batch
from feste_dp.model.parameters import decayed_count, initial_params, parameter_count, view_params
from feste_dp.model.sampling import Sampler
from feste_dp.optim.adamw import AdamW
from feste_dp.runtime.arena import Arena, create_arena
from feste_dp.runtime.letterbox import Letterbox
from feste_dp.runtime.shard_computer import ShardComputer, ShardSpec
from feste_dp.runtime.slots import ShardBlock

_MODEL = ModelConfig(vocab_size=256, block_size=8, n_layer=1, n_head=2, n_embd=8, dropout=0.1)
_SPEC = ShardSpec(
    model=_MODEL,
    shards=2,
    block=ShardBlock(0, 2),
    sequences_per_shard=1,
    micro_batch=1,
    seed=1,
    precision="fp32",
)
_WORKER_KERNELS: tuple[Any, ...] = (
    fill_offsets,
    micro_batch,
    add_slot,
    reduce_slots,
    listen,
    look,
    go_away,
    is_full,
    is_listening,
    hand_over,
)


def check_that_compiled_code_is_loaded() -> None:
    """Rehearse what a worker calls. Raises RunError when anything had to be compiled: that takes a minute, of
    each worker, and happens where the cache is damaged."""
    arena = create_arena(parameter_count(_MODEL), _SPEC.shards)
    _rehearse_worker(arena)
    os.close(arena.fd)
    if any(sum(kernel.stats.cache_misses.values()) for kernel in _WORKER_KERNELS):
        raise RunError(f"compiled code is missing from {code_place().path}: delete it and start again")


def rehearse_all() -> None:
    """Rehearse what workers, the coordinator and its benchmark call."""
    arena = create_arena(parameter_count(_MODEL), _SPEC.shards)
    _rehearse_worker(arena)
    initial_params(_MODEL, seed=1)
    optimizer = AdamW(len(arena.params), decayed_count(_MODEL), OptimConfig(), threads=1)
    optimizer.update(arena.params, arena.grad, 1, 1e-3, 1.0)
    rehearse_sampler(arena.params)
    _rehearse_yardsticks()
    os.close(arena.fd)


def rehearse_sampler(params: NDArray[np.float32] | None = None) -> None:
    """Load what a first sample would, which may come when the cache was removed."""
    if params is None:
        params = np.zeros(parameter_count(_MODEL), np.float32)
    p = view_params(params, _MODEL)
    Decoder(_MODEL, p, 1, _MODEL.block_size, threads=1).logits([0])
    list(Sampler(_MODEL, p).draw([0], 2, temperature=1.0, seed=1))


def _rehearse_yardsticks() -> None:
    for precision in ("fp32", "bf16"):
        loop = make_register_loop(precision)
        if loop is not None:
            loop.run(*loop.operands, 1)
    triad(*make_triad_operands(8), 1)


def _rehearse_worker(arena: Arena) -> None:
    computer = ShardComputer(_SPEC, arena, _tokens())
    for shard in range(2):
        computer.shard(1, shard, per_slot=2)
    computer.validation_unit(1, 0, Spacing(8, 1))
    computer.stripe(0, 1, 1)
    letterbox = Letterbox(arena.orders[0])
    letterbox.listen()
    letterbox.put(b"")
    letterbox.collect()
    letterbox.take(0.0)


def _tokens() -> TokenData:
    tokens: NDArray[np.uint16] = np.arange(32, dtype=np.uint16)
    return TokenData(Path(), tokens, tokens, 256, "", "", 0, 0)
