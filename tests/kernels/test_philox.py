import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feste_dp.kernels.philox import STREAM_DATA_ORDER, STREAM_DROPOUT, STREAM_SAMPLE, philox, uniform

SEED = np.uint64(1234)
DRAWS = 20_000

# Random123, file kat_vectors, "philox4x32 10": counter, key (low word, high word), answer
KNOWN_ANSWERS = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]

words = st.integers(0, 2**32 - 1)


def plain_philox(counter, key):
    """Philox4x32-10 in integers of any size."""
    x, (k0, k1) = list(counter), key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * x[0], 0xCD9E8D57 * x[2]
        x = [p1 >> 32 ^ x[1] ^ k0, p1 % 2**32, p0 >> 32 ^ x[3] ^ k1, p0 % 2**32]
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return x


def kernel_philox(counter, key):
    seed = np.uint64(key[1] << 32 | key[0])
    return [int(word) for word in philox(*(np.uint32(word) for word in counter), seed)]


def draws(*, seed=SEED, **words):
    """DRAWS uniforms along `index`, the other counter words held."""
    held = {"sequence": 0, "step": 0, "stream": 0} | words
    return np.array([uniform(i, held["sequence"], held["step"], held["stream"], seed) for i in range(DRAWS)])


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_philox_gives_the_known_answers(counter, key, answer):
    assert kernel_philox(counter, key) == answer
    assert plain_philox(counter, key) == answer


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.tuples(words, words, words, words), st.tuples(words, words))
def test_philox_equals_its_definition_in_integers(counter, key):
    assert kernel_philox(counter, key) == plain_philox(counter, key)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(words, words, words, words, st.integers(0, 2**64 - 1))
def test_uniform_is_the_first_53_bits_of_its_block(index, sequence, step, stream, seed):
    x0, x1, _, _ = plain_philox((index, sequence, step, stream), (seed % 2**32, seed >> 32))
    value = uniform(index, sequence, step, stream, np.uint64(seed))
    assert value == ((x0 >> 5) * 2**26 + (x1 >> 6)) / 2**53
    assert 0 <= value < 1


def test_uniform_has_the_mean_and_the_variance_of_the_uniform_distribution():
    u = draws()
    # five standard errors of the mean, 1 / sqrt(12 n), and of the variance, 1 / sqrt(180 n)
    assert abs(u.mean() - 1 / 2) < 5 / np.sqrt(12 * DRAWS)
    assert abs(u.var() - 1 / 12) < 5 / np.sqrt(180 * DRAWS)


@pytest.mark.parametrize(
    "other",
    [
        {"sequence": 1},
        {"step": 1},
        {"stream": 1},
        {"stream": STREAM_DATA_ORDER},
        {"stream": STREAM_SAMPLE},
        {"seed": SEED + np.uint64(1)},
        {"seed": SEED + np.uint64(1 << 32)},
    ],
)
def test_draws_that_differ_in_one_word_are_uncorrelated(other):
    # five standard errors of the correlation of independent numbers, 1 / sqrt(n)
    assert abs(np.corrcoef(draws(), draws(**other))[0, 1]) < 5 / np.sqrt(DRAWS)


def test_neighbouring_draws_are_uncorrelated():
    u = draws()
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 5 / np.sqrt(DRAWS)


def test_the_streams_lie_too_far_apart_to_meet():
    # a model has at most 1024 layers of two sites each
    assert STREAM_DROPOUT + 2 * 1024 < STREAM_DATA_ORDER < STREAM_SAMPLE < 2**32
