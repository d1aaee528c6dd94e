"""The vector code of CPUs that this machine is wider than: it must be right there too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECK = """
import sys
import llvmlite.binding as llvm
import numpy as np

import numba  # asks for the features itself, with more of the answer

from feste_dp.kernels import compilation

features, real = dict(feature.split("=") for feature in sys.argv[2:]), llvm.get_host_cpu_features
llvm.get_host_cpu_features = lambda: {name: state == "1" for name, state in features.items()}
from feste_dp.kernels.simd import LANES

llvm.get_host_cpu_features = real
from feste_dp.kernels.matmul import make_pack_buffers, matmul

assert int(sys.argv[1]) == LANES, LANES
pack, rng = make_pack_buffers(), np.random.default_rng(1)
for rows, depth, columns in ((1, 1, 1), (13, 7, 5), (24, 32, 48), (67, 300, 51), (100, 65, 1540)):
    a = rng.standard_normal((rows, depth), dtype=np.float32)
    b = rng.standard_normal((depth, columns), dtype=np.float32)
    for left in (a, np.ascontiguousarray(a.T).T):
        for right in (b, np.ascontiguousarray(b.T).T):
            c = np.full((rows, columns), 2, np.float32)
            matmul(c, left, right, True, pack)
            expected = a.astype(np.float64) @ b + 2
            assert np.abs(c - expected).max() < 1e-4, (rows, depth, columns)
print("right")
"""


@pytest.mark.parametrize(("lanes", "features"), [(8, ["avx512f=0", "avx=1"]), (4, ["neon=1"])])
def test_the_matrix_product_is_right_at_the_vector_width_of_every_cpu(
    lanes: int, features: list[str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHECK, str(lanes), *features],
        env=os.environ | {"FESTE_DP_COMPILED": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stderr
