"""The recipe for several machines brings a run to its end, whatever happens to them, with the same bits."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.nodes.network import MPICH, OPEN_MPI, Machines, Mpi
from tests.nodes.training import ROOT, STEPS, Outcome, Training, outcome


@pytest.fixture
def training(machines: Callable[[int], Machines], config: Path, tmp_path: Path) -> Training:
    return Training(machines(2), config, tmp_path / "run")


def start(training: Training, mpi: Mpi, *options: str) -> Any:
    """launch/several-nodes.sh on the first machine."""
    folder = training.run.parent
    programs = folder / "programs"
    programs.mkdir()
    (programs / "feste-dp").write_text(f'#!/bin/sh\nexec {sys.executable} -m feste_dp "$@"\n')
    (programs / "feste-dp").chmod(0o755)
    (folder / "hosts").write_text("node0\nnode1\n")
    settings = training.machines.settings(mpi)
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    if mpi is MPICH:
        path = f"{mpi.prefix}/bin:{path}"
    training.slow_down()
    with training.log.open("ab") as log:
        return training.machines.start(
            0,
            [ROOT / "launch/several-nodes.sh", folder / "hosts", training.config, training.run, *options],
            env=settings | {"PATH": path, "PAUSE": "1", "GRACE": "3"},
            cwd=ROOT, stdout=log, stderr=log,
        )  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("mpi", [OPEN_MPI, MPICH], indirect=True, ids=lambda mpi: mpi.name)
def test_the_recipe_outlasts_a_killed_process_a_killed_launcher_and_a_cut_link(
    training: Training, alone: Outcome, mpi: Mpi
) -> None:
    script = start(training, mpi, "--set", "run.step_timeout_s=6")
    training.wait_for_steps(12)
    (rank,) = training.ranks(1)
    os.kill(rank, signal.SIGKILL)
    reached = training.steps()
    training.wait_for_steps(reached + 12)
    training.machines.kill(1, {"openmpi": "/prted ", "mpich": "hydra_pmi_proxy"}[mpi.name])
    reached = training.steps()
    training.wait_for_steps(reached + 12)
    training.machines.cut(1)
    time.sleep(8)
    training.machines.heal(1)
    assert script.wait(timeout=200) == 0, training.log.read_text()
    assert outcome(training.run) == alone
    log = training.log.read_text()
    assert log.count("starting again in") == 3, log


@pytest.mark.parametrize(
    "mpi", [OPEN_MPI, pytest.param(MPICH, marks=pytest.mark.long)], indirect=True, ids=["openmpi", "mpich"]
)
def test_the_recipe_saves_when_it_is_told_to_stop(training: Training, mpi: Mpi) -> None:
    script = start(training, mpi)
    training.wait_for_steps(12)
    script.send_signal(signal.SIGTERM)
    assert script.wait(timeout=60) == 143, training.log.read_text()
    reached = training.steps()
    assert 12 <= reached < STEPS and (training.run / f"checkpoints/step-{reached:08d}").exists()
