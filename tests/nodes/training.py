"""A small run on several machines, and what of it must be the same however it came about."""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feste_dp.run.metrics import read_metrics
from tests.nodes.network import OPEN_MPI, Machines, Mpi
from tests.train.conftest import state_sha256

FESTE_DP = [sys.executable, "-m", "feste_dp"]
ROOT = Path(__file__).parents[2]

STEPS = 100
CONFIG = """\
model: {vocab_size: 300, block_size: 32, n_layer: 2, n_head: 2, n_embd: 32, dropout: 0.1}
data: {corpus: TOKENS}
train: {steps: STEPS, batch_size: 16, shards: 8, micro_batch: 1, seed: 5}
optim: {lr: 3e-3, min_lr: 3e-4, warmup_steps: 2}
eval: {every: 20, batches: 2}
sample: {every: 0}
checkpoint: {every: 10, keep: 20}
run: {name: small, workers: 1}
""".replace("STEPS", str(STEPS))


def passed_on() -> dict[str, str]:
    """What ranks on other machines need of the environment of the tests: where compiled code lies."""
    return {name: value for name, value in os.environ.items() if name.startswith("FESTE_DP_")}


@dataclass(frozen=True)
class Training:
    """One run on some machines."""

    machines: Machines
    config: Path
    run: Path

    def command(self, *arguments: str) -> list[str]:
        where = ["--config", str(self.config), "--out", str(self.run)]
        return [*FESTE_DP, "launch", "--resume", "auto", *where, *arguments]

    def start(self, *arguments: str, mpi: Mpi = OPEN_MPI, **popen: Any) -> Any:
        """The job, slowed down, with its output in a file."""
        self.slow_down()
        with self.log.open("ab") as log:
            return self.machines.start_job(
                self.command(*arguments), mpi, env=passed_on(), cwd=ROOT, stdout=log, stderr=log, **popen
            )

    def finish(self, *arguments: str, mpi: Mpi = OPEN_MPI, each: Sequence[Sequence[str]] = ()) -> str:
        """Trains to the end, with arguments for all machines and for each; returns what was printed."""
        command: Any = [self.command(*arguments, *own) for own in each] or self.command(*arguments)
        done = self.machines.run_job(command, mpi, env=passed_on(), cwd=ROOT, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def slow_down(self) -> None:
        """A step takes 10 ms and more, so that there is time to do something to the run."""
        self.machines.impair(1, delay_ms=3)

    @property
    def log(self) -> Path:
        return self.machines.folder / "job.log"

    def steps(self) -> int:
        metrics = self.run / "metrics.csv"
        return max((row.step for row in read_metrics(metrics)), default=0) if metrics.exists() else 0

    def wait_for_steps(self, count: int) -> None:
        deadline = time.monotonic() + 120
        while self.steps() < count:
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.005)

    def ranks(self, index: int) -> list[int]:
        """The process ids of the coordinator on a machine: not its workers, not mpirun."""
        return [
            pid
            for pid, line in self.machines.processes(index).items()
            if line.startswith(f"{sys.executable} -m feste_dp launch")
        ]

    def wait_until_all_is_gone(self, index: int, limit_s: float = 30) -> None:
        """Nothing of feste-dp runs on a machine any more."""
        deadline = time.monotonic() + limit_s
        while left := {p: line for p, line in self.machines.processes(index).items() if "feste" in line}:
            assert time.monotonic() < deadline, (left, self.log.read_text())
            time.sleep(0.02)


Outcome = tuple[str, list[tuple[int, float, float | None]]]


def outcome(run: Path, steps: int = STEPS) -> Outcome:
    """SHA-256 of weights, m and v after these steps, and what was measured on the way."""
    rows = read_metrics(run / "metrics.csv")
    return state_sha256(run, steps), [(row.step, row.train_loss, row.val_loss) for row in rows]
