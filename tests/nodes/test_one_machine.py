"""Two nodes on one machine, by a plain mpirun: what one of them is told, or does wrong, both act on alike."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from feste_dp.checkpoint.loading import read_manifest
from feste_dp.run.metrics import read_metrics
from tests.nodes.network import Mpi
from tests.nodes.training import FESTE_DP, ROOT, STEPS, Outcome, outcome

LIMIT_S = 100
SLOWLY = ("--set", "eval.every=1", "--set", "eval.batches=100")
"""Changes nothing of what is trained."""
FIRST = pytest.param(0, marks=pytest.mark.long)


def trained(run: Outcome) -> object:
    """What does not depend on how often losses are measured."""
    state, rows = run
    return state, [row[:2] for row in rows]


def wait_until(condition: Callable[[], bool], what: Callable[[], str]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.005)


class Job:
    """Two ranks with a command line each."""

    def __init__(self, folder: Path, mpi: Mpi, commands: Sequence[Sequence[str]]) -> None:
        apart: list[str] = []
        for command in commands:
            apart += [":"] * bool(apart) + ["-n", "1", *command]
        self.log = folder / "log.txt"
        line = [str(mpi.mpirun), "--map-by", ":OVERSUBSCRIBE", "--bind-to", "none", *apart]
        env = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(line, env=env, cwd=ROOT, stdout=log, stderr=log)

    @property
    def text(self) -> str:
        return self.log.read_text()

    def end(self) -> int:
        return self.process.wait(timeout=LIMIT_S)

    def rank(self, number: int) -> int:
        """Its process id."""
        mine = f"OMPI_COMM_WORLD_RANK={number}".encode()
        for pid in children(self.process.pid):
            if mine in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                return pid
        raise AssertionError(self.text)

    def workers(self, number: int) -> list[int]:
        return children(self.rank(number))


def children(parent: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True)
    return [int(pid) for pid in listed.stdout.split()]


class Twins:
    """A run on two nodes that write to one directory."""

    def __init__(self, folder: Path, config: Path, mpi: Mpi) -> None:
        self.folder, self.config, self.run, self._mpi = folder, config, folder / "run", mpi
        self.jobs: list[Job] = []

    def start(self, *both: str, each: Sequence[Sequence[str]] = ((), ())) -> Job:
        where = ["--config", str(self.config), "--out", str(self.run)]
        command = [*FESTE_DP, "launch", "--resume", "auto", *where, *both]
        return self.start_commands([[*command, *own] for own in each])

    def start_commands(self, commands: Sequence[Sequence[str]]) -> Job:
        self.jobs.append(Job(self.folder, self._mpi, commands))
        return self.jobs[-1]

    def steps(self) -> int:
        metrics = self.run / "metrics.csv"
        return max((row.step for row in read_metrics(metrics)), default=0) if metrics.exists() else 0

    def wait_for_steps(self, count: int) -> None:
        wait_until(lambda: self.steps() >= count, lambda: self.jobs[-1].text)

    def finish(self, *both: str) -> str:
        job = self.start(*both)
        assert job.end() == 0, job.text
        return job.text


@pytest.fixture
def twins(tmp_path: Path, config: Path, open_mpi: Mpi) -> Iterator[Twins]:
    made = Twins(tmp_path, config, open_mpi)
    yield made
    for job in made.jobs:
        if job.process.poll() is None:
            job.process.kill()
            job.process.wait()


@pytest.mark.parametrize(
    ("rank", "signum"),
    [
        (0, signal.SIGINT),
        (1, signal.SIGTERM),
        pytest.param(0, signal.SIGTERM, marks=pytest.mark.long),
        pytest.param(1, signal.SIGINT, marks=pytest.mark.long),
    ],
)
def test_a_signal_to_one_rank_stops_both_at_one_step_and_nothing_is_lost(
    twins: Twins, alone: Outcome, rank: int, signum: signal.Signals
) -> None:
    job = twins.start()
    twins.wait_for_steps(12)
    os.kill(job.rank(rank), signum)
    assert job.end() == 128 + signum, job.text
    reached = twins.steps()
    assert 12 <= reached < STEPS and (twins.run / f"checkpoints/step-{reached:08d}").exists()
    twins.finish()
    assert outcome(twins.run) == alone


@pytest.mark.long
@pytest.mark.parametrize("rank", [FIRST, 1])
def test_a_signal_while_losses_are_measured_gives_that_up_on_both_and_a_resume_measures(
    twins: Twins, alone: Outcome, rank: int
) -> None:
    long = ["--set", "eval.batches=4000"]
    job = twins.start(*long)
    twins.wait_for_steps(19)
    time.sleep(0.3)  # now they validate, for seconds
    os.kill(job.rank(rank), signal.SIGTERM)
    started = time.monotonic()
    assert job.end() == 143, job.text
    assert time.monotonic() - started < 10
    manifest = read_manifest(twins.run / "checkpoints/step-00000020")
    assert manifest.train.unmeasured is not None
    twins.finish("--set", "eval.batches=2")
    ended = outcome(twins.run)
    assert trained(ended) == trained(alone)
    assert [row for row in ended[1] if row[2] is not None] == [row for row in alone[1] if row[2] is not None]


@pytest.mark.long
@pytest.mark.parametrize("rank", [FIRST, 1])
def test_a_signal_while_a_sample_is_drawn_gives_that_up_on_both(
    twins: Twins, alone: Outcome, rank: int
) -> None:
    job = twins.start("--set", "sample.every=15", "--set", "sample.tokens=30000")
    twins.wait_for_steps(14)
    time.sleep(0.3)
    os.kill(job.rank(rank), signal.SIGTERM)
    assert job.end() == 143, job.text
    manifest = read_manifest(twins.run / "checkpoints/step-00000015")
    assert manifest.train.unmeasured is not None
    twins.finish("--set", "sample.every=0")
    assert outcome(twins.run)[0] == alone[0]


def test_a_worker_killed_on_the_second_node_is_replaced_and_the_first_tells_it(
    twins: Twins, alone: Outcome
) -> None:
    job = twins.start(*SLOWLY)
    twins.wait_for_steps(2)
    (worker,) = job.workers(1)
    os.kill(worker, signal.SIGKILL)
    assert job.end() == 0, job.text
    assert trained(outcome(twins.run)) == trained(alone)
    log = (twins.run / "log.txt").read_text()
    assert f"worker 0 (pid {worker}) was killed by signal 9 (SIGKILL) during " in log
    assert ": worker 0 is ready" in log
    lines = [line for line in log.splitlines() if "worker 0" in line]
    assert all("node 1 (" in line for line in lines), lines
    assert '"worker_lost"' in (twins.run / "events.jsonl").read_text()


@pytest.mark.long
def test_another_number_of_workers_is_taken_by_both_nodes(twins: Twins, alone: Outcome) -> None:
    job = twins.start(*SLOWLY)
    twins.wait_for_steps(2)
    asked = subprocess.run(
        [*FESTE_DP, "workers", str(twins.run), "2"], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S
    )
    assert asked.returncode == 0, asked.stderr
    assert job.end() == 0, job.text
    assert trained(outcome(twins.run)) == trained(alone)
    told = [
        line for line in (twins.run / "log.txt").read_text().splitlines() if "2 workers from step" in line
    ]
    assert len(told) == 2 and sum("node 1 (" in line for line in told) == 1, told
    assert len({line.split("from step ")[1] for line in told}) == 1


@pytest.mark.parametrize(
    ("own", "line"),
    [
        (
            ["--set", "optim.lr=0.5"],
            "optim.lr is 0.5 here and 0.003 on node 0: give all nodes the same config",
        ),
        (["--set", "optim.rate=0.5"], "optim.rate"),
        (["--set", "data.corpus=/nowhere/text.txt"], "/nowhere/text.txt"),
    ],
    ids=["other", "unknown", "no text"],
)
def test_what_is_wrong_on_the_second_node_is_one_line_and_nothing_is_created(
    twins: Twins, own: list[str], line: str
) -> None:
    second = ["env", f"FESTE_DP_CACHE={twins.folder / 'cache'}"] if "nowhere" in line else []
    where = ["--config", str(twins.config), "--out", str(twins.run)]
    command = [*FESTE_DP, "launch", *where]
    job = twins.start_commands([command, [*second, *command, *own]])
    assert job.end() == 2, job.text
    errors = [text for text in job.text.splitlines() if text.startswith("error: ")]
    assert len(errors) == 1 and errors[0].startswith("error: node 1 (") and line in errors[0], job.text
    assert not twins.run.exists()


def test_a_run_that_is_finished_is_so_for_both(twins: Twins) -> None:
    twins.finish("--set", "train.steps=3")
    started = time.monotonic()
    text = twins.finish("--set", "train.steps=3")
    assert "nothing to do: " in text and time.monotonic() - started < LIMIT_S / 2


@pytest.mark.long
def test_a_second_signal_ends_both_at_once(twins: Twins) -> None:
    job = twins.start()
    twins.wait_for_steps(8)
    first = job.rank(0)
    os.kill(first, signal.SIGSTOP)  # so that it has both before it acts on one
    os.kill(first, signal.SIGTERM)
    os.kill(first, signal.SIGINT)
    os.kill(first, signal.SIGCONT)
    assert job.end() in (130, 143), job.text
