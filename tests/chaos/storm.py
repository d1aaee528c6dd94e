"""Trains with the real command line while workers and coordinator are killed, stopped, resumed at random."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from feste_dp.checkpoint.format import step_directory_name
from feste_dp.run.metrics import comparable_rows

PROGRAM = [sys.executable, "-m", "feste_dp"]
FASTER = ["--set", "checkpoint.every=50", "--set", "eval.every=100", "--set", "sample.every=0"]
FINISHED, FAILED, STOPPED = 0, 1, (130, 143)
GAVE_UP = "no worker is left, and too many were lost to start more"
TOO_LONG_S = 300.0


@dataclass(frozen=True)
class Outcome:
    """What a run comes to: everything but times."""

    weights: str
    """SHA-256 of params, m and v of the last checkpoint."""
    metrics: str


def outcome_of(run: Path, steps: int) -> Outcome:
    digest = hashlib.sha256()
    shards = sorted((run / "checkpoints" / step_directory_name(steps)).glob("*.safetensors"))
    tensors = [load_file(path) for path in shards]
    for name in ("params", "m", "v"):
        digest.update(np.concatenate([shard[name] for shard in tensors]).tobytes())
    rows = repr(comparable_rows(run / "metrics.csv"))
    return Outcome(digest.hexdigest(), hashlib.sha256(rows.encode()).hexdigest())


def launch_command(config: Path, steps: int, out: Path, workers: int) -> list[str]:
    settings = ["--set", f"train.steps={steps}", *FASTER, "--set", "run.step_timeout_s=2"]
    return [
        *[*PROGRAM, "launch", "--config", str(config), "--out", str(out)],
        *["--workers", str(workers), "--quiet", *settings],
    ]


def quiet_run(config: Path, steps: int, out: Path) -> Outcome:
    subprocess.run(launch_command(config, steps, out, 2), check=True, stdout=subprocess.DEVNULL)
    return outcome_of(out, steps)


class Storm:
    """Rounds of a run that is disturbed until it is finished all the same."""

    def __init__(self, config: Path, steps: int, seed: int, folder: Path) -> None:
        self._config, self._steps, self._folder = config, steps, folder
        self._random = random.Random(seed)
        self._started = time.monotonic()
        self.rounds = 0
        self.done: Counter[str] = Counter()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    @property
    def kills(self) -> int:
        return self.done["worker killed"] + self.done["coordinator killed"]

    def summary(self) -> str:
        counts = ", ".join(f"{count} x {what}" for what, count in sorted(self.done.items()))
        return f"{self.rounds} rounds in {self.seconds:.0f} s: {counts}"

    def round(self) -> Outcome:
        """One run from its start to its end; AssertionError where it fails or leaves something behind."""
        self.rounds += 1
        run = self._folder / f"round{self.rounds}"
        command = launch_command(self._config, self._steps, run, self._random.randint(1, 4))
        deadline = time.monotonic() + TOO_LONG_S
        while True:
            status = self._disturb(command, run, deadline)
            if status == FINISHED:
                return outcome_of(run, self._steps)
            if status == FAILED and GAVE_UP in self._log(run):
                self.done["given up after too many kills"] += 1
            else:
                assert status in (*STOPPED, -signal.SIGKILL), f"exit status {status}: {self._log(run)}"
            if (run / "checkpoints").is_dir():
                workers = str(self._random.randint(1, 4))
                command = [*PROGRAM, "resume", str(run), "--workers", workers, "--quiet"]
                self.done["resumed"] += 1

    def _disturb(self, command: list[str], run: Path, deadline: float) -> int:
        """Run the command and disturb it until it ends; returns its exit status."""
        with (self._folder / "errors.txt").open("wb") as errors:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        try:
            while process.poll() is None:
                assert time.monotonic() < deadline, f"the run hangs: {self._log(run)}"
                time.sleep(self._random.uniform(0.02, 0.8))
                self._strike(process, run)
            return process.returncode
        finally:
            process.kill()
            process.wait()

    def _strike(self, process: "subprocess.Popen[bytes]", run: Path) -> None:
        trains = (run / "metrics.csv").exists()
        workers = _children(process.pid) if trains else []
        target = self._random.choice(workers) if workers else None
        what = self._random.choices(
            [
                "worker killed",
                "worker stopped",
                "coordinator killed",
                "terminated",
                "resized",
                "saved",
            ],
            [60, 12, 6, 4, 8, 10],
        )[0]
        match what:
            case "worker killed" if target is not None:
                _signal(target, signal.SIGKILL)
            case "worker stopped" if target is not None:
                _signal(target, signal.SIGSTOP)
                if self._random.random() < 0.7:  # else it is killed after run.step_timeout_s
                    time.sleep(self._random.uniform(0.05, 1.0))
                    _signal(target, signal.SIGCONT)
            case "coordinator killed" if (run / "checkpoints").is_dir():
                process.kill()
                process.wait()
                _wait_until_gone(workers)
            case "terminated" if workers:
                process.terminate()
                process.wait()
            case "resized" if trains:
                number = str(self._random.randint(1, 4))
                subprocess.run([*PROGRAM, "workers", str(run), number], capture_output=True, timeout=60)
            case "saved" if workers:
                _signal(process.pid, signal.SIGUSR1)
            case _:
                return
        self.done[what] += 1

    def _log(self, run: Path) -> str:
        log = run / "log.txt"
        lines = log.read_text().splitlines()[-12:] if log.exists() else []
        return "\n".join([*lines, (self._folder / "errors.txt").read_text()])


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _signal(pid: int, signum: int) -> None:
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return


def _wait_until_gone(pids: list[int]) -> None:
    """What FAULTS promise of a killed coordinator: its workers are gone within two seconds."""
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline and any(_is_alive(pid) for pid in pids):
        time.sleep(0.01)
    assert not [pid for pid in pids if _is_alive(pid)]


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
