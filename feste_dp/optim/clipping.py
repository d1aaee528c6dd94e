"""The global norm of a gradient, and what it is scaled by."""

import math

import numpy as np
from numpy.typing import NDArray


def gradient_norm(norms: NDArray[np.float64]) -> float:
    """Global norm from the chunks' sums of squares. The sum is exactly rounded, so it has no order."""
    total = norms.tolist()
    return math.sqrt(math.fsum(total)) if all(map(math.isfinite, total)) else math.nan


def clip_factor(norm: float, clip_norm: float) -> float:
    """min(1, clip_norm / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_; 1 when clip_norm is 0."""
    return min(1.0, clip_norm / (norm + 1e-6)) if clip_norm > 0 else 1.0
