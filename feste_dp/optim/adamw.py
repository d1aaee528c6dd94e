"""The optimizer state and its update: global-norm clipping and AdamW over the flat buffer.

Owns m and v. Knows nothing of tensors beyond how many elements, from the first, take weight decay.
"""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from feste_dp.config.schema import OptimConfig
from feste_dp.kernels.adamw import adamw

FloatArray = NDArray[np.float32]

# Below this a second thread costs more than it saves: handing over takes about 50 us, a float about 1 ns.
MIN_ELEMENTS_PER_THREAD = 1 << 18


def gradient_norm(norms: NDArray[np.float64]) -> float:
    """Global norm from the chunks' sums of squares. The sum is exactly rounded, so it has no order."""
    total = norms.tolist()
    return math.sqrt(math.fsum(total)) if all(map(math.isfinite, total)) else math.nan


def clip_factor(norm: float, clip_norm: float) -> float:
    """min(1, clip_norm / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_; 1 when clip_norm is 0."""
    return min(1.0, clip_norm / (norm + 1e-6)) if clip_norm > 0 else 1.0


class AdamW:
    """m and v (P,) and the update of the weights, spread over `threads` threads.

    Every element is computed alone, so the number of threads cannot change a bit.
    """

    def __init__(self, parameters: int, decayed: int, config: OptimConfig, threads: int) -> None:
        self.m: FloatArray = np.zeros(parameters, np.float32)
        self.v: FloatArray = np.zeros(parameters, np.float32)
        self._config = config
        threads = max(1, min(threads, parameters // MIN_ELEMENTS_PER_THREAD))
        self._ranges = list(_ranges(parameters, decayed, threads, config.weight_decay))
        self._pool = ThreadPoolExecutor(threads, "adamw") if threads > 1 else None

    def update(self, params: FloatArray, grad: FloatArray, step: int, lr: float, clip: float) -> None:
        """One step on params (P,) in place: grad (P,) is scaled by `clip`; step counts from 1."""

        def update_range(part: tuple[int, int, float]) -> None:
            start, stop, decay = part
            c = self._config
            adamw(params, self.m, self.v, grad, start, stop, clip, lr, c.beta1, c.beta2, c.eps, decay, step)

        if self._pool is None:
            for part in self._ranges:
                update_range(part)
        else:
            list(self._pool.map(update_range, self._ranges))

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()


def _ranges(
    parameters: int, decayed: int, threads: int, weight_decay: float
) -> Iterator[tuple[int, int, float]]:
    """(start, stop, decay) of equal parts, cut once more where decay ends."""
    for thread in range(threads):
        start, stop = parameters * thread // threads, parameters * (thread + 1) // threads
        if start < decayed:
            yield start, min(stop, decayed), weight_decay
        if stop > decayed:
            yield max(start, decayed), stop, 0.0
