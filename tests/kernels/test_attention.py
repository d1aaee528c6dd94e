import numpy as np
import pytest

from feste_dp.kernels.attention import QUERY_TILE, attention_backward, attention_forward, make_scratch
from feste_dp.kernels.matmul import make_pack_buffers
from tests.kernels.finite_differences import assert_gradients_match, gradients_added

# (B, T, heads, D); a tile holds 64 query rows
SMALL_SHAPES = [(1, 1, 1, 1), (2, 5, 2, 3), (1, 6, 3, 4)]
LARGE_SHAPES = [
    (1, QUERY_TILE, 2, 8),
    (2, QUERY_TILE + 1, 1, 16),
    (1, 2 * QUERY_TILE + 13, 3, 10),
    (2, 3 * QUERY_TILE - 1, 4, 5),
]

# Rows of softmax sum up to 200 terms and weigh up to 200 values of order one; scores of order ten, with
# roundings of 2^-24 each, go through exp.
FLOAT32_TOLERANCE = 1e-5


class Attention:
    """One call of the pair with buffers of its own; scratch starts as NaN, for it must not be read."""

    def __init__(self, shape, qkv):
        sequences, positions, self.n_head, head = shape
        self.qkv, self.pack = qkv, make_pack_buffers()
        self.out = np.full((sequences, positions, self.n_head * head), np.nan, qkv.dtype)
        self.lse = np.full((sequences, self.n_head, positions), np.nan, qkv.dtype)
        self.scores, self.dscores = (make_scratch(positions, qkv.dtype) for _ in range(2))
        self.scores[:], self.dscores[:] = np.nan, np.nan

    def forward(self):
        attention_forward(self.out, self.lse, self.qkv, self.scores, self.n_head, self.pack)
        return self.out

    def backward(self, dqkv, dout):
        attention_backward(
            dqkv, dout, self.out, self.lse, self.qkv, self.scores, self.dscores, self.n_head, self.pack
        )
        return dqkv


def random_qkv(shape, rng, dtype=np.float64):
    sequences, positions, n_head, head = shape
    return rng.standard_normal((sequences, positions, 3 * n_head * head)).astype(dtype)


def split_heads(x, n_head):
    """(B, T, C) -> (B, H, T, D)"""
    return x.reshape(*x.shape[:2], n_head, -1).transpose(0, 2, 1, 3)


def join_heads(x):
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


def plain_attention(qkv, n_head):
    """out, lse and the probabilities, by the whole T x T matrix."""
    q, k, v = (split_heads(part, n_head) for part in np.split(qkv, 3, axis=2))
    scores = q @ k.swapaxes(2, 3) / np.sqrt(q.shape[3])
    scores[..., ~np.tri(scores.shape[2], dtype=bool)] = -np.inf
    highest = scores.max(3, keepdims=True)
    lse = np.log(np.exp(scores - highest).sum(3)) + highest[..., 0]
    p = np.exp(scores - lse[..., None])
    return join_heads(p @ v), lse, p


def plain_attention_backward(dout, qkv, n_head):
    """dqkv, with the softmax's gradient from the probabilities themselves."""
    q, k, v = (split_heads(part, n_head) for part in np.split(qkv, 3, axis=2))
    _, _, p = plain_attention(qkv, n_head)
    dout = split_heads(dout, n_head)
    dp = dout @ v.swapaxes(2, 3)
    ds = p * (dp - (p * dp).sum(3, keepdims=True)) / np.sqrt(q.shape[3])
    parts = (ds @ k, ds.swapaxes(2, 3) @ q, p.swapaxes(2, 3) @ dout)
    return np.concatenate([join_heads(part) for part in parts], axis=2)


@pytest.mark.parametrize("shape", SMALL_SHAPES)
def test_backward_adds_the_gradient_of_finite_differences(shape, rng):
    attention = Attention(shape, random_qkv(shape, rng))
    dout = rng.standard_normal(attention.out.shape)

    def loss():
        return float((attention.forward() * dout).sum())

    loss()
    gradients = gradients_added(lambda dqkv: attention.backward(dqkv, dout), [attention.qkv], rng)
    assert_gradients_match(loss, [attention.qkv], gradients)


@pytest.mark.parametrize("shape", SMALL_SHAPES + LARGE_SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, FLOAT32_TOLERANCE), (np.float64, 1e-12)])
def test_the_pair_equals_the_plain_softmax_over_all_positions(shape, dtype, tolerance, rng):
    qkv = random_qkv(shape, rng, np.float32)
    attention = Attention(shape, qkv.astype(dtype))
    dout = rng.standard_normal(attention.out.shape).astype(np.float32)
    out = attention.forward()
    dqkv = attention.backward(np.zeros_like(attention.qkv), dout.astype(dtype))

    wide = qkv.astype(np.float64)
    expected, lse, _ = plain_attention(wide, attention.n_head)
    dqkv_expected = plain_attention_backward(dout.astype(np.float64), wide, attention.n_head)
    for got, reference in ((out, expected), (attention.lse, lse), (dqkv, dqkv_expected)):
        np.testing.assert_allclose(got, reference, rtol=0, atol=tolerance * (1 + np.abs(reference).max()))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_position_sees_none_after_it(dtype, rng):
    shape = (1, QUERY_TILE + 30, 2, 4)
    qkv = random_qkv(shape, rng, dtype)
    before = Attention(shape, qkv).forward()
    changed = qkv.copy()
    changed[:, 40:] += 5
    after = Attention(shape, changed).forward()
    np.testing.assert_array_equal(after[:, :40], before[:, :40])
    assert (after[:, 40:] != before[:, 40:]).all()


def test_a_position_sends_no_gradient_to_those_after_it(rng):
    shape = (1, QUERY_TILE + 30, 2, 4)
    attention = Attention(shape, random_qkv(shape, rng, np.float32))
    dout = rng.standard_normal(attention.forward().shape).astype(np.float32)
    dout[:, 40:] = 0
    dqkv = attention.backward(np.zeros_like(attention.qkv), dout)
    assert (dqkv[:, 40:] == 0).all()
    assert (dqkv[:, :40] != 0).any(axis=2).all()


def test_huge_scores_pick_the_best_key_without_overflow(rng):
    shape = (1, QUERY_TILE + 3, 1, 2)
    qkv = random_qkv(shape, rng, np.float32)
    qkv[..., :4] *= 1e9
    attention = Attention(shape, qkv)
    out = attention.forward()
    assert np.isfinite(attention.lse).all() and np.isfinite(out).all()
    expected, _, _ = plain_attention(qkv.astype(np.float64), 1)
    # a score is known to 2^-23 of 1e18 only: where two keys are that close, either answer is right
    assert np.isclose(out, expected, rtol=1e-6).all(axis=2).mean() > 0.9


def test_scores_of_a_million_leave_the_gradient_bounded(rng):
    # backward knows the log-sum-exp to 2^-24 of a million: its probabilities to a tenth
    shape = (1, QUERY_TILE + 3, 1, 2)
    qkv = random_qkv(shape, rng, np.float32)
    qkv[..., :4] *= 1e3
    attention = Attention(shape, qkv)
    dout = np.ones_like(attention.forward())
    dv = attention.backward(np.zeros_like(qkv), dout)[..., 4:]
    expected = plain_attention_backward(dout.astype(np.float64), qkv.astype(np.float64), 1)[..., 4:]
    np.testing.assert_allclose(dv, expected, rtol=0.1, atol=0.1)


def test_a_nan_reaches_the_output_of_its_position(rng):
    shape = (1, 9, 1, 4)
    for part in range(3):
        qkv = random_qkv(shape, rng, np.float32)
        qkv[0, 3, 4 * part] = np.nan
        assert np.isnan(Attention(shape, qkv).forward()[0, 3]).any()
