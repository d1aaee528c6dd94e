"""What code is compiled for. A vector has 16 lanes everywhere, by definition: the compiler keeps it in one
register, or two, or four. So no result depends on the CPU; only the register tile has another shape.
"""

import os

import llvmlite.binding as llvm
import numba

from feste_dp.errors import UsageError

FLOAT_BYTES = 4
LANES = 16

TARGET_VARIABLE = "FESTE_DP_TARGET"
"""Compiles for an older CPU than this one, by the name that LLVM has for it, such as `haswell`: to check that
the bits are the same there."""
TARGETS = {
    "haswell": "avx2",
    "skylake-avx512": "avx512f",
    "cascadelake": "avx512vnni",
    "cooperlake": "avx512bf16",
}
"""What can be asked for, and the feature that this CPU must have for it."""


def _host_features() -> dict[str, bool]:
    """Of the CPU that code is compiled for. Tells Numba of it, where that is not this one."""
    features: dict[str, bool] = llvm.get_host_cpu_features()
    name = os.environ.get(TARGET_VARIABLE, "")
    if not name:
        return features
    if not features.get(TARGETS.get(name, "")):
        possible = [target for target, feature in TARGETS.items() if features.get(feature)]
        raise UsageError(
            f"{TARGET_VARIABLE}={name}: no CPU that this one can stand in for; "
            + (f"it can for {', '.join(possible)}" if possible else "it can for none")
        )
    numba.config.CPU_NAME, numba.config.CPU_FEATURES = name, ""
    level = list(TARGETS).index(name)
    return {feature: i <= level for i, feature in enumerate(TARGETS.values())} | {"avx": True, "fma": True}


_FEATURES = _host_features()

HAS_BF16 = bool(_FEATURES.get("avx512bf16") and _FEATURES.get("avx512f"))
"""Whether there is an instruction for products of bfloat16 (AVX512-BF16)."""

# Rows and vectors of the register tile of the matrix product: as many accumulators as the registers hold
# beside the operands (32 registers with AVX-512; 16 half as wide with AVX2). Its width is the same
# everywhere, because tiles of attention are as wide, and what they hold is added up together. Rows come in
# thirds, so that the 4 rows that 12 leaves of 64, 256, 1024 are no wasted work: 12 % more on 64 rows, 3 % on
# 256.
TILE_ROWS, TILE_VECTORS = (12 if _FEATURES.get("avx512f") else 3), 2
TILE_COLUMNS = TILE_VECTORS * LANES
ROW_STEP = TILE_ROWS // 3

ROW_TILE = TILE_ROWS
"""The packing of the left operand transposes that many rows at a time, that of the right one LANES."""
