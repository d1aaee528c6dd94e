import numpy as np
import pytest

from feste_dp.kernels.embedding import embedding_backward, embedding_forward
from tests.kernels.finite_differences import assert_gradients_match, gradients_added

# (B, T, C, V, rows of wpe)
SHAPES = [(1, 1, 1, 1, 1), (2, 5, 3, 4, 7), (3, 4, 8, 11, 4)]


def random_case(shape, rng, dtype=np.float64):
    sequences, positions, channels, vocabulary, block_size = shape
    tokens = rng.integers(0, vocabulary, (sequences, positions))
    wte = rng.standard_normal((vocabulary, channels)).astype(dtype)
    wpe = rng.standard_normal((block_size, channels)).astype(dtype)
    return tokens, wte, wpe, np.zeros((sequences, positions, channels), dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_forward_adds_the_rows_of_token_and_position(shape, dtype, rng):
    tokens, wte, wpe, out = random_case(shape, rng, dtype)
    embedding_forward(out, tokens, wte, wpe)
    np.testing.assert_array_equal(out, wte[tokens] + wpe[: tokens.shape[1]])


@pytest.mark.parametrize("shape", SHAPES)
def test_backward_adds_the_gradient_of_finite_differences(shape, rng):
    tokens, wte, wpe, out = random_case(shape, rng)
    dout = rng.standard_normal(out.shape)

    def loss():
        embedding_forward(out, tokens, wte, wpe)
        return float((out * dout).sum())

    gradients = gradients_added(
        lambda dwte, dwpe: embedding_backward(dwte, dwpe, dout, tokens), [wte, wpe], rng
    )
    assert_gradients_match(loss, [wte, wpe], gradients)


def test_a_token_that_occurs_twice_gets_both_gradients_and_an_absent_one_none():
    tokens = np.array([[2, 0, 2]])
    dwte, dwpe = np.zeros((4, 2), np.float32), np.zeros((5, 2), np.float32)
    dout = np.array([[[1, 10], [2, 20], [4, 40]]], np.float32)
    embedding_backward(dwte, dwpe, dout, tokens)
    np.testing.assert_array_equal(dwte, [[2, 20], [0, 0], [5, 50], [0, 0]])
    np.testing.assert_array_equal(dwpe, [[1, 10], [2, 20], [4, 40], [0, 0], [0, 0]])
