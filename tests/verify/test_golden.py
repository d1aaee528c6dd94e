"""The committed hashes are reached: here, compiled for other CPUs, with other releases, at any worker count.

A change of arithmetic that is meant: raise kernels.ARITHMETIC, `python -m feste_dp.verify.remake`.
"""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from feste_dp.kernels import ARITHMETIC
from feste_dp.kernels.vector.target import TARGETS, llvm
from feste_dp.verify.kernel_cases import kernel_cases
from feste_dp.verify.table import PRECISIONS, read_table
from feste_dp.verify.verification import kernels_that_differ

ROOT = Path(__file__).parents[2]
QUICK = ("tiny", "odd")
POSSIBLE = [name for name, feature in TARGETS.items() if llvm.get_host_cpu_features().get(feature)]

# The oldest of what pyproject.toml allows; the newest is what this environment has.
OLDEST = ("numba==0.61.0", "numpy==2.0.0", "tokenizers==0.20.0")


def verified(*arguments: str, python: str = sys.executable, **environ: str) -> dict[str, object]:
    """What `feste-dp verify --json` prints, which must end well."""
    command = [python, "-P", "-m", "feste_dp", "verify", "--json", *arguments]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)} | environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["holds"] and all(run["same"] for run in found["runs"])
    return found


def test_the_table_is_of_the_arithmetic_of_the_program_and_has_every_run_and_kernel():
    table = read_table()
    assert table.arithmetic == ARITHMETIC
    assert [(run.config, run.precision) for run in table.runs] == [
        (config, precision) for config in ("tiny", "odd", "medium") for precision in PRECISIONS
    ]
    assert list(table.kernels) == [case.name for case in kernel_cases()]


@pytest.mark.parametrize("workers", ["1", "3"])
def test_this_machine_reaches_the_hashes(workers: str):
    found = verified("--workers", workers, "--run", QUICK[int(workers) // 3])
    assert found["compiled_for"] == "this CPU"
    assert [run["precision"] for run in found["runs"]] == list(PRECISIONS)


@pytest.mark.long
def test_this_machine_reaches_all_hashes():
    assert len(verified("--workers", "2")["runs"]) == 6


@pytest.mark.skipif("haswell" not in POSSIBLE, reason="this CPU cannot stand in for that one")
def test_compiled_for_haswell_every_kernel_gives_the_hash_of_the_table(tmp_path: Path):
    """Three quarters of a minute; to train so takes twice as long, below."""
    program = "from feste_dp.verify.kernel_hashes import main; main()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "FESTE_DP_TARGET": "haswell", "FESTE_DP_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert kernels_that_differ(read_table().kernels, json.loads(done.stdout)) == []


@pytest.mark.long
@pytest.mark.parametrize("target", POSSIBLE)
def test_compiled_for_another_cpu_all_hashes_are_the_same(target: str, tmp_path: Path):
    found = verified(FESTE_DP_TARGET=target, FESTE_DP_CACHE=str(tmp_path / "cache"))
    assert found["compiled_for"] == target
    assert ("instruction" in found["bf16"]) == (target == "cooperlake")


@pytest.mark.long
def test_the_oldest_releases_reach_all_hashes(tmp_path: Path):
    venv.create(tmp_path / "oldest", with_pip=True)
    python = str(tmp_path / "oldest/bin/python")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *OLDEST, str(ROOT)]
    subprocess.run(install, check=True)
    found = verified(python=python, FESTE_DP_CACHE=str(tmp_path / "cache"), PYTHONPATH="")
    releases = found["releases"]
    assert [f"{name}=={releases[name]}" for name in ("numba", "numpy", "tokenizers")] == list(OLDEST)
