"""Which tokens a sequence holds: a pure function of (seed, number of the sequence since step 1).

An epoch cuts the training tokens into windows of one sequence each, from a start that differs from epoch to
epoch, and visits every window once in a random order. Nothing is stored: any place in any epoch is computed
from its number, so a resumed run goes on where it stopped.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from feste_dp.kernels.compilation import kernel
from feste_dp.kernels.philox import STREAM_DATA_ORDER, philox

_FEISTEL_ROUNDS = 6


def train_offsets(
    seed: int, step: int, batch_size: int, token_count: int, block_size: int
) -> NDArray[np.int64]:
    """First token (batch_size,) of each sequence of step 1, 2, ...; needs token_count > block_size."""
    offsets = np.empty(batch_size, np.int64)
    _fill_offsets(offsets, np.uint64(seed), (step - 1) * batch_size, token_count, block_size)
    return offsets


def validation_offsets(count: int, token_count: int, block_size: int) -> NDArray[np.int64]:
    """First token (count,) of each validation sequence: evenly spaced over the held-out tokens."""
    last = token_count - block_size - 1
    return np.array([i * last // max(1, count - 1) for i in range(count)], np.int64)


@kernel
def _fill_offsets(offsets: Any, seed: Any, first_sequence: int, token_count: int, block_size: int) -> None:
    windows = max(1, (token_count - block_size) // block_size)
    starts = min(block_size, token_count - windows * block_size)
    for i in range(offsets.shape[0]):
        epoch = (first_sequence + i) // windows
        place = (first_sequence + i) % windows
        start = _word(0, 0, epoch, seed) % starts
        offsets[i] = start + block_size * _permuted(place, windows, epoch, seed)


@kernel
def _permuted(place: int, count: int, epoch: int, seed: Any) -> int:
    """The place-th element of a random permutation of 0 .. count - 1: a Feistel network on the next even
    number of bits, walked until it lands inside (J. Black and P. Rogaway, CT-RSA 2002)."""
    half_bits = 1
    while (1 << (2 * half_bits)) < count:
        half_bits += 1
    mask = (1 << half_bits) - 1
    while True:
        left, right = place >> half_bits, place & mask
        for turn in range(_FEISTEL_ROUNDS):
            left, right = right, left ^ (_word(1 + turn, right, epoch, seed) & mask)
        place = (left << half_bits) | right
        if place < count:
            return place


@kernel
def _word(turn: int, value: int, epoch: int, seed: Any) -> Any:
    x0, _, _, _ = philox(
        np.uint32(value), np.uint32(turn), np.uint32(epoch), np.uint32(STREAM_DATA_ORDER), seed
    )
    return np.int64(x0)
