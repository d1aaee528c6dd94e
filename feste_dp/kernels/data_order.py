"""The order of the training sequences: a random permutation that is computed, not stored."""

from typing import Any

import numpy as np

from feste_dp.kernels.compilation import kernel
from feste_dp.kernels.philox import STREAM_DATA_ORDER, philox

# The place of the windows, the rounds of the network and the shuffle draw different words.
_START, _SHUFFLE, _FIRST_ROUND = 0, 1, 2
_FEISTEL_ROUNDS = 10  # as FF1 has (NIST SP 800-38G)
# A Feistel network over few items has round functions of a few bits, and is visibly not uniform.
_SHUFFLED = 64


@kernel
def fill_offsets(offsets: Any, seed: Any, first_sequence: int, token_count: int, block_size: int) -> None:
    """Overwrites offsets (n,) with the first token of sequences first_sequence, first_sequence + 1, ...

    windows = ceil((token_count - 1) / block_size)     as few as reach every token but the first as a target
    spare   = windows * block_size - (token_count - 1) targets that some window has twice

    Window 0 begins at token 0, the last ends at the last token, window i between them begins at
    i * block_size - shift, where shift is drawn anew for each epoch from 0 .. spare.
    """
    windows = max(1, (token_count + block_size - 2) // block_size)
    last = token_count - 1 - block_size
    spare = windows * block_size - (token_count - 1)
    for i in range(offsets.shape[0]):
        epoch, place = (first_sequence + i) // windows, (first_sequence + i) % windows
        if windows > _SHUFFLED:
            window = _permuted(place, windows, epoch, seed)
        else:
            window = _shuffled(place, windows, epoch, seed)
        shift = _word(_START, 0, epoch, seed) % (spare + 1)
        offsets[i] = max(0, min(window * block_size - shift, last))


@kernel
def _shuffled(place: int, count: int, epoch: int, seed: Any) -> int:
    """The place-th element of a random permutation of 0 .. count - 1: the shuffle of R. Fisher and F. Yates,
    followed backwards. Forwards, i = 0 .. count - 1 takes place j <= i, and what was there takes place i."""
    for i in range(count - 1, 0, -1):
        j = _word(_SHUFFLE, i, epoch, seed) % (i + 1)
        if place == j:
            return i
        if place == i:
            place = j
    return 0


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
            left, right = right, left ^ (_word(_FIRST_ROUND + turn, right, epoch, seed) & mask)
        place = (left << half_bits) | right
        if place < count:
            return place


@kernel
def _word(turn: int, value: int, epoch: int, seed: Any) -> Any:
    x0, _, _, _ = philox(
        np.uint32(value), np.uint32(turn), np.uint32(epoch), np.uint32(STREAM_DATA_ORDER), seed
    )
    return np.int64(x0)
