"""Token and position embedding."""

from feste_dp.kernels.compilation import kernel


@kernel
def embedding_forward(out, tokens, wte, wpe):
    """out[b, t] = wte[tokens[b, t]] + wpe[t]

    out      (B, T, C)
    tokens   (B, T) integers < V
    wte      (V, C),  wpe (>= T, C)
    """
    for b in range(out.shape[0]):
        for t in range(out.shape[1]):
            token = tokens[b, t]
            for c in range(out.shape[2]):
                out[b, t, c] = wte[token, c] + wpe[t, c]


@kernel
def embedding_backward(dwte, dwpe, dout, tokens):
    """Adds to dwte, dwpe.

    dwte[tokens[b, t]] += dout[b, t]
    dwpe[t]            += dout[b, t]
    """
    for b in range(dout.shape[0]):
        for t in range(dout.shape[1]):
            token = tokens[b, t]
            for c in range(dout.shape[2]):
                dwte[token, c] += dout[b, t, c]
                dwpe[t, c] += dout[b, t, c]
