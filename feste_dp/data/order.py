"""Which tokens a sequence holds: a pure function of (seed, number of the sequence since step 1).

An epoch lays windows of one sequence each over the training tokens, as few as make every token but the first
a target, and visits every window once in a random order. The first window begins at the first token and the
last ends at the last; where the windows between them begin differs from epoch to epoch, as far as the tokens
are no multiple of a window. Nothing is stored: any place in any epoch is computed from its number, so a
resumed run goes on where it stopped.
"""

import numpy as np
from numpy.typing import NDArray

from feste_dp.kernels.data_order import fill_offsets


def train_offsets(
    seed: int, step: int, batch_size: int, token_count: int, block_size: int
) -> NDArray[np.int64]:
    """First token (batch_size,) of each sequence of step 1, 2, ...; needs token_count > block_size."""
    offsets = np.empty(batch_size, np.int64)
    fill_offsets(offsets, np.uint64(seed), (step - 1) * batch_size, token_count, block_size)
    return offsets


def validation_offsets(count: int, token_count: int, block_size: int) -> NDArray[np.int64]:
    """First token (count,) of each validation sequence: evenly spaced over the held-out tokens."""
    last = token_count - block_size - 1
    return np.array([i * last // max(1, count - 1) for i in range(count)], np.int64)
