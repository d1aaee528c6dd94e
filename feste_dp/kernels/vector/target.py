"""What the vectors of this CPU are: lanes of a register, rows and columns of the register tile."""

import llvmlite.binding as llvm

FLOAT_BYTES = 4


def _widest_vector():
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 16
    return 8 if features.get("avx") else 4


LANES = _widest_vector()

HAS_BF16 = LANES == 16 and bool(llvm.get_host_cpu_features().get("avx512bf16"))
"""Whether this CPU multiplies bfloat16 (AVX512-BF16); where it does not, the bf16 functions must not be
called."""

# Rows and vectors of the register tile of the matrix product: as many accumulators as the registers hold
# beside the operands (32 registers with AVX-512 and NEON, 16 with AVX2). Rows come in thirds, so that the 4
# rows that 12 leaves of 64, 256, 1024 are no wasted work: 12 % more on 64 rows, 3 % on 256.
TILE_ROWS, TILE_VECTORS = {16: (12, 2), 8: (6, 2), 4: (12, 2)}[LANES]
TILE_COLUMNS = TILE_VECTORS * LANES
ROW_STEP = TILE_ROWS // 3

ROW_TILE = min(TILE_ROWS, LANES)
"""The packing of the left operand transposes that many rows at a time, that of the right one LANES."""
