"""The Slurm recipe with real training: told to stop it saves, requeues once, and the next start goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from feste_dp.run.metrics import read_metrics
from tests.cli.conftest import Place

LAUNCH = Path(__file__).parents[2] / "launch"
STEPS = 3000


@pytest.fixture
def job(place: Place, tmp_path: Path) -> dict[str, str]:
    """The environment of a job; scontrol notes what it is asked."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in (
        ("feste-dp", f'exec {sys.executable} -m feste_dp "$@"'),
        ("scontrol", f'echo "$*" >>{tmp_path}/scontrol.txt'),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    return dict(os.environ) | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "SLURM_JOB_ID": "77",
    }


def start(job: dict[str, str], config: Path, folder: Path) -> subprocess.Popen[bytes]:
    """The job as slurmstepd starts it: a copy of the script, in the folder of sbatch."""
    script = folder / "slurm_script"
    script.write_bytes((LAUNCH / "slurm.sh").read_bytes())
    overrides = ["--set", f"train.steps={STEPS}", "--set", "eval.every=0", "--set", "sample.every=0"]
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            ["bash", str(script), str(config), "--workers", "2", *overrides],
            env=job, cwd=folder, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def steps_done(run: Path) -> int:
    metrics = run / "metrics.csv"
    return max((row.step for row in read_metrics(metrics)), default=0) if metrics.exists() else 0


def wait_for_steps(process: subprocess.Popen[bytes], run: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while steps_done(run) < count:
        assert process.poll() is None and time.monotonic() < deadline, (
            run.parents[2] / "log.txt"
        ).read_text()
        time.sleep(0.02)


def test_a_job_told_of_its_end_saves_requeues_itself_and_goes_on(
    job: dict[str, str],
    place: Place,
    tmp_path: Path,
) -> None:
    run, asked = tmp_path / "data/runs/slurm-77", tmp_path / "scontrol.txt"
    first = start(job, place.config, tmp_path)
    wait_for_steps(first, run, 3)
    first.send_signal(signal.SIGUSR2)
    assert first.wait(timeout=60) == 0
    assert asked.read_text() == "requeue 77\n"
    reached = steps_done(run)
    assert 3 <= reached < STEPS

    second = start(job | {"SLURM_RESTART_COUNT": "1"}, place.config, tmp_path)
    wait_for_steps(second, run, reached + 3)
    second.send_signal(signal.SIGTERM)  # scancel, or a pre-emption after which Slurm itself requeues
    assert second.wait(timeout=60) == 143
    assert asked.read_text() == "requeue 77\n"
    steps = [row.step for row in read_metrics(run / "metrics.csv")]
    assert steps == list(range(1, len(steps) + 1))
    log = (tmp_path / "log.txt").read_text()
    assert "start 0 of job 77" in log and "start 1 of job 77" in log and "back into the queue" in log


def test_a_job_that_fails_is_not_requeued(job: dict[str, str], tmp_path: Path) -> None:
    process = start(job, tmp_path / "missing.yaml", tmp_path)
    assert process.wait(timeout=60) == 2
    assert not (tmp_path / "scontrol.txt").exists()
    assert "missing.yaml" in (tmp_path / "log.txt").read_text()
