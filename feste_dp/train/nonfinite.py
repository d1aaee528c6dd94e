"""NaN and infinity in a step: whether a gradient can be used, and where what is wrong with it comes from.

Only reads: what is to be done about it is the step's to decide. All of it is arithmetic on the gradient
slots, so every worker count gives the same answer.
"""

import math

import numpy as np
from numpy.typing import NDArray

from feste_dp.config.schema import Config, ModelConfig
from feste_dp.data.tokens import TokenData
from feste_dp.errors import RunError
from feste_dp.model.parameters import layout
from feste_dp.optim.clipping import clip_factor
from feste_dp.train.sequence_probe import SequenceProbe, compute_shard
from feste_dp.train.source import GradientSource

MAX_SKIPPED_IN_A_ROW = 20
"""Skipped steps in succession that end a run: the weights no longer change, so it would not recover."""

NORM_LIMIT = 1.8e19
"""Gradient norm, after clipping, from which the square of an element could overflow float32 in AdamW's v."""

_CHUNK = 1 << 16  # floats that are looked at at a time: 15 ms for 87 million, 20 in one piece

FloatArray = NDArray[np.float32]


class NonFiniteError(RunError):
    """A run cannot go on after this step."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


def is_usable(loss: float, norm: float, clip_norm: float) -> bool:
    """Whether AdamW may see a gradient of this norm, and leaves m and v finite."""
    return math.isfinite(loss) and math.isfinite(norm) and norm * clip_factor(norm, clip_norm) < NORM_LIMIT


def all_finite(values: FloatArray) -> bool:
    return all(np.isfinite(values[i : i + _CHUNK]).all() for i in range(0, len(values), _CHUNK))


def first_bad_tensor(flat: FloatArray, model: ModelConfig) -> str | None:
    """The first tensor, in the order of the flat buffer (P,), that holds a NaN or an infinity."""
    for tensor in layout(model):
        if not all_finite(flat[tensor.start : tensor.stop]):
            return tensor.name
    return None


def explain_own(
    config: Config,
    data: TokenData,
    source: GradientSource,
    step: int,
    shard_losses: list[float],
) -> str | None:
    """Why the gradient of a source's own shards cannot be used: the first bad shard, tensor and sequence.

    None where they are finite. shard_losses are theirs. Uses up the slot of the bad one.
    """
    arena, per_slot, first = source.arena, source.shards_per_slot, source.block.first
    for slot in range(len(shard_losses) // per_slot):
        losses = shard_losses[slot * per_slot : (slot + 1) * per_slot]
        tensor = first_bad_tensor(arena.slots[slot], config.model)
        if tensor is None and all(map(math.isfinite, losses)):
            continue
        shards = range(first + slot * per_slot, first + (slot + 1) * per_slot)
        if per_slot > 1:
            return _explain_slot(config, data, arena.params, arena.slots[slot], step, shards, tensor)
        return _explain_shard(
            config, data, arena.params, arena.slots[slot], step, shards.start, losses[0], tensor
        )
    return None


def explain_sum(grad: FloatArray) -> str:
    """Why a gradient (P,) cannot be used that is the sum of finite ones."""
    if all_finite(grad):
        return "the gradient is finite, but so large that its squares overflow"
    return "the summed gradient overflows, though every shard's is finite"


def _explain_slot(
    config: Config,
    data: TokenData,
    params: FloatArray,
    scratch: FloatArray,
    step: int,
    shards: range,
    tensor: str | None,
) -> str:
    """Which of the shards that share a slot it comes from, found by computing each alone."""
    what = f"shards {shards.start} to {shards.stop - 1} together have"
    what += (
        " a loss that is not finite" if tensor is None else f" a NaN or infinity in the gradient of {tensor}"
    )
    try:
        for shard in shards:
            loss = compute_shard(config, data, params, scratch, step, shard)
            bad = first_bad_tensor(scratch, config.model)
            if bad is not None or not math.isfinite(loss):
                return _explain_shard(config, data, params, scratch, step, shard, loss, bad)
    except MemoryError:
        return f"{what}, with too little memory left to find the shard"
    return f"{what}, though computed again each of them is finite"


def _explain_shard(
    config: Config,
    data: TokenData,
    params: FloatArray,
    scratch: FloatArray,
    step: int,
    shard: int,
    loss: float,
    tensor: str | None,
) -> str:
    """Which of the shard's sequences it comes from, found by computing each alone."""
    what = f"shard {shard} has the loss {loss}"
    if tensor is not None:
        what = f"shard {shard} has a NaN or infinity in the gradient of {tensor}"
    return f"{what}, {_explain_sequences(config, data, params, scratch, step, shard)}"


def _explain_sequences(
    config: Config, data: TokenData, params: FloatArray, scratch: FloatArray, step: int, shard: int
) -> str:
    try:
        probe = SequenceProbe(config, data, params, scratch)
    except MemoryError:
        return "with too little memory left to find the sequence"
    size = config.train.sequences_per_shard
    for place in range(shard * size, (shard + 1) * size):
        found = probe.compute(step, place)
        where = f"from sequence {place} of the batch (token {found.offset} of the training text)"
        if found.origin is not None:
            return f"{where}: the forward pass has it first in {found.origin}, at token {found.origin_token}"
        tensor = first_bad_tensor(probe.gradient, config.model)
        if tensor is not None:
            return f"{where}: it arises in the backward pass, first bad tensor {tensor}"
    if size > 1 and not _adds_up(probe, step, shard, size):
        return "from the sum over its sequences, each of which is finite"
    return "though computed again it is finite: suspect this machine's memory or processor"


def _adds_up(probe: SequenceProbe, step: int, shard: int, size: int) -> bool:
    """Whether the sum of the sequences' gradients stays finite."""
    total = np.zeros_like(probe.gradient)
    with np.errstate(over="ignore", invalid="ignore"):
        for place in range(shard * size, (shard + 1) * size):
            probe.compute(step, place)
            total += probe.gradient
    return all_finite(total)
