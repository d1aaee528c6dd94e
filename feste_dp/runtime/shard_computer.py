"""The numbers' side of a worker: what each order does to the arena. Knows nothing of sockets or processes."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from feste_dp.config.schema import Config, ModelConfig, Precision
from feste_dp.data.order import Spacing, shard_offsets
from feste_dp.data.tokens import TokenData
from feste_dp.kernels.reduction import add_slot, make_tree, reduce_slots
from feste_dp.kernels.stamps import make_clock, read_clock
from feste_dp.model.gpt2 import micro_batch_gradient, micro_batch_loss
from feste_dp.model.parameters import Parameters, view_params
from feste_dp.model.workspace import make_workspace
from feste_dp.runtime.arena import Arena, pages_of_zeros
from feste_dp.runtime.slots import ShardBlock, partial_sums

_STAMPS, _STAMPS_PER_LAYER, _STAMPS_PER_BLOCK = 32, 40, 8  # of one micro-batch, with room to spare


class ShardSpec(BaseModel):
    """What the arithmetic of a shard depends on, beside the weights and the tokens."""

    model_config = ConfigDict(frozen=True, strict=True)

    model: ModelConfig
    shards: int
    """Of the batch, on all machines together."""
    block: ShardBlock
    """Which of them are computed here."""
    sequences_per_shard: int
    micro_batch: int
    seed: int
    precision: Precision

    @classmethod
    def of(cls, config: Config, block: ShardBlock) -> "ShardSpec":
        train = config.train
        return cls(
            model=config.model,
            shards=train.shards,
            block=block,
            sequences_per_shard=train.sequences_per_shard,
            micro_batch=train.micro_batch,
            seed=train.seed,
            precision=train.precision,
        )


class ShardComputer:
    """Computes shards, stripes and units of validation, one at a time, in buffers of its own."""

    def __init__(self, spec: ShardSpec, arena: Arena, data: TokenData) -> None:
        self._spec, self._arena, self._data = spec, arena, data
        shape = (spec.micro_batch, spec.model.block_size)
        self._params = view_params(arena.params, spec.model)
        self._known_views: dict[int, Parameters] = {}
        self._buffers: list[NDArray[np.float32]] = []
        """Sums of the lower levels of the tree, and the shard that is computed now."""
        self._sums: list[tuple[int, NDArray[np.float32]]] = []
        """(level, sum) of the runs of shards that are to be added up, each with the next of its level."""
        self._workspace = make_workspace(spec.model, *shape, bf16=spec.precision == "bf16")
        self._tokens, self._targets = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        self._tree = make_tree(spec.block.count)
        # every shard divides by the token count of the global batch, so the all-reduce is a plain sum
        self._dloss = 1.0 / (spec.shards * spec.sequences_per_shard * spec.model.block_size)

    def _views(self, gradient: NDArray[np.float32]) -> Parameters:
        """The tensors in a slot or buffer, made once."""
        views = self._known_views.get(gradient.ctypes.data)
        if views is None:
            views = self._known_views[gradient.ctypes.data] = view_params(gradient, self._spec.model)
        return views

    @property
    def first_shard(self) -> int:
        """Number in the batch of the block's first."""
        return self._spec.block.first

    @property
    def layers(self) -> int:
        return self._spec.model.n_layer

    def shard(self, step: int, number: int, per_slot: int = 1) -> float:
        """Compute shard `number` of the block, in the order of the numbers within a slot; returns its sum of
        losses. With the last shard of a slot, that holds the sum of their gradients."""
        if number % per_slot == 0:
            self._sums.clear()
        gradient = self._arena.slots[number // per_slot] if not self._sums else self._buffer(per_slot)
        loss_sum = self._gradient(gradient, step, self._spec.block.first + number)
        self._sums.append((0, gradient))
        self._add_up()
        return loss_sum

    def _buffer(self, per_slot: int) -> NDArray[np.float32]:
        """One in which no sum is kept. The first sum is in the slot itself, where the last one ends too."""
        while len(self._buffers) < partial_sums(per_slot):
            self._buffers.append(pages_of_zeros(len(self._arena.grad)))
        kept = {id(values) for _, values in self._sums}
        return next(buffer for buffer in self._buffers if id(buffer) not in kept)

    def _add_up(self) -> None:
        """Join runs of the same length: a binary counter, whose digits are the levels of the tree."""
        while len(self._sums) > 1 and self._sums[-1][0] == self._sums[-2][0]:
            (_, right), (level, left) = self._sums.pop(), self._sums.pop()
            add_slot(left, right)
            self._sums.append((level + 1, left))

    def _gradient(self, gradient: NDArray[np.float32], step: int, shard: int) -> float:
        """Overwrite `gradient` (P,) with that of a shard of the batch; returns its sum of losses."""
        loss_sum, spec, tokens = 0.0, self._spec, self._data.train
        size, block = spec.sequences_per_shard, spec.model.block_size
        offsets = shard_offsets(spec.seed, step, shard, spec.shards, size, len(tokens), block)
        draws = self._micro_batches(tokens, step, shard * size, offsets)
        views = self._views(gradient)
        for micro_batch, draw in enumerate(draws):
            loss_sum += micro_batch_gradient(
                views,
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
        a = self._workspace.a
        blocks = -(-a.losses.size // a.logits.shape[1])
        stamps = _STAMPS + _STAMPS_PER_LAYER * self._spec.model.n_layer + _STAMPS_PER_BLOCK * blocks
        room = micro_batches * stamps if wanted else 0
        scratch = self._workspace.s._replace(clock=make_clock(room))
        self._workspace = self._workspace._replace(s=scratch)

    def kernel_times(self) -> list[tuple[int, float]]:
        """The stamps of the shard before, where they were wanted: see kernels/stamps.py."""
        return read_clock(self._workspace.s.clock)

    def spoil(self) -> None:
        """Put a NaN into what the last shard went into, for a test of what follows."""
        self._sums[-1][1][0] = np.nan

    def validation_unit(self, step: int, unit: int, spacing: Spacing) -> float:
        """Sum of losses of one unit of held-out sequences so spaced, dropout off."""
        loss_sum, size = 0.0, self._spec.sequences_per_shard
        offsets = spacing.offsets(unit * size, size)
        for draw in self._micro_batches(self._data.val, step, unit * size, offsets):
            loss_sum += micro_batch_loss(
                self._workspace, self._params, self._tokens, self._targets, self._spec.model.n_head, draw
            )
        return loss_sum

    def stripe(self, first: int, last: int, slots: int) -> None:
        """Overwrite chunks first .. last - 1 of the sum over the first `slots` slots, and of its norms."""
        arena = self._arena
        reduce_slots(arena.grad, arena.norms, arena.slots[:slots], first, last, self._tree)

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
