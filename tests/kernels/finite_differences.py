"""Gradients by finite differences, and what a backward kernel adds to its buffers, in float64."""

from collections.abc import Callable, Sequence

import numpy as np

# The five-point stencil is off by h^4 / 30 of the fifth derivative and by about 1e-16 / h of rounding:
# 1e-12 each for values of order one, more where a sum of some hundred terms stands behind the loss.
STEP = 1e-3
TOLERANCE = 1e-9


def gradients_added(
    backward: Callable[..., None], like: Sequence[np.ndarray], rng: np.random.Generator
) -> list[np.ndarray]:
    """What backward(*buffers) adds to buffers full of noise, one shaped as each array of `like`."""
    noise = [rng.standard_normal(array.shape).astype(array.dtype) for array in like]
    buffers = [start.copy() for start in noise]
    backward(*buffers)
    return [buffer - start for buffer, start in zip(buffers, noise, strict=True)]


def derivative(loss: Callable[[], float], x: np.ndarray, index: tuple[int, ...]) -> float:
    """d loss / d x[index]; x is changed in place and put back."""
    middle, values = x[index], {}
    for steps in (-2, -1, 1, 2):
        x[index] = middle + steps * STEP
        values[steps] = loss()
    x[index] = middle
    return (8 * (values[1] - values[-1]) - (values[2] - values[-2])) / (12 * STEP)


def assert_gradients_match(
    loss: Callable[[], float], inputs: Sequence[np.ndarray], gradients: Sequence[np.ndarray]
) -> None:
    """Every element of every gradient equals the derivative of loss() by that element of the input."""
    for number, (x, gradient) in enumerate(zip(inputs, gradients, strict=True)):
        expected = np.zeros_like(x)
        for index in np.ndindex(x.shape):
            expected[index] = derivative(loss, x, index)
        scale = 1 + np.abs(expected).max()
        np.testing.assert_allclose(
            gradient, expected, rtol=0, atol=TOLERANCE * scale, err_msg=f"gradient of input {number}"
        )
