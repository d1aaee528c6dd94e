import numpy as np
import pytest

from feste_dp.kernels.dropout import dropout_residual_backward, dropout_residual_forward
from tests.kernels.finite_differences import assert_gradients_match

DRAW = {"seed": np.uint64(7), "step": 3, "sequences": (4, 9), "site": 2}


def forward(residual, branch, probability, *, seed, step, sequences, site):
    out, mask = np.zeros_like(residual), np.full(residual.shape[2] + 3, np.nan, residual.dtype)
    dropout_residual_forward(out, residual, branch, mask, probability, seed, step, np.array(sequences), site)
    return out


def backward(dout, probability, *, seed, step, sequences, site):
    """The gradient of the branch, written over NaNs; dout itself is only read."""
    mask, dbranch = np.full(dout.shape[2] + 3, np.nan, dout.dtype), np.full_like(dout, np.nan)
    before = dout.copy()
    gradient = dropout_residual_backward(
        dbranch, dout, mask, probability, seed, step, np.array(sequences), site
    )
    np.testing.assert_array_equal(dout, before)
    written = dout if probability == 0 else dbranch
    assert gradient.ctypes.data == written.ctypes.data and gradient.shape == dout.shape
    return gradient


def drawn_mask(positions=8, channels=64, probability=0.3, **changes):
    """The mask itself: what the pair does to ones."""
    draw = DRAW | changes
    ones = np.ones((len(draw["sequences"]), positions, channels), np.float32)
    return forward(np.zeros_like(ones), ones, probability, **draw)


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("shape", [(2, 1, 1), (2, 3, 7)])
def test_backward_gives_the_gradient_of_finite_differences(shape, probability, rng):
    residual, branch, dout = (rng.standard_normal(shape) for _ in range(3))

    def loss():
        return float((forward(residual, branch, probability, **DRAW) * dout).sum())

    assert_gradients_match(loss, [residual, branch], [dout, backward(dout, probability, **DRAW)])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_forward_adds_the_masked_branch_to_the_residual(dtype, rng):
    residual, branch = (rng.standard_normal((2, 8, 64)).astype(dtype) for _ in range(2))
    out = forward(residual, branch, 0.3, **DRAW)
    mask = drawn_mask().astype(np.float64)
    assert set(np.unique(mask)) == {0.0, float(np.float32(1 / 0.7))}
    # a product and a sum of numbers below ten: two roundings
    np.testing.assert_allclose(out, residual + branch * mask, rtol=0, atol=20 * 2.0**-23)
    np.testing.assert_array_equal(out[mask == 0], residual[mask == 0])


def test_backward_uses_the_mask_of_forward():
    for probability in (0.1, 0.5, 0.9):
        ones = np.ones((2, 8, 61), np.float32)
        dbranch = backward(ones, probability, **DRAW)
        np.testing.assert_array_equal(dbranch, drawn_mask(channels=61, probability=probability))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_probability_zero_is_a_plain_addition_whose_gradient_is_douts(dtype, rng):
    residual, branch = (rng.standard_normal((2, 5, 9)).astype(dtype) for _ in range(2))
    np.testing.assert_array_equal(forward(residual, branch, 0.0, **DRAW), residual + branch)
    np.testing.assert_array_equal(backward(residual, 0.0, **DRAW), residual)


@pytest.mark.parametrize("probability", [0.01, 0.1, 0.5, 0.9])
def test_the_kept_share_is_within_binomial_bounds(probability):
    kept = drawn_mask(positions=200, channels=126, probability=probability) != 0
    deviation = np.sqrt(probability * (1 - probability) / kept.size)
    assert abs(kept.mean() - (1 - probability)) < 5 * deviation
    # no channel and no position is favoured
    for axes in ((0, 1), (0, 2)):
        shares = kept.mean(axes)
        deviation = np.sqrt(probability * (1 - probability) / (kept.size / shares.size))
        assert np.abs(shares - (1 - probability)).max() < 5 * deviation


@pytest.mark.parametrize(
    "change",
    [
        {"seed": np.uint64(8)},
        {"seed": np.uint64(7 + (1 << 32))},
        {"step": 4},
        {"sequences": (5, 10)},
        {"site": 3},
        {"site": 0},
    ],
)
def test_another_seed_step_sequence_or_site_draws_an_independent_mask(change):
    one, other = drawn_mask(positions=100) != 0, drawn_mask(positions=100, **change) != 0
    assert_independent(one, other, 0.3)


def test_positions_sequences_and_channels_draw_independent_masks():
    kept = drawn_mask(positions=100, channels=64) != 0
    assert_independent(kept[:, :-1], kept[:, 1:], 0.3)
    assert_independent(kept[0], kept[1], 0.3)
    for distance in (1, 16, 32, 48):
        assert_independent(kept[:, :, :-distance], kept[:, :, distance:], 0.3)


def assert_independent(one, other, probability):
    """Two masks agree as often as independent ones, within five standard errors."""
    agree = probability**2 + (1 - probability) ** 2
    assert abs((one == other).mean() - agree) < 5 * np.sqrt(agree * (1 - agree) / one.size)


def test_the_mask_follows_the_sequence_through_any_micro_batch():
    places = (11, 3, 8, 5, 0)
    together = drawn_mask(sequences=places)
    for i, place in enumerate(places):
        np.testing.assert_array_equal(drawn_mask(sequences=(place,))[0], together[i])
    np.testing.assert_array_equal(drawn_mask(sequences=(5, 8)), together[[3, 2]])


def test_a_shorter_sequence_draws_the_same_mask_for_its_positions():
    np.testing.assert_array_equal(drawn_mask(positions=3), drawn_mask(positions=8)[:, :3])


def test_both_precisions_keep_the_same_channels(rng):
    for channels in (1, 2, 3, 5, 64):
        wide = np.ones((2, 4, channels))
        kept = forward(np.zeros_like(wide), wide, 0.3, **DRAW) != 0
        np.testing.assert_array_equal(kept, drawn_mask(positions=4, channels=channels) != 0)
