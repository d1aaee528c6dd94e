"""Real disks that are full, read-only or limited, under real runs: training goes on, nothing good is lost."""

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from feste_dp.checkpoint.listing import step_directories
from feste_dp.checkpoint.loading import verify_checkpoint
from feste_dp.run.metrics import comparable_rows
from tests.cli.conftest import COMMAND, Place

# 2.9 MB a checkpoint: the seventh does not fit on a disk of 20 MB.
LARGER = [
    "--set",
    "model.n_embd=128",
    "--set",
    "checkpoint.every=1",
    "--set",
    "checkpoint.keep=20",
    "--set",
    "run.workers=1",
    "--quiet",
]
STEPS = 12

FILL = """
import os, sys
with open(sys.argv[1], "wb", buffering=0) as file:
    for size in (1 << 20, 4096, 1):
        try:
            while True:
                file.write(b"x" * size)
        except OSError:
            pass
"""

SAVE_UNTIL_FULL = """
import sys
from pathlib import Path
import numpy as np
from feste_dp.checkpoint.filesystem import Filesystem, SaveError
from feste_dp.checkpoint.saving import write_checkpoint
from tests.checkpoint.conftest import example_arrays, example_fields

class Believes(Filesystem):
    def free_bytes(self, path):
        return 1 << 40  # another program takes the room between the look and the save

folder, size = Path(sys.argv[1]), 400_000
for step in range(1, 100):
    try:
        write_checkpoint(
            folder, example_fields(step, size), example_arrays(step, size), filesystem=Believes()
        )
    except SaveError as error:
        print(step, error)
        break
"""


@dataclass(frozen=True)
class Disk:
    """A file system of 20 MB in a mount namespace of its own: `inside` is its path there, `path` here."""

    inside: Path
    path: Path
    enter: list[str]

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.enter, *map(str, command)], capture_output=True, text=True, cwd=Path(__file__).parents[2]
        )

    def feste(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return self.run(*COMMAND, *arguments)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    mount = tmp_path / "disk"
    mount.mkdir()
    script = 'mount -t tmpfs -o size=20m none "$1" && echo ready && exec cat'
    if not shutil.which("unshare") or not shutil.which("nsenter"):
        pytest.skip("unshare and nsenter (util-linux) are not installed")
    with subprocess.Popen(
        ["unshare", "-Urm", "sh", "-c", script, "sh", str(mount)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        if holder.stdout.readline() != b"ready\n":
            pytest.skip("this system allows no file system in a user namespace")
        enter = ["nsenter", "-t", str(holder.pid), "-U", "-m", "--preserve-credentials"]
        yield Disk(mount, Path(f"/proc/{holder.pid}/root{mount}"), enter)
        holder.stdin.close()


@pytest.fixture(scope="module")
def undisturbed(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("quiet") / "run"
    command = [*COMMAND, "launch", "--config", str(place.config), "--out", str(run), *LARGER]
    subprocess.run(command, check=True, capture_output=True)
    return run


def whole_steps(run: Path) -> list[int]:
    """The steps that are saved; each of them is whole, and nothing lies beside them."""
    found = step_directories(run / "checkpoints")
    assert [problem for _, path in found for problem in verify_checkpoint(path)] == []
    assert list((run / "checkpoints").glob(".*")) == []
    return [step for step, _ in found]


def trouble(done: subprocess.CompletedProcess[str], words: str) -> bool:
    """Whether the command ended degraded, and said why without a traceback."""
    return done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr


def assert_equal_ends(run: Path, undisturbed: Path) -> None:
    assert comparable_rows(run / "metrics.csv") == comparable_rows(undisturbed / "metrics.csv")
    for file in (undisturbed / f"checkpoints/step-{STEPS:08d}").glob("*.safetensors"):
        assert (run / f"checkpoints/step-{STEPS:08d}" / file.name).read_bytes() == file.read_bytes()


def test_a_run_whose_checkpoints_fill_the_disk_trains_to_its_end_and_says_that_it_is_degraded(
    place: Place, disk: Disk, undisturbed: Path
) -> None:
    run = disk.path / "run"
    done = disk.feste("launch", "--config", place.config, "--out", disk.inside / "run", *LARGER)
    assert trouble(done, "was not saved: it needs")
    assert f"finished after step {STEPS}, which is NOT saved" in done.stdout
    saved = whole_steps(run)
    assert 3 <= len(saved) < STEPS and saved == list(range(1, len(saved) + 1))
    assert (run / "checkpoints/latest").readlink().name == f"step-{saved[-1]:08d}"
    assert comparable_rows(run / "metrics.csv") == comparable_rows(undisturbed / "metrics.csv")
    for step in saved[:-1]:
        shutil.rmtree(run / f"checkpoints/step-{step:08d}")
    # with room again the run goes on from its last good checkpoint, to the bits of one that had no trouble
    done = disk.feste("resume", disk.inside / "run", "--set", "checkpoint.every=5", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert_equal_ends(run, undisturbed)


def test_a_resume_on_a_disk_without_a_free_byte_trains_on_and_loses_nothing(
    place: Place, disk: Disk, undisturbed: Path
) -> None:
    run = disk.path / "run"
    launch = ["launch", "--config", place.config, "--out", disk.inside / "run", *LARGER]
    assert disk.feste(*launch, "--set", "train.steps=4").returncode == 0
    before = {path: path.read_bytes() for path in (run / "checkpoints").rglob("*.*") if path.is_file()}
    assert disk.run(sys.executable, "-c", FILL, disk.inside / "filler").returncode == 0
    done = disk.feste("resume", disk.inside / "run", "--set", f"train.steps={STEPS}", "--quiet")
    assert trouble(done, "config.yaml not brought up to date: No space left on device")
    assert f"finished after step {STEPS}, which is NOT saved" in done.stdout
    assert whole_steps(run) == [1, 2, 3, 4]
    assert all(path.read_bytes() == content for path, content in before.items())
    steps = [int(row["step"]) for row in comparable_rows(run / "metrics.csv")]
    assert steps[:4] == [1, 2, 3, 4] and steps == sorted(set(steps))
    (disk.path / "filler").unlink()
    done = disk.feste("resume", disk.inside / "run", "--set", f"train.steps={STEPS}", "--quiet")
    assert done.returncode in (0, 1)  # four more fit; the cosine of 4 steps is not that of 12
    assert [int(row["step"]) for row in comparable_rows(run / "metrics.csv")] == list(range(1, STEPS + 1))


def test_a_disk_that_fills_while_a_save_is_written_keeps_every_earlier_one(disk: Disk) -> None:
    done = disk.run(sys.executable, "-c", SAVE_UNTIL_FULL, disk.inside / "checkpoints")
    assert done.returncode == 0, done.stderr
    step, _, message = done.stdout.partition(" ")
    assert "was not saved: No space left on device" in message
    assert whole_steps(disk.path) == list(range(1, int(step)))


def test_a_directory_that_has_become_read_only_costs_the_saves_and_not_the_training(
    place: Place, disk: Disk, undisturbed: Path
) -> None:
    run = disk.path / "run"
    launch = ["launch", "--config", place.config, "--out", disk.inside / "run", *LARGER]
    assert disk.feste(*launch, "--set", "checkpoint.keep=1").returncode == 0
    shutil.rmtree(run / f"checkpoints/step-{STEPS:08d}")  # as if it had been killed before the last step
    (run / "checkpoints/latest").unlink()
    kept = whole_steps(run)
    checkpoints = disk.inside / "run/checkpoints"
    shell = f"mount --bind {checkpoints} {checkpoints} && mount -o remount,bind,ro {checkpoints}"
    assert disk.run("sh", "-c", shell).returncode == 0
    done = disk.feste("resume", disk.inside / "run", "--quiet")
    assert trouble(done, "was not saved: Read-only file system")
    assert disk.run("umount", checkpoints).returncode == 0
    assert whole_steps(run) == kept
    assert comparable_rows(run / "metrics.csv") == comparable_rows(undisturbed / "metrics.csv")
    assert disk.feste("resume", disk.inside / "run", "--quiet").returncode == 0
    assert_equal_ends(run, undisturbed)


def test_a_file_size_limit_costs_the_saves_and_not_the_training(
    place: Place, undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))

    command = [*COMMAND, "launch", "--config", str(place.config), "--out", str(run), *LARGER]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
    assert trouble(done, "was not saved: File too large")
    assert whole_steps(run) == []
    assert comparable_rows(run / "metrics.csv") == comparable_rows(undisturbed / "metrics.csv")
    resumed = subprocess.run([*COMMAND, "resume", str(run), "--quiet"], capture_output=True, text=True)
    assert (resumed.returncode, resumed.stderr) == (0, "")
    assert_equal_ends(run, undisturbed)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may raise a hard limit, and the run then goes on")
def test_a_hard_file_size_limit_below_the_shared_memory_is_one_line(place: Place, tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    command = [*COMMAND, "launch", "--config", str(place.config), "--out", str(tmp_path / "run"), *LARGER]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "ulimit -f" in done.stderr
