"""GELU by its definition, and how far the kernels' float32 may be from it."""

import numpy as np

# As the docstrings of the kernels promise, for all |x| < 2^33: a share of |x|, and absolute.
FORWARD_ERROR = 2.0**-22
DERIVATIVE_ERROR = 2.0**-18


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def gelu_derivative(x: np.ndarray) -> np.ndarray:
    t = np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * x**2)
