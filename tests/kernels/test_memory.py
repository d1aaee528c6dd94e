"""Operands may end where the process's memory ends: the arena of a run does."""

import os
import subprocess
import sys

import pytest

from feste_dp.kernels.code_cache import CACHE_VARIABLE, KernelCache, code_place
from tests.kernels.operands import both_precisions

START = """
import ctypes, mmap, sys
import numpy as np
from feste_dp.kernels.packing import make_pack_buffers
from feste_dp.kernels.vector.target import LANES, TILE_COLUMNS, TILE_ROWS

def fenced(*shape):
    '''Random numbers behind whose last one nothing may be read or written.'''
    count = int(np.prod(shape))
    size = -(-4 * count // mmap.PAGESIZE) * mmap.PAGESIZE
    room = mmap.mmap(-1, size + mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(room))
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(address + size), mmap.PAGESIZE, 0) == 0
    array = np.frombuffer(room, np.float32, count, size - 4 * count).reshape(shape)
    array[:] = rng.standard_normal(shape)
    return array

rng, pack = np.random.default_rng(1), make_pack_buffers(sys.argv[1] == "True")
sizes = sorted({size + more for size in (1, TILE_ROWS, LANES, TILE_COLUMNS, 2 * LANES) for more in (0, 1, 3)})
"""

PRODUCT = """
from feste_dp.kernels.matmul import matmul

for m in sizes:
    for n in sizes:
        for k in sizes:
            matmul(fenced(m, n), fenced(m, k), fenced(k, n), False, pack)
            matmul(fenced(m, n), fenced(m, k), fenced(n, k).T, False, pack)
            matmul(fenced(m, n), fenced(k, m).T, fenced(k, n), True, pack)
"""

ATTENTION = """
from feste_dp.kernels.attention import attention_backward, attention_forward, make_attention_scratch

for head in (1, 7, 16, 33):
    for positions in (*sizes, 131, 250):
        scratch = make_attention_scratch(positions, head)
        arrays = [fenced(*buffer.shape) for buffer in scratch]
        scratch = type(scratch)(*arrays)
        qkv, out = fenced(1, positions, 6 * head), fenced(1, positions, 2 * head)
        lse = fenced(1, 2, positions)
        attention_forward(out, lse, qkv, scratch, 2, pack)
        attention_backward(fenced(*qkv.shape), fenced(*out.shape), out, lse, qkv, scratch, 2, pack)
"""

GELU = """
from feste_dp.kernels.gelu import gelu_backward_block, gelu_forward_block

for m in sizes:
    for n in sizes:
        gelu_forward_block(fenced(m, n), fenced(m, n), 0, m, 0, n)
        gelu_backward_block(fenced(m, n), fenced(m, n), fenced(m, n), 0, m, 0, n)
"""


@both_precisions
@pytest.mark.parametrize("kernels", [PRODUCT, ATTENTION, GELU], ids=["product", "attention", "gelu"])
def test_kernels_touch_nothing_behind_their_arrays(kernels, bf16):
    done = subprocess.run(
        [sys.executable, "-c", START + kernels + 'print("untouched")', str(bf16)],
        env=os.environ | {CACHE_VARIABLE: str(code_place(KernelCache.kind).path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout) == (0, "untouched\n"), done.stderr
