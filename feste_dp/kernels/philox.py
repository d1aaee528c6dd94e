"""Counter-based random numbers: any number of any stream, computed from its place alone.

Philox4x32-10 of J. Salmon, M. Moraes, R. Dror and D. Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3"
(SC 2011). A draw is a pure function of (seed, counter), so any worker may make it, twice if need be.

The counter's four words are (index, sequence, step, stream): `index` counts inside a sequence, `sequence` is
the place in the global batch, and `stream` keeps users apart.
"""

import numpy as np

from feste_dp.kernels.compilation import kernel

STREAM_DROPOUT = 0  # + 2 * layer + site, site 0 after attention, 1 after the MLP
STREAM_DATA_ORDER = 1 << 30
STREAM_SAMPLE = 2 << 30
STREAM_INITIAL = 3 << 30

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)
_LOW, _SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)


@kernel
def philox(x0, x1, x2, x3, seed):
    """Four uint32 from four uint32 counter words and a uint64 key."""
    k0, k1 = np.uint32(seed & _LOW), np.uint32(seed >> _SHIFT)
    for _ in range(10):
        p0, p1 = _M0 * np.uint64(x0), _M1 * np.uint64(x2)
        x0, x1, x2, x3 = (
            np.uint32(p1 >> _SHIFT) ^ x1 ^ k0,
            np.uint32(p1 & _LOW),
            np.uint32(p0 >> _SHIFT) ^ x3 ^ k1,
            np.uint32(p0 & _LOW),
        )
        k0, k1 = np.uint32(k0 + _W0), np.uint32(k1 + _W1)
    return x0, x1, x2, x3


@kernel
def uniform(index, sequence, step, stream, seed):
    """One float64 in [0, 1) with 53 random bits."""
    x0, x1, _, _ = philox(np.uint32(index), np.uint32(sequence), np.uint32(step), np.uint32(stream), seed)
    high, low = np.uint64(x0) >> np.uint64(5), np.uint64(x1) >> np.uint64(6)
    return (np.float64(high) * 67108864.0 + np.float64(low)) / 9007199254740992.0
