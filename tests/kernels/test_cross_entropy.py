import numpy as np
import pytest

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
    losses, lse = np.zeros(targets.shape, logits.dtype), np.zeros(targets.shape, logits.dtype)
    cross_entropy_forward(losses, lse, logits, targets)
    return losses, lse


def backward(logits, targets, lse, dloss):
    """dlogits, written over NaNs, and the same bits when written over the logits themselves."""
    dlogits, in_place = np.full_like(logits, np.nan), logits.copy()
    cross_entropy_backward(dlogits, logits, targets, lse, dloss)
    cross_entropy_backward(in_place, in_place, targets, lse, dloss)
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
    losses, lse = forward(logits, targets)
    np.testing.assert_allclose(losses, formula(logits, targets), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(lse, np.log(np.exp(logits).sum(2)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_backward_writes_the_gradient_of_finite_differences(shape, rng):
    logits, targets = random_case(shape, rng)
    dloss = 0.37

    def loss():
        return float(forward(logits, targets)[0].sum()) * dloss

    _, lse = forward(logits, targets)
    assert_gradients_match(loss, [logits], [backward(logits, targets, lse, dloss)])


def test_float32_agrees_with_float64(rng):
    logits, targets = random_case((2, 30, 701), rng, np.float32)
    losses, lse = forward(logits, targets)
    dlogits = backward(logits, targets, lse, 0.25)
    wide = logits.astype(np.float64)
    np.testing.assert_allclose(losses, formula(wide, targets), rtol=FLOAT32_TOLERANCE)
    expected = gradient_formula(wide, targets, 0.25)
    np.testing.assert_allclose(dlogits, expected, rtol=0, atol=FLOAT32_TOLERANCE * np.abs(expected).max())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1e4, 1e30])
def test_huge_logits_do_not_overflow(dtype, size):
    logits = np.array([[[size, -size, 0], [-size, -size, -size]]], dtype)
    losses, lse = forward(logits, np.array([[0, 2]]))
    np.testing.assert_allclose(losses[0, 0], 0, atol=1e-30)
    # log(3) where it is not lost beside the size of the logits
    np.testing.assert_allclose(losses[0, 1], np.log(3) if size == 1e4 else 0, rtol=1e-3)
    dlogits = backward(logits, np.array([[0, 2]]), lse, 1.0)
    np.testing.assert_allclose(dlogits[0, 0], 0, atol=1e-30)
    assert np.isfinite(dlogits).all()


def test_a_wrong_certainty_costs_the_distance_of_the_logits():
    logits = np.array([[[500, -500]]], np.float32)
    losses, lse = forward(logits, np.array([[1]]))
    assert losses[0, 0] == 1000
    dlogits = backward(logits, np.array([[1]]), lse, 2.0)
    np.testing.assert_allclose(dlogits, [[[2, -2]]], rtol=1e-6)


@pytest.mark.parametrize("place", [0, 7, 19])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_logit_that_is_no_number_makes_the_loss_nan(place, bad, rng):
    logits, targets = random_case((1, 2, 20), rng, np.float32)
    targets[:] = 5
    logits[0, 0, place] = bad
    losses, lse = forward(logits, targets)
    assert np.isnan(losses[0, 0])
    assert np.isfinite(losses[0, 1])
    dlogits = backward(logits, targets, lse, 1.0)
    assert np.isnan(dlogits[0, 0]).all() and np.isfinite(dlogits[0, 1]).all()
