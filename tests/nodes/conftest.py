"""Machines and MPI libraries for tests, which are skipped with the reason where there are none."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.nodes.network import MPICH, OPEN_MPI, Machines, Mpi, why_there_are_none


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
