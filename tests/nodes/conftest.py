"""Machines and MPI libraries for tests, which are skipped with the reason where there are none."""

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from feste_dp.data.corpus import read_shakespeare
from tests.nodes.network import MPICH, OPEN_MPI, Machines, Mpi, why_there_are_none
from tests.nodes.training import CONFIG, FESTE_DP, ROOT, Outcome, outcome


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Callable[[int], Machines]]:
    """machines(3) are three of them, until the test ends."""
    if reason := why_there_are_none():
        pytest.skip(reason)
    with contextlib.ExitStack() as stack:
        yield lambda count: stack.enter_context(Machines(count, tmp_path / "machines"))


def _installed(mpi: Mpi) -> Mpi:
    if reason := mpi.why_there_is_none():
        pytest.skip(reason)
    return mpi


@pytest.fixture
def open_mpi() -> Mpi:
    return _installed(OPEN_MPI)


@pytest.fixture(params=[OPEN_MPI, MPICH], ids=lambda mpi: mpi.name)
def mpi(request: pytest.FixtureRequest) -> Mpi:
    """Each of the two libraries."""
    return _installed(request.param)


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a small run whose corpus is prepared."""
    root = tmp_path_factory.mktemp("nodes")
    (root / "text.txt").write_text(read_shakespeare()[:60_000])
    prepare = ["prepare", root / "text.txt", "--vocab-size", "300", "--out", root / "tokens"]
    subprocess.run([*FESTE_DP, *map(str, prepare)], check=True, capture_output=True, cwd=ROOT)
    made = root / "config.yaml"
    made.write_text(CONFIG.replace("TOKENS", str(root / "tokens")))
    return made


@pytest.fixture(scope="session")
def on_one(config: Path) -> Callable[[str], Path]:
    """on_one("fp32") is the run on one machine."""

    def train(precision: str) -> Path:
        run = config.parent / f"alone-{precision}"
        if not run.exists():
            options = ["--config", config, "--out", run, "--set", f"train.precision={precision}", "--quiet"]
            command = [*FESTE_DP, "launch", *map(str, options)]
            subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
        return run

    return train


@pytest.fixture
def alone(on_one: Callable[[str], Path]) -> Outcome:
    """What the run on one machine came to."""
    return outcome(on_one("fp32"))
