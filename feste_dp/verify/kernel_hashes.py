"""The SHA-256 of what each kernel gives, computed in a process with a folder of compiled code of its own: a
kernel called alone is compiled once more, and the code of real runs must stay as their warm-up wrote it."""

import hashlib
import json
import subprocess
from collections.abc import Mapping

import numpy as np

from feste_dp.errors import RunError
from feste_dp.kernels.code_cache import code_place
from feste_dp.runtime.child_process import child_command
from feste_dp.runtime.worker_process import worker_environment
from feste_dp.verify.kernel_cases import Arrays, kernel_cases


def hash_kernels_in_a_process(environ: Mapping[str, str]) -> dict[str, str]:
    """Name and hash of every kernel, in the order of a step. The first time this takes a minute or two.
    Raises RunError."""
    done = subprocess.run(
        child_command("feste_dp.verify.kernel_hashes"),
        env=worker_environment(environ, code_place("-kernels").path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        process_group=0,
        text=True,
    )
    if done.returncode:
        raise RunError(f"the kernels could not be run one by one: exit status {done.returncode}")
    hashes: dict[str, str] = json.loads(done.stdout)
    return hashes


def hash_of(arrays: Arrays) -> str:
    """Of their bytes, little-endian, in their order."""
    digest = hashlib.sha256()
    for array in arrays:
        given = np.ascontiguousarray(array)
        digest.update(given.astype(given.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


def main() -> int:
    print(json.dumps({case.name: hash_of(case.run()) for case in kernel_cases()}))
    return 0
