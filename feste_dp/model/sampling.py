"""Draws text from the model, token by token."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from feste_dp.config.schema import ModelConfig
from feste_dp.errors import RunError
from feste_dp.kernels.philox import STREAM_SAMPLE, uniform
from feste_dp.model.gpt2 import forward
from feste_dp.model.parameters import Parameters
from feste_dp.model.workspace import Activations, Scratch, make_activations, make_scratch

# Sequence lengths are rounded up to this, so that growing text reuses its buffers. What lies behind the last
# token cannot change it: attention is causal.
_LENGTH_STEP = 32


class NonFiniteLogitsError(RunError):
    """The model gives no probabilities to draw from."""


class Sampler:
    """Draws tokens from weights `p`. Keeps its buffers from call to call."""

    def __init__(self, cfg: ModelConfig, p: Parameters) -> None:
        self._cfg, self._p = cfg, p
        self._length = 0
        self._a: Activations
        self._s: Scratch

    def draw(
        self,
        prompt: Sequence[int],
        count: int,
        *,
        temperature: float,
        seed: int,
        step: int = 0,
        top_k: int | None = None,
    ) -> Iterator[int]:
        """`count` tokens that continue `prompt` (at least one token), one by one as they are drawn.

        A pure function of the weights and the arguments. The model sees the last block_size tokens.
        temperature 0 takes the likeliest token; top_k keeps the k likeliest. Raises NonFiniteLogitsError.
        """
        tokens = list(prompt)
        for number in range(count):
            logits = self._logits(tokens[-self._cfg.block_size :])
            if not np.isfinite(logits).all():
                raise NonFiniteLogitsError(
                    f"the model cannot write token {number + 1}: its scores for it are NaN or infinite; "
                    "take another checkpoint"
                )
            u = uniform(number, 0, step, STREAM_SAMPLE, np.uint64(seed))
            tokens.append(choose(logits, u, temperature, top_k))
            yield tokens[-1]

    def _logits(self, window: list[int]) -> NDArray[np.float32]:
        length = min(self._cfg.block_size, -(-len(window) // _LENGTH_STEP) * _LENGTH_STEP)
        if length != self._length:
            self._a, self._s = make_activations(self._cfg, 1, length), make_scratch(self._cfg, 1, length)
            self._length = length
        tokens = np.zeros((1, length), np.int32)
        tokens[0, : len(window)] = window
        draw = (np.uint64(0), 0, np.zeros(1, np.int64))
        forward(self._a, self._p, self._s, tokens, self._cfg.n_head, 0.0, draw)
        logits: NDArray[np.float32] = self._a.logits[0, len(window) - 1]
        return logits


def choose(logits: NDArray[np.float32], u: float, temperature: float, top_k: int | None) -> int:
    """The token at quantile u in [0, 1) of softmax(logits / temperature), over the top_k likeliest.

    Ties at the edge of the top k go to the lower token. Computed in float64.
    """
    scores = logits.astype(np.float64)
    if temperature == 0:
        return int(np.argmax(scores))
    candidates = np.arange(len(scores))
    if top_k is not None and top_k < len(scores):
        candidates = np.sort(np.argsort(-scores, kind="stable")[:top_k])
    scaled = (scores[candidates] - scores.max()) / temperature
    cumulative = np.cumsum(np.exp(scaled))
    place = int(np.searchsorted(cumulative, u * cumulative[-1], side="right"))
    return int(candidates[min(place, len(candidates) - 1)])
