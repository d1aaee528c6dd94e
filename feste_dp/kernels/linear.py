"""Linear layer. Weights are (in, out), as GPT-2's Conv1D stores them."""

from feste_dp.kernels.compilation import kernel
from feste_dp.kernels.matmul import matmul


@kernel
def linear_forward(out, x, weight, bias, pack):
    """out = x @ weight + bias

    x (B, T, K), weight (K, N), bias (N,), out (B, T, N)
    """
    rows = out.reshape(out.shape[0] * out.shape[1], out.shape[2])
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            rows[i, j] = bias[j]
    matmul(rows, x.reshape(rows.shape[0], x.shape[2]), weight, True, pack)


@kernel
def linear_backward(dx, dweight, dbias, dout, x, weight, pack):
    """Adds to dx, dweight, dbias.

    dx      += dout @ weight.T
    dweight += x.T @ dout
    dbias   += sum_BT(dout)
    """
    drows = dout.reshape(dout.shape[0] * dout.shape[1], dout.shape[2])
    matmul(dx.reshape(drows.shape[0], dx.shape[2]), drows, weight.T, True, pack)
    matmul(dweight, x.reshape(drows.shape[0], x.shape[2]).T, drows, True, pack)
    for i in range(drows.shape[0]):
        for j in range(drows.shape[1]):
            dbias[j] += drows[i, j]


@kernel
def head_forward(logits, x, weight, pack):
    """logits = x @ weight.T: the output head, (V, C) like the token embedding it may be tied to."""
    rows = logits.reshape(logits.shape[0] * logits.shape[1], logits.shape[2])
    matmul(rows, x.reshape(rows.shape[0], x.shape[2]), weight.T, False, pack)


@kernel
def head_backward(dx, dweight, dlogits, x, weight, pack):
    """Adds to dx, dweight.

    dx      += dlogits @ weight
    dweight += dlogits.T @ x      x is the output of the final layer norm
    """
    drows = dlogits.reshape(dlogits.shape[0] * dlogits.shape[1], dlogits.shape[2])
    matmul(dx.reshape(drows.shape[0], dx.shape[2]), drows, weight, True, pack)
    matmul(dweight, drows.T, x.reshape(drows.shape[0], x.shape[2]), True, pack)
