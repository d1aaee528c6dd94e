"""Which tokens a sequence holds: a pure function of (seed, number of the sequence since step 1).

So nobody is told where sequences begin: whoever holds the tokens computes it.

An epoch lays windows of one sequence each over the training tokens, as few as make every token but the first
a target, and visits every window once in a random order. The first window begins at the first token and the
last ends at the last; where the windows between them begin differs from epoch to epoch, as far as the tokens
are no multiple of a window. Nothing is stored: any place in any epoch is computed from its number, so a
resumed run goes on where it stopped.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from feste_dp.kernels.data_order import fill_offsets


def train_offsets(
    seed: int, step: int, batch_size: int, token_count: int, block_size: int
) -> NDArray[np.int64]:
    """First token (batch_size,) of each sequence of step 1, 2, ...; needs token_count > block_size."""
    return _offsets(seed, (step - 1) * batch_size, batch_size, token_count, block_size)


def shard_offsets(
    seed: int, step: int, shard: int, shards: int, size: int, token_count: int, block_size: int
) -> NDArray[np.int64]:
    """First token (size,) of each sequence of one of the step's shards, which have `size` each: its part of
    train_offsets."""
    return _offsets(seed, ((step - 1) * shards + shard) * size, size, token_count, block_size)


def _offsets(seed: int, first: int, count: int, token_count: int, block_size: int) -> NDArray[np.int64]:
    offsets = np.empty(count, np.int64)
    fill_offsets(offsets, np.uint64(seed), first, token_count, block_size)
    return offsets


class Spacing(NamedTuple):
    """Where sequences of the held-out tokens begin: number i at token i * span // gaps."""

    span: int
    gaps: int

    def offsets(self, first: int, count: int) -> NDArray[np.int64]:
        """First token (count,) of sequences first, first + 1, ..."""
        return np.arange(first, first + count) * self.span // self.gaps


def validation_spacing(count: int, token_count: int, block_size: int) -> Spacing:
    """That of `count` sequences spread evenly over the held-out tokens."""
    return Spacing(token_count - block_size - 1, max(1, count - 1))
