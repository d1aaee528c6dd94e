"""Computes single shards and sequences of a training step, alone, with the kernels and the bits of training.

A shard's gradient is the sum over its sequences; to see which of them spoils it, or weighs most, each is
computed by itself. In the forward pass no sequence touches another, and an element of a matrix product has
bits that depend on the inner length alone: the losses are those of the step to the last bit, whatever
train.micro_batch is. Knows nothing of processes: it runs where it is called.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feste_dp.config.schema import Config
from feste_dp.data.order import shard_offsets
from feste_dp.data.tokens import TokenData
from feste_dp.machine.limits import available_memory
from feste_dp.model.gpt2 import micro_batch_gradient
from feste_dp.model.parameters import view_params
from feste_dp.model.workspace import Activations, make_workspace, workspace_bytes
from feste_dp.runtime.arena import PrivateArena
from feste_dp.runtime.shard_computer import ShardComputer, ShardSpec
from feste_dp.runtime.slots import ShardBlock


@dataclass(frozen=True)
class SequenceResult:
    """What one sequence gives by itself; its gradient is in the probe's buffer until the next one."""

    place: int
    """Number of the sequence in the global batch, from 0."""
    offset: int
    """Its first token in the training text."""
    losses: NDArray[np.float32]
    """(T,) loss at each position, in nats."""
    loss: float
    """Mean over the positions."""
    origin: str | None
    """Where the forward pass has the first value that is not finite; None where all are."""
    origin_token: int | None
    """The token of the training text at which that is, the first such."""


class SequenceProbe:
    """Computes sequences one at a time; each overwrites `gradient` (P,) with what it adds to the batch's."""

    def __init__(
        self, config: Config, data: TokenData, params: NDArray[np.float32], gradient: NDArray[np.float32]
    ) -> None:
        """Raises MemoryError when there is no room for the activations of a sequence."""
        model = config.model
        self._config, self._source = config, data.train
        self._workspace = make_workspace(model, 1, model.block_size, bf16=config.train.precision == "bf16")
        # pages are taken when they are first written: nothing has been used up yet
        if _bytes(self._workspace) > available_memory():
            raise MemoryError
        self._params, self._gradient = view_params(params, model), view_params(gradient, model)
        self.gradient = gradient
        self._tokens, self._targets = np.zeros((2, 1, model.block_size), np.int32)

    def compute(self, step: int, place: int) -> SequenceResult:
        config, positions = self._config, self._config.model.block_size
        # of a batch of one shard for each sequence, the one at that place
        offset = int(
            shard_offsets(
                config.train.seed, step, place, config.train.batch_size, 1, len(self._source), positions
            )[0]
        )
        self._tokens[0] = self._source[offset : offset + positions]
        self._targets[0] = self._source[offset + 1 : offset + positions + 1]
        micro_batch_gradient(
            self._gradient,
            self._workspace,
            self._params,
            self._tokens,
            self._targets,
            1.0 / config.tokens_per_step,
            config.model.n_head,
            config.model.dropout,
            (np.uint64(config.train.seed), step, np.array([place], np.int64)),
            False,
        )
        losses = self._workspace.a.losses[0].copy()
        origin, position = first_nonfinite_activation(self._workspace.a) or (None, None)
        return SequenceResult(
            place=place,
            offset=offset,
            losses=losses,
            loss=float(losses.astype(np.float64).mean()),
            origin=origin,
            origin_token=None if position is None else offset + position,
        )


def compute_shard(
    config: Config,
    data: TokenData,
    params: NDArray[np.float32],
    gradient: NDArray[np.float32],
    step: int,
    shard: int,
) -> float:
    """Overwrite gradient (P,) with that of one shard of the batch at the weights params (P,), with the bits
    of a worker; returns its sum of losses. Raises MemoryError when there is no room for the activations."""
    if workspace_bytes(config.model, config.train.micro_batch, config.model.block_size) > available_memory():
        raise MemoryError
    arena = PrivateArena(len(params), params, gradient)
    return ShardComputer(ShardSpec.of(config, ShardBlock(shard, 1)), arena, data).shard(step, 0)


def first_nonfinite_activation(a: Activations) -> tuple[str, int] | None:
    """Name and position of the first value, in the order of the forward pass, that is not finite in a
    sequence's activations; None where all are finite."""
    in_order: list[tuple[str, NDArray[np.float32]]] = [("the embeddings", a.x[0])]
    for layer in range(len(a.qkv)):
        in_order += [
            (f"attn_qkv of layer {layer}", a.qkv[layer]),
            (f"the attention of layer {layer}", a.attn[layer]),
            (f"attn_proj of layer {layer}", a.x_mid[layer]),
            (f"mlp_fc of layer {layer}", a.fc[layer]),
            (f"mlp_proj of layer {layer}", a.x[layer + 1]),
        ]
    # the logits are gone, the head leaves their gradient there; the highest and the sum of the others stay
    in_order += [("ln_f", a.ln_f), ("the output head", np.stack([a.logits_highest, a.logits_others], -1))]
    in_order += [("the loss", a.losses[..., np.newaxis])]
    for name, values in in_order:
        bad = ~np.isfinite(values[0]).all(axis=-1)
        if bad.any():
            return name, int(bad.argmax())
    return None


def _bytes(value: Any) -> int:
    """Of all arrays in nested tuples."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    return sum(map(_bytes, value)) if isinstance(value, tuple) else 0
