import itertools

import numpy as np
import pytest

from feste_dp.data.order import train_offsets, validation_offsets

SIZES = [(tokens, block) for block in (1, 2, 3, 7) for tokens in range(block + 1, 40)]


def epoch(seed: int, number: int, tokens: int, block: int) -> np.ndarray:
    """The offsets of one whole epoch."""
    windows = max(1, (tokens - block) // block)
    return train_offsets(seed, number + 1, windows, tokens, block)


def test_every_sequence_and_its_targets_lie_within_the_tokens():
    for tokens, block in SIZES:
        offsets = train_offsets(1, 1, 300, tokens, block)
        assert offsets.min() >= 0 and offsets.max() + block + 1 <= tokens, (tokens, block)


def test_an_epoch_visits_every_window_once():
    for tokens, block in [*SIZES, (1000, 7), (4097, 16)]:
        for number in range(3):
            offsets = np.sort(epoch(5, number, tokens, block))
            start = offsets[0]
            assert 0 <= start < block
            expected = start + block * np.arange(len(offsets))
            assert offsets.tolist() == expected.tolist(), (tokens, block, number)


def test_every_start_below_a_block_is_used_so_that_no_token_is_never_seen():
    starts = {int(epoch(1, number, 1000, 8).min()) for number in range(200)}
    assert starts == set(range(8))


def test_another_epoch_or_another_seed_is_another_order():
    orders = [
        tuple(np.argsort(epoch(seed, number, 2000, 8))) for seed, number in itertools.product((1, 2), (0, 1))
    ]
    assert len(set(orders)) == 4


def test_the_order_is_random_over_the_text():
    offsets = epoch(1, 0, 80_008, 8)
    assert len(offsets) == 10_000
    neighbours = np.corrcoef(offsets[:-1], offsets[1:])[0, 1]
    place = np.corrcoef(offsets, np.arange(len(offsets)))[0, 1]
    assert abs(neighbours) < 0.05 and abs(place) < 0.05  # 5 standard deviations of independent numbers


def test_the_offsets_are_a_pure_function_of_seed_and_place():
    whole = np.concatenate([train_offsets(9, step, 4, 500, 6) for step in range(1, 61)])
    assert whole.tolist() == train_offsets(9, 1, 240, 500, 6).tolist()
    assert train_offsets(9, 31, 4, 500, 6).tolist() == whole[120:124].tolist()
    assert train_offsets(9, 11, 12, 500, 6).tolist() == whole[120:132].tolist()


def test_the_largest_seed_and_far_epochs_are_in_range():
    offsets = train_offsets(2**63 - 1, 10**7, 64, 1000, 8)
    assert offsets.min() >= 0 and offsets.max() + 9 <= 1000


@pytest.mark.parametrize("count", [1, 2, 3, 10, 64])
@pytest.mark.parametrize(("tokens", "block"), [(2, 1), (9, 8), (10, 8), (100, 8), (1000, 7)])
def test_validation_sequences_are_spread_evenly_over_the_held_out_tokens(count, tokens, block):
    offsets = validation_offsets(count, tokens, block)
    assert len(offsets) == count and offsets[0] == 0
    assert offsets.max() + block + 1 <= tokens
    if count > 1:
        assert offsets[-1] + block + 1 == tokens
        gaps = np.diff(offsets)
        assert gaps.min() >= 0 and gaps.max() - gaps.min() <= 1
