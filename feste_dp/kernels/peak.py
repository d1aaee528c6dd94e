"""The yardsticks of a benchmark: loops that do nothing but what a core does best.

Owns one loop at the speed of the registers for each precision of the matrix product, and one at the speed of
memory. Nothing that trains calls them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from feste_dp.kernels.compilation import kernel
from feste_dp.kernels.vector.registers import address_of
from feste_dp.kernels.vector.target import TILE_COLUMNS, TILE_ROWS
from feste_dp.kernels.vector.tile import multiply_tile, multiply_tile_bf16

PANEL_DEPTH = 128  # both panels, 22 KiB with AVX-512, stay in the L1 cache


class RegisterLoop(NamedTuple):
    """run(*operands, repeats) does `flops` operations `repeats` times."""

    run: Callable[..., None]
    operands: tuple[Any, ...]
    flops: int


@kernel
def multiply_tiles(tile, a_panel, b_panel, bf16, repeats):
    """tile = A panel @ B panel, `repeats` times: the inner loop of the matrix product and nothing else.

    tile      (TILE_ROWS, TILE_COLUMNS)
    a_panel   (k, TILE_ROWS),  b_panel (k, TILE_COLUMNS); bf16: pairs, see packing.py
    """
    c, a, b = address_of(tile), address_of(a_panel), address_of(b_panel)
    for _ in range(repeats):
        if bf16:
            multiply_tile_bf16(c, TILE_COLUMNS, a, b, a_panel.shape[0], 0, c, 0, 0)
        else:
            multiply_tile(c, TILE_COLUMNS, a, b, a_panel.shape[0], 0, c, 0, 0)


@kernel
def triad(a, b, scale, repeats):
    """a += scale * b, `repeats` times: J. McCalpin's STREAM triad with the target as an operand, so that no
    line is read that is not counted: 12 bytes an element, 8 read and 4 written.

    a, b   (n,) float32
    """
    for _ in range(repeats):
        for i in range(a.shape[0]):
            a[i] += scale * b[i]


def make_register_loop(precision: str) -> RegisterLoop | None:
    """The loop of this precision with operands of its own; None for another precision."""
    bf16 = precision == "bf16"
    if precision not in ("fp32", "bf16"):
        return None
    operands = (
        np.zeros((TILE_ROWS, TILE_COLUMNS), np.float32),
        np.full((PANEL_DEPTH, TILE_ROWS), 1e-3, np.float32),
        np.full((PANEL_DEPTH, TILE_COLUMNS), 1e-3, np.float32),
        bf16,
    )
    products = 2 if bf16 else 1
    return RegisterLoop(multiply_tiles, operands, 2 * products * TILE_ROWS * TILE_COLUMNS * PANEL_DEPTH)


TRIAD_BYTES = 12
"""Bytes that an element of the triad moves."""


def make_triad_operands(working_set_bytes: int) -> tuple[Any, Any, np.float32]:
    """Operands of a triad over that many bytes in all; made, and so first touched, by the caller's thread."""
    count = max(1, working_set_bytes // 8)
    return np.zeros(count, np.float32), np.ones(count, np.float32), np.float32(1e-3)
