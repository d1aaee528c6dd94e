import itertools
import math

import numpy as np
import pytest

from feste_dp.data.order import shard_offsets, train_offsets, validation_spacing

SIZES = [(tokens, block) for block in (1, 2, 3, 7) for tokens in range(block + 1, 40)]


def window_count(tokens: int, block: int) -> int:
    return -(-(tokens - 1) // block)


def epoch(seed: int, number: int, tokens: int, block: int) -> np.ndarray:
    """The offsets of one whole epoch."""
    return train_offsets(seed, number + 1, window_count(tokens, block), tokens, block)


def test_every_sequence_and_its_targets_lie_within_the_tokens():
    for tokens, block in SIZES:
        offsets = train_offsets(1, 1, 300, tokens, block)
        assert offsets.min() >= 0 and offsets.max() + block + 1 <= tokens, (tokens, block)


def test_an_epoch_has_every_token_but_the_first_as_a_target_in_as_few_windows_as_can_be():
    for tokens, block in [*SIZES, (1000, 7), (4097, 16), (4098, 16), (4112, 16)]:
        for number in range(3):
            offsets = np.sort(epoch(5, number, tokens, block))
            targets = {int(offset) + 1 + i for offset in offsets for i in range(block)}
            assert targets == set(range(1, tokens)), (tokens, block, number)
            assert len(offsets) == len(set(offsets)) and (len(offsets) - 1) * block < tokens - 1


def test_windows_between_the_first_and_the_last_begin_elsewhere_in_each_epoch_as_far_as_there_is_room():
    for tokens in range(994, 1002):
        spare = 1000 - (tokens - 1)
        starts = {int(np.sort(epoch(1, number, tokens, 8))[1]) for number in range(200)}
        assert starts == set(range(8 - spare, 9)), tokens


def permutations(count: int, epochs: int) -> np.ndarray:
    """(epochs, count): the order of `count` windows of one token each, for several seeds."""
    seeds = [train_offsets(seed, 1, count * (epochs // 4), count + 1, 1) for seed in (1, 2, 3, 2**40)]
    return np.concatenate(seeds).reshape(-1, count)


def deviation(counts: np.ndarray, degrees: int, factor: float = 1.0) -> float:
    """Chi-square of equally likely counts, as a number of standard deviations from what chance gives."""
    expected = counts.mean()
    chi_square = factor * ((counts - expected) ** 2 / expected).sum()
    return abs(chi_square - degrees) / np.sqrt(2 * degrees)


@pytest.mark.parametrize("counts", [range(2, 17), range(17, 65), (65, 257)])
def test_every_window_is_as_likely_at_every_place(counts):
    for count in counts:
        orders = permutations(count, 2000)
        table = np.stack([np.bincount(place, minlength=count) for place in orders.T])
        # the rows and the columns of a table of permutations have fixed sums
        assert deviation(table, (count - 1) ** 2, (count - 1) / count) < 4.5, count


@pytest.mark.parametrize("counts", [range(3, 17), (40, 65)])
def test_every_pair_of_windows_is_as_likely_to_follow_each_other(counts):
    for count in counts:
        orders = permutations(count, max(4000, 5 * count**2))
        pairs = np.bincount(orders[:, 0] * count + orders[:, 1], minlength=count**2).reshape(count, count)
        others = pairs[~np.eye(count, dtype=bool)]
        assert deviation(others, count * (count - 1) - 1) < 4.5, count


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6])
def test_every_order_of_a_few_windows_is_as_likely(count):
    orders = permutations(count, 40 * 720) @ (count ** np.arange(count))
    _, counts = np.unique(orders, return_counts=True)
    assert len(counts) == math.factorial(count)
    assert deviation(counts, len(counts) - 1) < 4.5


def test_another_epoch_or_another_seed_is_another_order():
    orders = [
        tuple(np.argsort(epoch(seed, number, 2000, 8))) for seed, number in itertools.product((1, 2), (0, 1))
    ]
    assert len(set(orders)) == 4


def test_the_order_is_random_over_the_text():
    offsets = epoch(1, 0, 80_001, 8)
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
    offsets = validation_spacing(count, tokens, block).offsets(0, count)
    assert len(offsets) == count and offsets[0] == 0
    assert offsets.max() + block + 1 <= tokens
    if count > 1:
        assert offsets[-1] + block + 1 == tokens
        gaps = np.diff(offsets)
        assert gaps.min() >= 0 and gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(("shards", "size"), [(1, 6), (2, 3), (8, 2), (64, 1)])
def test_the_shards_of_a_step_are_its_sequences_in_order(shards, size):
    parts = [shard_offsets(9, 7, shard, shards, size, 500, 6) for shard in range(shards)]
    assert np.concatenate(parts).tolist() == train_offsets(9, 7, shards * size, 500, 6).tolist()


def test_any_part_of_evenly_spaced_sequences_is_computed_without_the_others():
    spacing = validation_spacing(48, 800, 16)
    whole = spacing.offsets(0, 48)
    assert [spacing.offsets(i, 3).tolist() for i in range(46)] == [
        whole[i : i + 3].tolist() for i in range(46)
    ]
    assert validation_spacing(2**20, 2**40, 1024).offsets(2**20 - 1, 1) == 2**40 - 1025
