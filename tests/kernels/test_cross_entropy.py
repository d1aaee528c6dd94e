from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feste_dp.kernels.cross_entropy import cross_entropy_backward, cross_entropy_forward
from tests.kernels.finite_differences import assert_gradients_match

# (B, T, V)
SHAPES = [(1, 1, 1), (2, 3, 2), (1, 4, 13)]

# The log of a sum of V = 700 exponentials: some dozen roundings of 2^-24 of numbers of order ten.
FLOAT32_TOLERANCE = 1e-5


def random_case(shape, rng, dtype=np.float64):
    logits = (2 * rng.standard_normal(shape)).astype(dtype)
    return logits, rng.integers(0, shape[2], shape[:2])


def forward(logits, targets):
    """The losses, and what is saved for backward: the highest logits, and the sums over the others."""
    losses, highest, others = (np.zeros(targets.shape, logits.dtype) for _ in range(3))
    before = logits.copy()
    cross_entropy_forward(losses, highest, others, logits, targets)
    np.testing.assert_array_equal(logits, before)
    return losses, (highest, others)


def backward(logits, targets, saved, dloss):
    """dlogits, written over NaNs, and the same bits when written over the logits themselves."""
    dlogits, in_place = np.full_like(logits, np.nan), logits.copy()
    cross_entropy_backward(dlogits, logits, targets, *saved, dloss)
    cross_entropy_backward(in_place, in_place, targets, *saved, dloss)
    np.testing.assert_array_equal(in_place, dlogits)
    return dlogits


def log_softmax(logits):
    shifted = logits - logits.max(2, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(2, keepdims=True))


def formula(logits, targets):
    return -np.take_along_axis(log_softmax(logits), targets[..., None], axis=2)[..., 0]


def gradient_formula(logits, targets, dloss):
    onehot = np.eye(logits.shape[2])[targets]
    return (np.exp(log_softmax(logits)) - onehot) * dloss


@pytest.mark.parametrize("shape", SHAPES)
def test_forward_is_minus_the_log_of_the_targets_probability(shape, rng):
    logits, targets = random_case(shape, rng)
    losses, (highest, _) = forward(logits, targets)
    np.testing.assert_allclose(losses, formula(logits, targets), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(highest, logits.max(2))


@pytest.mark.parametrize("shape", SHAPES)
def test_backward_writes_the_gradient_of_finite_differences(shape, rng):
    logits, targets = random_case(shape, rng)
    dloss = 0.37

    def loss():
        return float(forward(logits, targets)[0].sum()) * dloss

    _, saved = forward(logits, targets)
    assert_gradients_match(loss, [logits], [backward(logits, targets, saved, dloss)])


def test_float32_agrees_with_float64(rng):
    logits, targets = random_case((2, 30, 701), rng, np.float32)
    losses, saved = forward(logits, targets)
    dlogits = backward(logits, targets, saved, 0.25)
    wide = logits.astype(np.float64)
    np.testing.assert_allclose(losses, formula(wide, targets), rtol=FLOAT32_TOLERANCE)
    expected = gradient_formula(wide, targets, 0.25)
    np.testing.assert_allclose(dlogits, expected, rtol=0, atol=FLOAT32_TOLERANCE * np.abs(expected).max())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1e4, 1e30])
def test_huge_logits_do_not_overflow(dtype, size):
    logits = np.array([[[size, -size, 0], [-size, -size, -size]]], dtype)
    losses, saved = forward(logits, np.array([[0, 2]]))
    assert losses[0, 0] == 0
    np.testing.assert_allclose(losses[0, 1], np.log(3), rtol=1e-6)
    dlogits = backward(logits, np.array([[0, 2]]), saved, 1.0)
    np.testing.assert_allclose(dlogits[0, 0], 0, atol=1e-30)
    np.testing.assert_allclose(dlogits[0, 1], [1 / 3, 1 / 3, -2 / 3], rtol=1e-6)


def test_a_wrong_certainty_costs_the_distance_of_the_logits():
    logits = np.array([[[500, -500]]], np.float32)
    losses, saved = forward(logits, np.array([[1]]))
    assert losses[0, 0] == 1000
    dlogits = backward(logits, np.array([[1]]), saved, 2.0)
    np.testing.assert_allclose(dlogits, [[[2, -2]]], rtol=1e-6)


@pytest.mark.parametrize("place", [0, 7, 19])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_logit_that_is_no_number_makes_the_loss_nan(place, bad, rng):
    logits, targets = random_case((1, 2, 20), rng, np.float32)
    targets[:] = 5
    logits[0, 0, place] = bad
    losses, saved = forward(logits, targets)
    assert np.isnan(losses[0, 0])
    assert np.isfinite(losses[0, 1])
    dlogits = backward(logits, targets, saved, 1.0)
    assert np.isnan(dlogits[0, 0]).all() and np.isfinite(dlogits[0, 1]).all()


def exact(logits, targets, dloss):
    """Losses and gradient as the logits lie there, by decimals of fifty digits."""
    losses, dlogits = np.zeros(targets.shape), np.zeros(logits.shape)
    with localcontext(prec=50):
        for place in np.ndindex(targets.shape):
            row, target = [Decimal(float(each)) for each in logits[place]], targets[place]
            powers = [(each - row[target]).exp() for each in row]
            others = sum(power for v, power in enumerate(powers) if v != target)
            # ln(1 + x) of a small x needs as many more digits as x has zeros
            with localcontext(prec=50 + max(0, -others.adjusted() if others else 0)):
                losses[place] = (1 + others).ln()
            dlogits[place] = [power / (1 + others) * Decimal(dloss) for power in powers]
            dlogits[place][target] = -others / (1 + others) * Decimal(dloss)
    return losses, dlogits


@pytest.mark.parametrize("offset", [0.0, 1e4, -1e4, 1e6, -1e6])
def test_what_all_logits_have_in_common_costs_no_digits(offset, rng):
    logits, targets = random_case((1, 20, 61), rng)
    logits = (logits + offset).astype(np.float32)
    losses, saved = forward(logits, targets)
    expected, dexpected = exact(logits, targets, 0.25)
    np.testing.assert_allclose(losses, expected, rtol=FLOAT32_TOLERANCE)
    np.testing.assert_allclose(backward(logits, targets, saved, 0.25), dexpected, rtol=FLOAT32_TOLERANCE)


@pytest.mark.parametrize("lead", [0.0, 1e-3, 1.0, 8.0, 16.0, 27.6, 40.0, 60.0, 72.0, 90.0])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_a_loss_next_to_zero_and_its_gradient_are_as_exact_as_any(lead, offset, rng):
    """27.6 makes a loss of 1e-12, 72 one of 1e-31; 90 is below what exp of a float32 gives."""
    targets = rng.integers(0, 40, (1, 10))
    logits = (offset + rng.uniform(-1, 0, (1, 10, 40))).astype(np.float32)
    np.put_along_axis(logits, targets[..., None], np.float32(offset + lead), axis=2)
    losses, saved = forward(logits, targets)
    expected, dexpected = exact(logits, targets, 2.0)
    dlogits = backward(logits, targets, saved, 2.0)
    least = 1e-36  # what is clamped at exp(-87.3), 1.2e-38 each
    # a distance of 70 is rounded to 4e-6
    np.testing.assert_allclose(losses, expected, rtol=FLOAT32_TOLERANCE, atol=least)
    np.testing.assert_allclose(dlogits, dexpected, rtol=FLOAT32_TOLERANCE, atol=least)
    # the gradient of a softmax adds up to nothing
    assert np.abs(dlogits.astype(np.float64).sum(2)).max() <= 1e-6 * np.abs(dlogits).max() + least


@given(
    row=st.lists(
        st.floats(allow_nan=False, allow_infinity=False, width=32) | st.floats(-50, 50, width=32),
        min_size=1,
        max_size=40,
    ),
    target=st.integers(0, 39),
)
@settings(max_examples=200, deadline=None)
def test_finite_logits_have_a_loss_and_a_finite_gradient(row, target):
    logits, targets = np.array([[row]], np.float32), np.array([[target % len(row)]])
    losses, saved = forward(logits, targets)
    wide = logits.astype(np.float64)
    with np.errstate(over="ignore"):
        expected = formula(wide, targets).astype(np.float32)
    np.testing.assert_allclose(losses, expected, rtol=FLOAT32_TOLERANCE, atol=FLOAT32_TOLERANCE)
    dlogits = backward(logits, targets, saved, 1.0)
    np.testing.assert_allclose(dlogits, gradient_formula(wide, targets, 1.0), atol=FLOAT32_TOLERANCE)
