"""The vector code of CPUs that this machine is wider than: it must be right there too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from feste_dp.kernels.code_cache import CACHE_VARIABLE, KernelCache, code_place

START = """
import sys
import llvmlite.binding as llvm
import numpy as np

import numba  # asks for the features itself, with more of the answer

from feste_dp.kernels import compilation

features, real = dict(feature.split("=") for feature in sys.argv[2:]), llvm.get_host_cpu_features
llvm.get_host_cpu_features = lambda: {name: state == "1" for name, state in features.items()}
from feste_dp.kernels.vector.target import HAS_BF16, LANES, TILE_COLUMNS, TILE_ROWS

llvm.get_host_cpu_features = real
from feste_dp.kernels.packing import make_pack_buffers

assert int(sys.argv[1]) == LANES and not HAS_BF16, LANES
pack, rng = make_pack_buffers(), np.random.default_rng(1)
"""

PRODUCT = """
from feste_dp.kernels import matmul as kernels
from tests.kernels.operands import in_any_layout

matmul = in_any_layout(kernels.matmul)

def view(matrix):
    room = np.full((matrix.shape[0], matrix.shape[1] + 5), np.nan, np.float32)
    room[:, 2:-3] = matrix
    return room[:, 2:-3]

for rows, depth, columns in ((1, 1, 1), (13, 7, 5), (24, 32, 48), (67, 300, 51), (100, 65, 1540)):
    a = rng.standard_normal((rows, depth), dtype=np.float32)
    b = rng.standard_normal((depth, columns), dtype=np.float32)
    for left in (view(a), view(a.T).T):
        for right in (view(b), view(b.T).T):
            c = view(np.full((rows, columns), 2))
            matmul(c, left, right, True, pack)
            expected = a.astype(np.float64) @ b + 2
            assert np.abs(c - expected).max() < 1e-4, (rows, depth, columns)
"""

ATTENTION = """
from feste_dp.kernels.attention import KEY_BLOCK, QUERIES, attention_backward, attention_forward
from feste_dp.kernels.attention import make_attention_scratch
from feste_dp.kernels.attention_plain import plain_attention_backward, plain_attention_forward

def close(got, expected):
    return np.abs(got - expected).max() <= 1e-5 * (1 + np.abs(expected).max())

for head in (1, 5, 16, 33):
    for positions in (1, 2, TILE_ROWS + 1, QUERIES, QUERIES + 1, KEY_BLOCK + 3, 2 * KEY_BLOCK + QUERIES + 1):
        qkv = rng.standard_normal((2, positions, 6 * head), dtype=np.float32)
        dout = rng.standard_normal((2, positions, 2 * head), dtype=np.float32)
        out, lse = np.full_like(dout, np.nan), np.full((2, 2, positions), np.nan, np.float32)
        dqkv, scratch = np.full_like(qkv, np.nan), make_attention_scratch(positions, head)
        for buffer in scratch:
            buffer[:] = np.nan
        attention_forward(out, lse, qkv, scratch, 2, pack)
        attention_backward(dqkv, dout, out, lse, qkv, scratch, 2, pack)
        for b in range(2):
            for h in range(2):
                def parts(array, count):
                    heads = array[b].reshape(positions, count, 2, head)[:, :, h].astype(np.float64)
                    return [np.ascontiguousarray(heads[:, i]) for i in range(count)]

                q, k, v = parts(qkv, 3)
                o, log_sums = np.zeros_like(q), np.zeros(positions)
                plain_attention_forward(o, log_sums, q, k, v)
                dq, dk, dv = np.zeros((3, positions, head))
                plain_attention_backward(dq, dk, dv, parts(dout, 1)[0], o, log_sums, q, k, v)
                got = [parts(out, 1)[0], lse[b, h], *parts(dqkv, 3)]
                for number, pair in enumerate(zip(got, (o, log_sums, dq, dk, dv))):
                    assert close(*pair), (head, positions, b, h, number)
"""

DECODING = """
from feste_dp.kernels.attention import KEY_BLOCK, attention_forward, make_attention_scratch
from feste_dp.kernels.cached_attention import PANEL, cached_attention, head_room, store_key_value
from feste_dp.kernels.vector_product import head_rows, linear_rows

def empty(*shape):
    return np.full(shape, np.nan, np.float32)

for rows, depth, columns in ((1, 5, 17), (3, 520, 67)):
    x, bias, weight = (
        rng.standard_normal(shape, dtype=np.float32) for shape in ((rows, depth), columns, (depth, columns))
    )
    expected = x.astype(np.float64) @ weight
    out, sums = empty(rows, columns), empty(rows, columns + LANES)
    linear_rows(out, x, weight, bias, False, 0, columns, sums)
    assert np.abs(out - expected - bias).max() < 1e-4
    tile, sums = empty(LANES * LANES), empty(rows, 2 * LANES)
    head_rows(out, x, np.ascontiguousarray(weight.T), 0, columns, tile, sums)
    assert np.abs(out - expected).max() < 1e-4

for head, positions in ((5, 3), (33, KEY_BLOCK + PANEL + 1)):
    qkv = rng.standard_normal((1, positions, 3 * head), dtype=np.float32)
    expected, lse = empty(1, positions, head), empty(1, 1, positions)
    attention_forward(expected, lse, qkv, make_attention_scratch(positions, head), 1, pack)
    panels = -(-positions // PANEL)
    keys, values = empty(panels, head, PANEL), empty(panels * PANEL, head)
    scores, sums, out = empty(KEY_BLOCK), empty(head_room(head)), empty(head)
    for t in range(positions):
        q, k, v = qkv[0, t].reshape(3, head)
        store_key_value(keys, values, t, k, v)
        cached_attention(out, q, keys, values, t + 1, scores, sums)
        assert (out == expected[0, t]).all(), (head, t)
"""

GELU = """
from feste_dp.kernels.gelu import gelu_backward_block, gelu_forward_block

for columns in (1, LANES - 1, LANES, 5 * LANES + 3):
    x = np.linspace(-12, 12, 1000 * columns, dtype=np.float32).reshape(1000, columns)
    out, again, dx = np.full_like(x, np.nan), np.full_like(x, np.nan), np.ones_like(x)
    gelu_forward_block(out, x, 0, 1000, 0, columns)
    gelu_backward_block(dx, again, x, 0, 1000, 0, columns)
    wide, root = x.astype(np.float64), np.sqrt(2 / np.pi)
    t = np.tanh(root * (wide + 0.044715 * wide**3))
    expected = 0.5 * (1 + t) + 0.5 * wide * (1 - t * t) * root * (1 + 3 * 0.044715 * wide**2)
    for got in (out, again):
        assert (np.abs(got - 0.5 * wide * (1 + t)) <= 2.0**-22 * np.abs(wide)).all(), columns
    assert np.abs(dx - expected).max() <= 2.0**-18, columns
"""


@pytest.mark.parametrize(
    "check", [PRODUCT, ATTENTION, DECODING, GELU], ids=["product", "attention", "decoding", "gelu"]
)
@pytest.mark.parametrize(("lanes", "features"), [(8, ["avx512f=0", "avx=1"]), (4, ["neon=1"])])
def test_every_kernel_of_vectors_is_right_at_the_vector_width_of_every_cpu(
    lanes: int, features: list[str], check: str
) -> None:
    # Numba does not see that the width differs
    compiled = code_place(KernelCache.kind).path / f"{lanes}-lanes"
    done = subprocess.run(
        [sys.executable, "-c", START + check + 'print("right")', str(lanes), *features],
        env=os.environ | {CACHE_VARIABLE: str(compiled)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stderr
