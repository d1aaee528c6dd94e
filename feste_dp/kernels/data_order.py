"""The order of the training sequences: a random permutation that is computed, not stored."""

from typing import Any

import numpy as np

from feste_dp.kernels.compilation import kernel
from feste_dp.kernels.philox import STREAM_DATA_ORDER, philox

_FEISTEL_ROUNDS = 6


@kernel
def fill_offsets(offsets: Any, seed: Any, first_sequence: int, token_count: int, block_size: int) -> None:
    """Overwrites offsets (n,) with the first token of sequences first_sequence, first_sequence + 1, ...

    An epoch has (token_count - block_size) // block_size windows, at least one, each visited once; the first
    of them begins at a place drawn anew for each epoch.
    """
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
