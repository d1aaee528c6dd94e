"""Which token comes next, of the model's scores and a random number. Sums are float64, in order of tokens."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feste_dp.errors import UsageError
from feste_dp.kernels.choice import softmax_weights

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Choice:
    """How a token is drawn; what narrows the choice does so in the order of the fields."""

    temperature: float = 0.8
    """Divides the scores; 0 takes the likeliest token."""
    top_k: int | None = None
    """The k likeliest tokens; of equals at the edge the lower ones."""
    top_p: float = 1.0
    """The likeliest tokens that have this probability together: A. Holtzman et al. (2020)."""
    min_p: float = 0.0
    """Tokens with this share of the likeliest one's probability: M. Nguyen et al. (2024)."""
    repetition_penalty: float = 1.0
    """Of tokens in the text: divides scores above zero, multiplies those below. N. Keskar et al. (2019)."""

    def __post_init__(self) -> None:
        """Raises UsageError."""
        if not 0 <= self.temperature < math.inf:
            raise UsageError("expected a number from 0 up", about="temperature")
        if not 0 <= self.min_p <= 1:
            raise UsageError("expected a number from 0 to 1", about="min_p")
        for name, most in (("top_p", 1), ("repetition_penalty", 100)):
            if not 0 < getattr(self, name) <= most:
                raise UsageError(f"expected a number above 0, at most {most}", about=name)
        if self.top_k is not None and self.top_k < 1:
            raise UsageError("expected 1 or more", about="top_k")


def choose(scores: Scores, u: float, choice: Choice, seen: NDArray[np.bool_] | None = None) -> int:
    """The token at quantile u in [0, 1) of softmax(scores / temperature) over those that the choice leaves.

    scores (V,); seen (V,) which tokens the text has. Of equal likeliest tokens the lowest.
    """
    if choice.repetition_penalty != 1 and seen is not None:
        penalized = np.where(
            scores > 0, scores / choice.repetition_penalty, scores * choice.repetition_penalty
        )
        scores = np.where(seen, penalized, scores).astype(np.float32)
    likeliest = int(np.argmax(scores))
    if choice.temperature == 0:
        return likeliest
    candidates, highest = None, float(scores[likeliest])
    if choice.top_k is not None and choice.top_k < len(scores):
        candidates = _largest(scores, choice.top_k)
        scores = scores[candidates]
    weights = np.empty(len(scores))
    softmax_weights(weights, scores, highest, float(choice.temperature))
    if choice.top_p < 1 or choice.min_p > 0:
        kept = weights >= choice.min_p  # the likeliest token's weight is 1
        if choice.top_p < 1:
            kept &= _nucleus(weights, choice.top_p)
        candidates = np.flatnonzero(kept) if candidates is None else candidates[kept]
        weights = weights[kept]
    cumulative = np.cumsum(weights)
    place = min(int(np.searchsorted(cumulative, u * cumulative[-1], side="right")), len(weights) - 1)
    return place if candidates is None else int(candidates[place])


def _largest(scores: Scores, count: int) -> NDArray[np.intp]:
    """The tokens of the `count` largest scores, in order of tokens."""
    edge = np.partition(scores, len(scores) - count)[len(scores) - count]
    above = np.flatnonzero(scores > edge)
    equal = np.flatnonzero(scores == edge)[: count - len(above)]
    return np.sort(np.concatenate([above, equal]))


def _nucleus(weights: NDArray[np.float64], share: float) -> NDArray[np.bool_]:
    """As few of the heaviest as have this share of the weight; of equals at the edge the lower ones."""
    total = float(np.cumsum(weights)[-1])
    # those below this have less than the rest together, however many they are: few are left to sort
    candidates = np.flatnonzero(weights >= (1 - share) * total / len(weights))
    heaviest = candidates[np.argsort(-weights[candidates], kind="stable")]
    count = int(np.searchsorted(np.cumsum(weights[heaviest]), share * total)) + 1
    kept = np.zeros(len(weights), np.bool_)
    kept[heaviest[:count]] = True
    return kept
