"""Weights of the tokens to draw from."""

from feste_dp.kernels.compilation import kernel
from feste_dp.kernels.vector.exponential import exp


@kernel
def softmax_weights(out, scores, highest, temperature):
    """out = exp((scores - highest) / temperature), of our own exp, which is the same on every CPU

    out (n,) float64, scores (n,) float32
    """
    for i in range(scores.shape[0]):
        scaled = (float(scores[i]) - highest) / temperature
        out[i] = float(exp(scores.dtype.type(scaled)))
