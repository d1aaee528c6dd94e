import numpy as np
import pytest

from feste_dp.kernels import attention as kernels
from feste_dp.kernels.attention import KEY_BLOCK, KEYS, QUERIES, QUERY_BLOCK, make_attention_scratch
from feste_dp.kernels.packing import make_pack_buffers
from feste_dp.kernels.vector.target import LANES, TILE_ROWS
from tests.kernels.finite_differences import assert_gradients_match
from tests.kernels.operands import PRECISIONS, Guarded, GuardedBuffers, both_precisions, in_any_layout

attention_forward = in_any_layout(kernels.attention_forward)
attention_backward = in_any_layout(kernels.attention_backward)

# (B, T, heads, D)
SMALL_SHAPES = [(1, 1, 1, 1), (2, 5, 2, 3), (1, 6, 3, 4)]
LARGE_SHAPES = [
    (1, QUERY_BLOCK, 2, 8),
    (2, KEY_BLOCK + 1, 1, 16),
    (1, 2 * QUERY_BLOCK + 13, 3, 10),
    (2, 3 * KEYS - 1, 4, 5),
]

# Around every boundary of the tiles, forward's and backward's.
TILES = sorted({TILE_ROWS, LANES, QUERIES, 2 * QUERIES, KEYS, KEY_BLOCK, QUERY_BLOCK, 2 * KEY_BLOCK})
POSITIONS = sorted({1, 2, 3} | {tile + more for tile in TILES for more in (-1, 0, 1)})
IN_TWO_BLOCKS = KEY_BLOCK + QUERIES + 1  # the time grows with the square
HEADS = [1, 2, 3, 7, 15, 16, 17, 32, 33, 48, 64, 65, 80, 128, 131]

# Of the largest element. Rows of softmax sum up to 250 terms and weigh up to 250 values of order one; scores
# of order ten, with roundings of 2^-24 each, go through exp.
FLOAT32_TOLERANCE = 1e-5

# Operands of all products, probabilities and their gradients among them, are known to 2^-8.
BF16_TOLERANCE = 2e-2


class Attention:
    """One call of the pair with buffers of its own, all of them guarded; results, scratch and pack buffers
    start as NaN, for they must not be read."""

    def __init__(self, shape, qkv, bf16=False):
        sequences, positions, self.n_head, head = shape
        channels = self.n_head * head
        self._qkv = Guarded(sequences, positions, 3 * channels, dtype=qkv.dtype)
        self._out = Guarded(sequences, positions, channels, dtype=qkv.dtype)
        self._lse = Guarded(sequences, self.n_head, positions, dtype=qkv.dtype)
        self.qkv, self.out, self.lse = self._qkv.view, self._out.view, self._lse.view
        self.qkv[:] = qkv
        self._scratch = GuardedBuffers(make_attention_scratch(positions, head))
        self._pack = GuardedBuffers(make_pack_buffers(bf16))
        self.scratch, self.pack = self._scratch.buffers, self._pack.buffers

    def forward(self):
        attention_forward(self.out, self.lse, self.qkv, self.scratch, self.n_head, self.pack)
        for guarded in (self._qkv, self._out, self._lse, self._scratch, self._pack):
            guarded.assert_nothing_written_around()
        return self.out

    def backward(self, dout):
        dqkv, guarded_dout = (Guarded(*x.shape, dtype=x.dtype) for x in (self.qkv, self.out))
        guarded_dout.view[:] = dout
        attention_backward(
            dqkv.view,
            guarded_dout.view,
            self.out,
            self.lse,
            self.qkv,
            self.scratch,
            self.n_head,
            self.pack,
        )
        for guarded in (dqkv, self._scratch, self._pack):
            guarded.assert_nothing_written_around()
        return dqkv.view


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
def test_backward_writes_the_gradient_of_finite_differences(shape, rng):
    attention = Attention(shape, random_qkv(shape, rng))
    dout = rng.standard_normal(attention.out.shape)

    def loss():
        return float((attention.forward() * dout).sum())

    loss()
    assert_gradients_match(loss, [attention.qkv], [attention.backward(dout)])


def errors(shape, dtype, bf16, rng):
    """Name and error, a share of the largest element, of out, lse and each third of dqkv."""
    qkv = random_qkv(shape, rng, np.float32)
    attention = Attention(shape, qkv.astype(dtype), bf16)
    dout = rng.standard_normal(attention.out.shape).astype(np.float32)
    out, dqkv = attention.forward(), attention.backward(dout)

    wide = qkv.astype(np.float64)
    expected, lse, _ = plain_attention(wide, attention.n_head)
    expected_dqkv = plain_attention_backward(dout.astype(np.float64), wide, attention.n_head)
    pairs = {"out": (out, expected), "lse": (attention.lse, lse)}
    thirds = zip(np.split(dqkv, 3, 2), np.split(expected_dqkv, 3, 2), strict=True)
    pairs |= dict(zip(("dq", "dk", "dv"), thirds, strict=True))
    return {name: np.abs(got - want).max() / (1 + np.abs(want).max()) for name, (got, want) in pairs.items()}


@pytest.mark.parametrize("shape", SMALL_SHAPES + LARGE_SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, FLOAT32_TOLERANCE), (np.float64, 1e-12)])
def test_the_pair_equals_the_plain_softmax_over_all_positions(shape, dtype, tolerance, rng):
    for name, error in errors(shape, dtype, False, rng).items():
        assert error <= tolerance, name


@both_precisions
@pytest.mark.parametrize("head", HEADS)
def test_any_head_dimension_is_right_around_the_boundaries_of_the_tiles(head, bf16, rng):
    tolerance = BF16_TOLERANCE if bf16 else FLOAT32_TOLERANCE
    for positions in [each for each in POSITIONS if each <= IN_TWO_BLOCKS]:
        for name, error in errors((1, positions, 2, head), np.float32, bf16, rng).items():
            assert error <= tolerance, (positions, name)


@both_precisions
def test_any_number_of_positions_is_right(bf16, rng):
    tolerance = BF16_TOLERANCE if bf16 else FLOAT32_TOLERANCE
    more = [each for each in (*POSITIONS, 2 * KEY_BLOCK + QUERIES + 1) if each > IN_TWO_BLOCKS]
    for positions in [*range(1, IN_TWO_BLOCKS + 1), *more]:
        for name, error in errors((1, positions, 1, 16), np.float32, bf16, rng).items():
            assert error <= tolerance, (positions, name)


@both_precisions
@pytest.mark.parametrize("positions", [1, KEYS + 1, QUERY_BLOCK + TILE_ROWS + 1, KEY_BLOCK + QUERIES + 5])
def test_neither_scratch_nor_what_was_computed_before_leaves_a_trace(positions, bf16, rng):
    shape = (2, positions, 3, 20)
    qkv, other = random_qkv(shape, rng, np.float32), 3 * random_qkv(shape, rng, np.float32)
    dout = rng.standard_normal((*shape[:2], 60)).astype(np.float32)
    fresh, used = Attention(shape, qkv, bf16), Attention(shape, other, bf16)
    used.forward(), used.backward(5 * dout)
    used.qkv[:] = qkv
    np.testing.assert_array_equal(used.forward(), fresh.forward())
    np.testing.assert_array_equal(used.lse, fresh.lse)
    np.testing.assert_array_equal(used.backward(dout), fresh.backward(dout))


@both_precisions
def test_the_bits_of_a_head_do_not_depend_on_the_sequences_and_heads_beside_it(bf16, rng):
    sequences, positions, n_head, head = shape = (3, KEY_BLOCK + 9, 4, 18)
    qkv = random_qkv(shape, rng, np.float32)
    dout = rng.standard_normal((sequences, positions, n_head * head)).astype(np.float32)
    together = Attention(shape, qkv, bf16)
    out, dqkv = together.forward(), together.backward(dout)
    for b, h in ((0, 0), (1, 2), (2, 3)):
        channels = slice(h * head, (h + 1) * head)
        own = np.concatenate([part[b : b + 1, :, channels] for part in np.split(qkv, 3, axis=2)], axis=2)
        alone = Attention((1, positions, 1, head), own, bf16)
        np.testing.assert_array_equal(alone.forward()[0], out[b, :, channels])
        own_dqkv = np.concatenate([part[b, :, channels] for part in np.split(dqkv, 3, axis=2)], axis=1)
        np.testing.assert_array_equal(alone.backward(dout[b : b + 1, :, channels])[0], own_dqkv)


SEEN = [1, QUERIES - 1, QUERIES, 40, QUERY_BLOCK + 1, KEY_BLOCK, KEY_BLOCK + 11]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seen", SEEN)
@both_precisions
def test_a_position_sees_none_after_it(seen, dtype, bf16, rng):
    shape = (1, KEY_BLOCK + 30, 2, 4)
    qkv = random_qkv(shape, rng, dtype)
    before = Attention(shape, qkv, bf16)
    before.forward()
    changed = qkv.copy()
    changed[:, seen:] += 5
    after = Attention(shape, changed, bf16)
    after.forward()
    np.testing.assert_array_equal(after.out[:, :seen], before.out[:, :seen])
    np.testing.assert_array_equal(after.lse[:, :, :seen], before.lse[:, :, :seen])
    assert (after.out[:, seen:] != before.out[:, seen:]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seen", SEEN)
@both_precisions
def test_a_position_sends_no_gradient_to_those_after_it(seen, dtype, bf16, rng):
    shape = (1, KEY_BLOCK + 30, 2, 4)
    attention = Attention(shape, random_qkv(shape, rng, dtype), bf16)
    dout = rng.standard_normal(attention.forward().shape)
    dout[:, seen:] = 0
    dqkv = attention.backward(dout)
    assert (dqkv[:, seen:] == 0).all()
    assert (dqkv[:, :seen] != 0).any(axis=2).all()


@both_precisions
def test_huge_scores_pick_the_best_key_without_overflow(bf16, rng):
    shape = (1, KEY_BLOCK + 3, 1, 2)
    qkv = random_qkv(shape, rng, np.float32)
    if bf16:  # numbers that rounding leaves alone: the best key is the same one
        qkv = (qkv.view(np.uint32) & 0xFFFF0000).view(np.float32)
    qkv[..., :4] *= 2.0**30 if bf16 else 1e9
    attention = Attention(shape, qkv, bf16)
    out = attention.forward()
    assert np.isfinite(attention.lse).all() and np.isfinite(out).all()
    expected, _, _ = plain_attention(qkv.astype(np.float64), 1)
    # a score is known to 2^-23 of 1e18 only: where two keys are that close, either answer is right
    assert np.isclose(out, expected, rtol=1e-6).all(axis=2).mean() > 0.9


def test_scores_of_a_million_leave_the_gradient_bounded(rng):
    # backward knows the log-sum-exp to 2^-24 of a million: its probabilities to a tenth
    shape = (1, KEY_BLOCK + 3, 1, 2)
    qkv = random_qkv(shape, rng, np.float32)
    qkv[..., :4] *= 1e3
    attention = Attention(shape, qkv)
    dout = np.ones_like(attention.forward())
    dv = attention.backward(dout)[..., 4:]
    expected = plain_attention_backward(dout.astype(np.float64), qkv.astype(np.float64), 1)[..., 4:]
    np.testing.assert_allclose(dv, expected, rtol=0.1, atol=0.1)


@both_precisions
def test_scores_of_any_size_leave_probabilities_at_most_one(bf16, rng):
    # backward knows the log-sum-exp to 2^-24 of 1e10 only, hundreds: exp of that would be no probability
    shape = (1, KEY_BLOCK + 3, 1, 2)
    qkv = random_qkv(shape, rng, np.float32)
    qkv[..., :4] *= 1e5
    attention = Attention(shape, qkv, bf16)
    dv = attention.backward(np.ones_like(attention.forward()))[..., 4:]
    assert (dv >= 0).all() and dv.max() <= shape[1]


@both_precisions
def test_scores_that_rise_from_tile_to_tile_need_the_running_maximum(bf16, rng):
    # the sum of all earlier tiles must shrink again and again: keys grow along the positions, queries agree
    shape = (1, 3 * KEY_BLOCK, 1, 8)
    qkv = random_qkv(shape, rng, np.float32)
    qkv[0, :, 8:16] += np.linspace(0, 40, shape[1], dtype=np.float32)[:, None]
    qkv[0, :, :8] = np.abs(qkv[0, :, :8])
    if bf16:
        qkv = (qkv.view(np.uint32) & 0xFFFF0000).view(np.float32)
    attention = Attention(shape, qkv, bf16)
    expected, lse, _ = plain_attention(qkv.astype(np.float64), 1)
    tolerance = BF16_TOLERANCE if bf16 else 1e-4  # scores of 300, each known to 2^-24 of that
    np.testing.assert_allclose(attention.forward(), expected, rtol=0, atol=tolerance)
    np.testing.assert_allclose(attention.lse, lse, rtol=1e-6)


@both_precisions
@pytest.mark.parametrize("positions", [9, KEY_BLOCK + 20])
@pytest.mark.parametrize("place", [3, 8])
def test_a_nan_reaches_the_output_of_its_position_and_the_gradient(positions, place, bf16, rng):
    shape = (1, positions, 1, 4)
    for part in range(3):
        qkv = random_qkv(shape, rng, np.float32)
        qkv[0, place, 4 * part] = np.nan
        attention = Attention(shape, qkv, bf16)
        out = attention.forward()
        assert np.isnan(out[0, place]).any()
        assert np.isnan(attention.backward(np.ones_like(out))[0, place]).any()


@both_precisions
def test_a_nan_in_the_gradient_of_the_output_reaches_that_of_the_values(bf16, rng):
    shape = (1, QUERIES + 9, 1, 4)
    attention = Attention(shape, random_qkv(shape, rng, np.float32), bf16)
    dout = np.ones_like(attention.forward())
    dout[0, QUERIES + 8, 2] = np.nan
    dv = attention.backward(dout)[0, :, 8:]
    assert np.isnan(dv[:, 2]).all()


@pytest.mark.parametrize("bf16", [True] * (True in PRECISIONS))
def test_bfloat16_is_used_and_only_where_it_is_asked_for(bf16, rng):
    shape = (1, 70, 2, 32)
    qkv = random_qkv(shape, rng, np.float32)
    narrow, wide = Attention(shape, qkv, bf16), Attention(shape, qkv, not bf16)
    assert (narrow.forward() != wide.forward()).mean() > 0.9
    dout = rng.standard_normal(wide.out.shape).astype(np.float32)
    assert (narrow.backward(dout) != wide.backward(dout)).mean() > 0.9
