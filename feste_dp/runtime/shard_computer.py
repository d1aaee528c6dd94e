"""The numbers' side of a worker: what each order does to the arena. Knows nothing of sockets or processes."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from feste_dp.config.schema import ModelConfig, Precision
from feste_dp.data.order import Spacing, shard_offsets
from feste_dp.data.tokens import TokenData
from feste_dp.kernels.reduction import make_tree, reduce_slots
from feste_dp.kernels.stamps import make_clock, read_clock
from feste_dp.model.gpt2 import micro_batch_gradient, micro_batch_loss
from feste_dp.model.parameters import view_params
from feste_dp.model.workspace import make_workspace
from feste_dp.runtime.arena import Arena

_STAMPS, _STAMPS_PER_LAYER = 32, 40  # of one micro-batch, with room to spare


class ShardSpec(BaseModel):
    """What the arithmetic of a shard depends on, beside the weights and the tokens."""

    model_config = ConfigDict(frozen=True, strict=True)

    model: ModelConfig
    shards: int
    sequences_per_shard: int
    micro_batch: int
    seed: int
    precision: Precision


class ShardComputer:
    """Computes shards, stripes and units of validation, one at a time, in buffers of its own."""

    def __init__(self, spec: ShardSpec, arena: Arena, data: TokenData) -> None:
        self._spec, self._arena, self._data = spec, arena, data
        shape = (spec.micro_batch, spec.model.block_size)
        self._params = view_params(arena.params, spec.model)
        self._slots = [view_params(slot, spec.model) for slot in arena.slots]
        self._workspace = make_workspace(spec.model, *shape, bf16=spec.precision == "bf16")
        self._tokens, self._targets = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        self._tree = make_tree(spec.shards)
        # every shard divides by the token count of the global batch, so the all-reduce is a plain sum
        self._dloss = 1.0 / (spec.shards * spec.sequences_per_shard * spec.model.block_size)

    @property
    def layers(self) -> int:
        return self._spec.model.n_layer

    def shard(self, step: int, shard: int) -> float:
        """Overwrite the shard's slot with its gradient; returns its sum of losses."""
        loss_sum, spec, tokens = 0.0, self._spec, self._data.train
        size, block = spec.sequences_per_shard, spec.model.block_size
        offsets = shard_offsets(spec.seed, step, shard, spec.shards, size, len(tokens), block)
        draws = self._micro_batches(tokens, step, shard * size, offsets)
        for micro_batch, draw in enumerate(draws):
            loss_sum += micro_batch_gradient(
                self._slots[shard],
                self._workspace,
                self._params,
                self._tokens,
                self._targets,
                self._dloss,
                self._spec.model.n_head,
                self._spec.model.dropout,
                draw,
                micro_batch > 0,
            )
        return loss_sum

    def time_kernels(self, wanted: bool) -> None:
        """Whether the kernels of the shards to come are timed, in the same compiled call."""
        micro_batches = self._spec.sequences_per_shard // self._spec.micro_batch
        room = micro_batches * (_STAMPS + _STAMPS_PER_LAYER * self._spec.model.n_layer) if wanted else 0
        scratch = self._workspace.s._replace(clock=make_clock(room))
        self._workspace = self._workspace._replace(s=scratch)

    def kernel_times(self) -> list[tuple[int, float]]:
        """The stamps of the shard before, where they were wanted: see kernels/stamps.py."""
        return read_clock(self._workspace.s.clock)

    def spoil(self, shard: int) -> None:
        """Put a NaN into the shard's slot, for a test of what follows."""
        self._arena.slots[shard, 0] = np.nan

    def validation_unit(self, step: int, unit: int, spacing: Spacing) -> float:
        """Sum of losses of one unit of held-out sequences so spaced, dropout off."""
        loss_sum, size = 0.0, self._spec.sequences_per_shard
        offsets = spacing.offsets(unit * size, size)
        for draw in self._micro_batches(self._data.val, step, unit * size, offsets):
            loss_sum += micro_batch_loss(
                self._workspace, self._params, self._tokens, self._targets, self._spec.model.n_head, draw
            )
        return loss_sum

    def stripe(self, first: int, last: int) -> None:
        """Overwrite chunks first .. last - 1 of the summed gradient and of the norms."""
        reduce_slots(self._arena.grad, self._arena.norms, self._arena.slots, first, last, self._tree)

    def _micro_batches(
        self, source: NDArray[np.unsignedinteger], step: int, first_place: int, offsets: NDArray[np.int64]
    ) -> Iterator[tuple[np.uint64, int, NDArray[np.int64]]]:
        """Put each micro-batch's rows into _tokens and _targets; yields what keys its dropout masks."""
        rows, positions = self._tokens.shape
        for start in range(0, len(offsets), rows):
            for row, offset in enumerate(offsets[start : start + rows].tolist()):
                self._tokens[row] = source[offset : offset + positions]
                self._targets[row] = source[offset + 1 : offset + positions + 1]
            yield (
                np.uint64(self._spec.seed),
                step,
                np.arange(first_place + start, first_place + start + rows, dtype=np.int64),
            )
