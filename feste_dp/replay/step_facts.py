"""What a step's gradient is made of, tensor by tensor and sequence by sequence: the facts that a replay
tells. Pure: knows nothing of runs, checkpoints and processes."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feste_dp.config.schema import ModelConfig
from feste_dp.data.tokenizer import ByteTokenizer
from feste_dp.data.tokens import TokenData
from feste_dp.model.parameters import Tensor, layout
from feste_dp.train.sequence_probe import SequenceResult

EXCERPT_TOKENS = 24
"""Tokens of text shown before the one that is to be predicted."""
_CHUNK = 1 << 20

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class TensorFacts:
    """One tensor before the update, and its gradient. Norms and maxima are over the finite elements."""

    name: str
    gradient_norm: float
    gradient_max_abs: float
    gradient_nonfinite: int
    """Elements that are NaN or infinite."""
    weight_norm: float
    layer_norms: list[float] | None
    """Gradient norm in each layer; None for a tensor that is not stacked."""


@dataclass(frozen=True)
class SequenceFacts:
    """One sequence of the step by itself. Losses are nats per token."""

    sequence: int
    """Number in the global batch, from 0."""
    shard: int
    offset: int
    """Its first token in the training text."""
    loss: float
    gradient_norm: float
    gradient_nonfinite: int
    nonfinite_from: str | None
    """Where the forward pass has the first value that is not finite."""
    hardest_token: int
    """The token of the training text that costs most to predict, or the first that is not finite."""
    hardest_loss: float


def tensor_facts(gradient: FloatArray, params: FloatArray, model: ModelConfig) -> list[TensorFacts]:
    """One entry per tensor of the flat buffers (P,), in their order."""
    return [_facts_of(tensor, gradient, params, model) for tensor in layout(model)]


def sequence_facts(result: SequenceResult, gradient: FloatArray, sequences_per_shard: int) -> SequenceFacts:
    norm, _, nonfinite = _size(gradient)
    costs = np.where(np.isfinite(result.losses), result.losses, np.inf)
    hardest = int(costs.argmax())
    return SequenceFacts(
        sequence=result.place,
        shard=result.place // sequences_per_shard,
        offset=result.offset,
        loss=result.loss,
        gradient_norm=norm,
        gradient_nonfinite=nonfinite,
        nonfinite_from=result.origin,
        hardest_token=result.offset + hardest + 1,
        hardest_loss=float(result.losses[hardest]),
    )


def worst(sequences: list[SequenceFacts]) -> SequenceFacts:
    """The one to look at first: the first that is not finite, else that of the largest loss."""
    bad = [facts for facts in sequences if facts.gradient_nonfinite or not math.isfinite(facts.loss)]
    return bad[0] if bad else max(sequences, key=lambda facts: facts.loss)


def excerpt(facts: SequenceFacts, data: TokenData, tokenizer: ByteTokenizer) -> tuple[str, str]:
    """The text before the hardest token of a sequence, and that token as text."""
    start = max(facts.offset, facts.hardest_token - EXCERPT_TOKENS)
    before = data.train[start : facts.hardest_token].tolist()
    return tokenizer.decode(before), tokenizer.decode([int(data.train[facts.hardest_token])])


def _facts_of(tensor: Tensor, gradient: FloatArray, params: FloatArray, model: ModelConfig) -> TensorFacts:
    part = gradient[tensor.start : tensor.stop]
    norm, largest, nonfinite = _size(part)
    by_layer = None
    if tensor.name.startswith(("attn", "mlp", "ln_1", "ln_2")):
        by_layer = [_size(layer)[0] for layer in part.reshape(model.n_layer, -1)]
    return TensorFacts(
        name=tensor.name,
        gradient_norm=norm,
        gradient_max_abs=largest,
        gradient_nonfinite=nonfinite,
        weight_norm=_size(params[tensor.start : tensor.stop])[0],
        layer_norms=by_layer,
    )


def _size(values: FloatArray) -> tuple[float, float, int]:
    """Norm and largest magnitude of the finite elements, and how many are not finite."""
    squares, largest, nonfinite = 0.0, 0.0, 0
    for start in range(0, len(values), _CHUNK):
        chunk = values[start : start + _CHUNK].astype(np.float64)
        finite = chunk[np.isfinite(chunk)]
        squares += float((finite * finite).sum())
        largest = max(largest, float(np.abs(finite).max(initial=0.0)))
        nonfinite += len(chunk) - len(finite)
    return math.sqrt(squares), largest, nonfinite
