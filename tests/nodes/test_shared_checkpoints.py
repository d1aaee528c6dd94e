"""Checkpoints of several machines: written by all that see the directory, the same files as of one."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from feste_dp.checkpoint.loading import verify_checkpoint
from feste_dp.data.corpus import read_shakespeare
from tests.nodes.network import OPEN_MPI, Machines, Mpi
from tests.nodes.training import FESTE_DP, ROOT, Training, passed_on

# 5.5 million parameters: checkpoints of 66 MB
CONFIG = """\
model: {vocab_size: 300, block_size: 32, n_layer: 3, n_head: 6, n_embd: 384}
data: {corpus: TEXT}
train: {steps: 8, batch_size: 8, shards: 4, micro_batch: 1, seed: 5}
eval: {every: 4, batches: 1}
sample: {every: 0}
checkpoint: {every: 2, keep: 20}
run: {name: large, workers: 1}
"""
TOGETHER = "checkpoints: each of 2 nodes writes its part"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("saves")
    (root / "text.txt").write_text(read_shakespeare()[:60_000])
    made = root / "config.yaml"
    made.write_text(CONFIG.replace("TEXT", str(root / "text.txt")))
    return made


@pytest.fixture
def training(
    machines: Callable[[int], Machines], open_mpi: Mpi, config: Path, tmp_path: Path
) -> Callable[[int], Training]:
    """training(2) is the run on two machines, as it is now."""
    return lambda count: Training(machines(count), config, tmp_path / "run")


@pytest.fixture(scope="module")
def alone(config: Path) -> Path:
    """The larger run on one machine."""
    run = config.parent / "large-alone"
    command = [*FESTE_DP, "launch", "--config", str(config), "--out", str(run), "--quiet"]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    return run


def assert_same_checkpoints(run: Path, alone: Path) -> None:
    """To the byte, but for the time that it took."""
    for step in (2, 4, 6, 8):
        found, expected = (each / "checkpoints" / f"step-{step:08d}" for each in (run, alone))
        assert verify_checkpoint(found) == []
        names = sorted(path.name for path in expected.iterdir())
        assert sorted(path.name for path in found.iterdir()) == names
        for name in names:
            if name != "manifest.json":
                assert (found / name).read_bytes() == (expected / name).read_bytes(), (step, name)
        assert timeless(found / "manifest.json") == timeless(expected / "manifest.json")
    assert not list((run / "checkpoints").glob(".*"))


def timeless(manifest: Path) -> dict[str, object]:
    content = json.loads(manifest.read_text())
    del content["train"]["elapsed_seconds"], content["manifest_sha256"]
    return content


def log_of(run: Path) -> str:
    return (run / "log.txt").read_text()


def go_back(run: Path, step: int) -> None:
    """As if nothing after this step had been saved."""
    for path in (run / "checkpoints").glob("step-*"):
        if int(path.name.removeprefix("step-")) > step:
            shutil.rmtree(path)


def test_machines_that_see_one_directory_write_its_checkpoints_together_and_any_number_goes_on(
    training: Callable[[int], Training],
    alone: Path,
) -> None:
    two = training(2)
    killed = ["env", "FESTE_DP_FAULT=coordinator:step4:saved:kill", *two.command()]
    job = two.machines.run_job([killed, two.command()], OPEN_MPI, env=passed_on(), cwd=ROOT, timeout=120)
    assert job.returncode != 0 and not (two.run / "finished").exists()
    for path in (two.run / "checkpoints").glob("step-*"):
        assert verify_checkpoint(path) == []
    two.finish()
    assert_same_checkpoints(two.run, alone)
    log = log_of(two.run)
    assert log.count(TOGETHER) == 2 and "wrote the files of" not in log
    go_back(two.run, 4)
    subprocess.run(two.command(), check=True, capture_output=True, cwd=ROOT)
    assert_same_checkpoints(two.run, alone)
    go_back(two.run, 2)
    training(4).finish()
    assert_same_checkpoints(two.run, alone)
    assert log_of(two.run).count("each of 4 nodes writes its part") == 1


@pytest.mark.long
def test_a_machine_that_does_not_see_the_directory_is_named_and_the_first_writes_all(
    training: Callable[[int], Training],
    alone: Path,
) -> None:
    two = training(2)
    two.run.parent.joinpath("hidden").mkdir()
    two = Training(two.machines, two.config, two.run.parent / "hidden" / "run")
    elsewhere = f'mount -t tmpfs none {two.run.parent} && exec "$@"'
    unseen = ["unshare", "-m", "sh", "-c", elsewhere, "sh", *two.command()]
    command = [two.command(), unseen]
    done = two.machines.run_job(command, OPEN_MPI, env=passed_on(), cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_checkpoints(two.run, alone)
    log = log_of(two.run)
    assert "node 0 writes all, for node 1 (" in log and f"does not see {two.run}/checkpoints as node 0" in log


@pytest.mark.long
def test_a_save_that_is_asked_of_any_machine_is_made(
    training: Callable[[int], Training],
) -> None:
    two = training(2)
    small = ["model.n_embd=32", "model.n_head=2"]
    sets = [f"--set={each}" for each in (*small, "checkpoint.every=0", "eval.every=0", "train.steps=100000")]
    job = two.start(*sets)
    try:
        for index in (1, 0):
            saved = set((two.run / "checkpoints").glob("step-*"))
            two.wait_for_steps(two.steps() + 3)
            (rank,) = two.ranks(index)
            os.kill(rank, signal.SIGUSR1)
            deadline = time.monotonic() + 30
            while not set((two.run / "checkpoints").glob("step-*")) - saved:
                assert time.monotonic() < deadline, two.log.read_text()
                time.sleep(0.01)
        os.kill(two.ranks(1)[0], signal.SIGUSR2)
        assert job.wait(60) != 0
    finally:
        job.kill()
    newest = max((two.run / "checkpoints").glob("step-*"))
    assert f"stopped after step {int(newest.name[5:])}" in log_of(two.run)
