"""Real training on several machines: the bits of one, whatever their number, library, network and fate."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.nodes.network import MPICH, OPEN_MPI, Machines, Mpi
from tests.nodes.training import ROOT, STEPS, Outcome, Training, outcome, passed_on

Make = Callable[[int], Machines]
EITHER = pytest.mark.parametrize(
    "mpi", [OPEN_MPI, pytest.param(MPICH, marks=pytest.mark.long)], indirect=True
)


@pytest.fixture
def training(machines: Make, open_mpi: Mpi, config: Path, tmp_path: Path) -> Callable[[int], Training]:
    """training(2) is the run on two machines, not begun."""
    return lambda count: Training(machines(count), config, tmp_path / "runs/run")


def ended(job: subprocess.Popen[bytes], limit_s: float = 60) -> int:
    return job.wait(timeout=limit_s)


@pytest.mark.parametrize(
    ("workers", "precision"),
    [
        pytest.param([1, 3], "fp32", id="two"),
        pytest.param([1, 1, 2], "fp32", id="three", marks=pytest.mark.long),
        pytest.param([1, 1, 1, 1], "bf16", id="four"),
    ],
)
def test_nodes_with_any_workers_have_the_bits_of_one_machine(
    training: Callable[[int], Training], on_one: Callable[[str], Path], workers: list[int], precision: str
) -> None:
    several = training(len(workers))
    each = [["--workers", str(count)] for count in workers]
    several.finish("--set", f"train.precision={precision}", each=each)
    assert outcome(several.run) == outcome(on_one(precision))
    for index in range(len(workers)):  # each sends at least its block's sum, a float32 for each parameter
        assert several.machines.counters(index).sent > STEPS * 36_096 * 4


def test_either_library_carries_the_same_bits_over_a_slow_network_that_loses(
    training: Callable[[int], Training], alone: Outcome, mpi: Mpi
) -> None:
    two = training(2)
    two.machines.impair(1, delay_ms=1, loss_percent=1)
    two.finish(mpi=mpi)
    assert outcome(two.run) == alone


@pytest.mark.long
def test_nodes_whose_code_is_compiled_for_other_cpus_have_the_same_bits(
    training: Callable[[int], Training], open_mpi: Mpi, alone: Outcome
) -> None:
    two = training(2)
    older = ["env", "FESTE_DP_TARGET=haswell", *two.command()]
    command = [two.command(), older]
    done = two.machines.run_job(command, open_mpi, env=passed_on(), cwd=ROOT, timeout=1200)  # it compiles
    assert done.returncode == 0, done.stdout + done.stderr
    assert outcome(two.run) == alone


def test_a_run_goes_on_with_other_numbers_of_nodes(
    training: Callable[[int], Training], on_one: Callable[[str], Path], alone: Outcome
) -> None:
    three = training(3)
    shutil.copytree(on_one("fp32"), three.run, symlinks=True)
    go_back(three.run, 30)
    three.finish()
    assert outcome(three.run) == alone
    go_back(three.run, 60)
    command = three.command()
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    assert outcome(three.run) == alone


def test_nodes_need_no_files_in_common(training: Callable[[int], Training], alone: Outcome) -> None:
    two = training(2)
    two.run.parent.mkdir()
    assert two.machines.run(1, ["mount", "-t", "tmpfs", "tmpfs", two.run.parent]).returncode == 0
    two.finish()
    assert outcome(two.run) == alone
    go_back(two.run, 30)
    two.finish()
    assert outcome(two.run) == alone
    assert two.machines.run(1, ["ls", "-A", two.run.parent]).stdout == ""


def go_back(run: Path, step: int) -> None:
    """As if nothing after this step had been saved."""
    checkpoints = run / "checkpoints"
    for entry in checkpoints.glob("step-*"):
        if int(entry.name.removeprefix("step-")) > step:
            shutil.rmtree(entry)
    for link in ("latest", "best"):
        (checkpoints / link).unlink()
        (checkpoints / link).symlink_to(f"step-{step:08d}")


@EITHER
def test_a_killed_process_ends_the_job_which_goes_on_from_its_checkpoint(
    training: Callable[[int], Training], alone: Outcome, mpi: Mpi
) -> None:
    two = training(2)
    job = two.start(mpi=mpi)
    two.wait_for_steps(12)
    (rank,) = two.ranks(1)
    os.kill(rank, signal.SIGKILL)
    assert ended(job) != 0
    for index in range(2):
        two.wait_until_all_is_gone(index)
    assert two.steps() < STEPS
    two.finish(mpi=mpi)
    assert outcome(two.run) == alone


@pytest.mark.parametrize("killed", [pytest.param("mpirun", marks=pytest.mark.long), "prted"])
def test_nodes_end_by_themselves_without_their_launcher(
    training: Callable[[int], Training], alone: Outcome, killed: str
) -> None:
    two = training(2)
    job = two.start()
    two.wait_for_steps(12)
    if killed == "mpirun":
        job.kill()
    else:
        assert two.machines.kill(1, "/prted ")
    ended(job)  # with status 0 where prted was killed
    for index in range(2):
        two.wait_until_all_is_gone(index)
    assert two.steps() < STEPS and not (two.run / "finished").exists()
    two.finish()
    assert outcome(two.run) == alone and (two.run / "finished").exists()


def test_nodes_that_are_cut_off_end_and_say_which_is_missing(
    training: Callable[[int], Training], alone: Outcome
) -> None:
    two = training(2)
    job = two.start("--set", "run.step_timeout_s=6")
    two.wait_for_steps(12)
    two.machines.cut(1)
    deadline = time.monotonic() + 20
    while two.ranks(0) or two.ranks(1):  # mpirun may wait for the other machine longer than anybody would
        assert time.monotonic() < deadline, two.log.read_text()
        time.sleep(0.02)
    two.machines.heal(1)
    job.kill()
    assert two.steps() < STEPS
    assert "node 1 (node1) gave no sign of life for 3 s" in two.log.read_text()
    two.finish()
    assert outcome(two.run) == alone


@pytest.mark.long
def test_a_slow_worker_is_not_a_lost_node(training: Callable[[int], Training], alone: Outcome) -> None:
    two = training(2)
    job = two.start("--set", "run.step_timeout_s=6")
    two.wait_for_steps(12)
    assert two.machines.kill(1, "worker_boot", signal.SIGSTOP)
    time.sleep(4)  # longer than a node may be silent
    two.machines.kill(1, "worker_boot", signal.SIGCONT)
    assert ended(job) == 0, two.log.read_text()
    assert outcome(two.run) == alone


@pytest.mark.parametrize(
    ("mpi", "signum"),
    [
        (OPEN_MPI, signal.SIGUSR2),
        pytest.param(MPICH, signal.SIGTERM, marks=pytest.mark.long),
        pytest.param(MPICH, signal.SIGINT, marks=pytest.mark.long),
    ],
    indirect=["mpi"],
)
def test_a_signal_to_mpirun_saves_and_stops_all_nodes(
    training: Callable[[int], Training], alone: Outcome, mpi: Mpi, signum: signal.Signals
) -> None:
    two = training(2)
    job = two.start(mpi=mpi)
    two.wait_for_steps(12)
    job.send_signal(signum)
    assert ended(job) == 128 + signum, two.log.read_text()
    reached = two.steps()
    assert 12 <= reached < STEPS and (two.run / f"checkpoints/step-{reached:08d}").exists()
    for index in range(2):
        two.wait_until_all_is_gone(index)
    two.finish(mpi=mpi)
    assert outcome(two.run) == alone
