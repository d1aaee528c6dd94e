"""The recipe for Slurm on a real cluster of two nodes, which are network namespaces of this machine."""

import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.nodes.network import OPEN_MPI, Machines, Mpi
from tests.nodes.slurm import PMIX, Slurm, why_there_is_none
from tests.nodes.training import ROOT, STEPS, Outcome, Training, outcome

Make = Callable[[int], Machines]
PMI = {"openmpi": "pmix", "mpich": "pmi2"}


@pytest.fixture
def training(machines: Make, config: Path, tmp_path: Path) -> Training:
    return Training(machines(2), config, tmp_path / "run")


@pytest.fixture
def slurm(training: Training) -> Iterator[Slurm]:
    if os.geteuid() != 0:
        pytest.skip("Slurm's daemons want to be root")
    if reason := why_there_is_none():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # its sockets have no room for a long path
        cluster = Slurm(training.machines, Path(folder))
        yield cluster
        cluster.end()


class Job:
    """launch/slurm.sh in the queue."""

    def __init__(self, slurm: Slurm, training: Training, mpi: Mpi, pmi: str | None = None) -> None:
        if mpi is OPEN_MPI and not Path(PMIX).exists():
            pytest.skip(f"srun cannot start Open MPI without {PMIX} (apt-get install libpmix-dev)")
        folder = training.run.parent
        programs = folder / "programs"
        programs.mkdir()
        (programs / "feste-dp").write_text(f'#!/bin/sh\nexec {sys.executable} -m feste_dp "$@"\n')
        (programs / "feste-dp").chmod(0o755)
        environ = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "RUN": str(training.run),
            "PMI": pmi or PMI[mpi.name],
            **mpi.settings,
        }
        limits = ["--nodes=2", "--cpus-per-task=1", "--mem=100", f"--output={folder}/job.log"]
        training.slow_down()
        recipe = ROOT / "launch/slurm.sh"
        done = slurm.run("sbatch", "--parsable", *limits, recipe, training.config, env=environ, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        self.number, self._slurm, self._log = done.stdout.strip(), slurm, folder / "job.log"

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait_for(self, state: str, limit_s: float = 60) -> None:
        deadline = time.monotonic() + limit_s
        while (now := self._state()) != state:
            assert time.monotonic() < deadline, (now, self.log)
            time.sleep(0.1)

    def _state(self) -> str:
        shown = self._slurm.run("scontrol", "show", "job", self.number).stdout
        found = re.search(r"JobState=(\w+)", shown)
        return found[1] if found else shown

    def go_on_now(self) -> None:
        """As Slurm does two minutes after a job was put back into the queue."""
        self.wait_for("PENDING")
        self._slurm.run("scontrol", "update", f"JobId={self.number}", "StartTime=now")


@pytest.mark.long
def test_a_job_on_two_nodes_goes_back_into_the_queue_and_on_to_the_bits_of_one_machine(
    slurm: Slurm, training: Training, alone: Outcome, mpi: Mpi
) -> None:
    job = Job(slurm, training, mpi)
    training.wait_for_steps(12)
    slurm.run("scancel", "--signal=USR2", "--batch", job.number)  # as before the time limit
    job.go_on_now()
    reached = training.steps()
    assert 12 <= reached < STEPS and "saved; back into the queue" in job.log
    training.wait_for_steps(reached + 12)
    (rank,) = training.ranks(1)
    os.kill(rank, signal.SIGKILL)
    job.go_on_now()
    assert "ended with status" in job.log
    job.wait_for("COMPLETED")
    assert outcome(training.run) == alone
    assert all(training.machines.counters(index).sent > 36_096 * 4 * STEPS for index in range(2))


@pytest.mark.long
def test_a_cancelled_job_saves(slurm: Slurm, training: Training, open_mpi: Mpi) -> None:
    job = Job(slurm, training, open_mpi)
    training.wait_for_steps(12)
    slurm.run("scancel", job.number)
    job.wait_for("CANCELLED")
    for index in range(2):
        training.wait_until_all_is_gone(index)
    reached = training.steps()
    assert 12 <= reached < STEPS and (training.run / f"checkpoints/step-{reached:08d}").exists()


def test_nodes_that_slurm_does_not_introduce_are_refused(
    slurm: Slurm, training: Training, open_mpi: Mpi
) -> None:
    job = Job(slurm, training, open_mpi, pmi="pmi2")
    job.wait_for("FAILED")
    assert "MPI connects 1 of them" in job.log and not training.run.exists()
