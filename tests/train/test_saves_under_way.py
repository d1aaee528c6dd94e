"""Real runs whose saves are slow, or are killed at one operation on the disk."""

import functools
import os
import signal
import subprocess
import sys
import threading

import pytest

from feste_dp.checkpoint.background import BackgroundWriter
from feste_dp.checkpoint.filesystem import Filesystem
from feste_dp.checkpoint.listing import newest_whole
from feste_dp.checkpoint.loading import read_manifest
from feste_dp.run.metrics import comparable_rows
from feste_dp.train import open_run as opening

SLOW_STEP = 10

DIES = """
import functools, os, signal, sys
from pathlib import Path
from feste_dp.checkpoint.background import BackgroundWriter
from feste_dp.checkpoint.filesystem import Filesystem
from feste_dp.config.schema import Config
from feste_dp.train import launch as launching
from feste_dp.train import open_run as opening
from feste_dp.run.screen import Progress
from feste_dp.train.signals import StopSignals
from feste_dp.train.start import Surroundings

config, out, cache, operation = sys.argv[1:5]

class Dies(Filesystem):
    committed = 0

    def rename(self, old, new):
        super().rename(old, new)
        self.committed += new.name.startswith("step-")

def method(self, *arguments):
    if self.committed == 2:  # in the third save: there is something to lose
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, *arguments)

original = getattr(Dies, operation)
setattr(Dies, operation, method)
opening.BackgroundWriter = functools.partial(BackgroundWriter, filesystem=Dies())
around = Surroundings(os.environ, Path(cache), Progress(sys.stdout, sys.stderr), StopSignals())
launching.launch(Config.model_validate_json(config), Path(out), around)
"""


class HeldBack(Filesystem):
    """The files of one step are not written before the training loop is three steps further."""

    def __init__(self):
        self.release = threading.Event()

    def create(self, path):
        if path.parent.name.startswith(f".tmp-step-{SLOW_STEP:08d}"):
            assert self.release.wait(60)
        return super().create(path)


def shards(run, step):
    folder = run / f"checkpoints/step-{step:08d}"
    return {file.name: file.read_bytes() for file in folder.glob("*.safetensors")}


def test_a_save_that_takes_many_steps_holds_the_bytes_of_its_own_step(runs, straight, monkeypatch):
    disk = HeldBack()
    monkeypatch.setattr(opening, "BackgroundWriter", functools.partial(BackgroundWriter, filesystem=disk))
    steps = []

    def on_step(step):
        steps.append(step)
        if step == SLOW_STEP + 3:
            assert not (path / f"checkpoints/step-{SLOW_STEP:08d}").exists()
            disk.release.set()

    monkeypatch.setattr(opening.Trainer, "_write_row", _recorded(opening.Trainer._write_row, on_step))
    path = runs._folder / f"run{runs._number + 1}"
    outcome = runs.launch(runs.config())
    assert (outcome.status, outcome.warnings, outcome.run) == (0, "", path)
    assert shards(path, SLOW_STEP) == shards(straight.run, SLOW_STEP) != {}
    assert read_manifest(path / f"checkpoints/step-{SLOW_STEP:08d}").train.val_loss is None
    assert outcome.state(40) == straight.state(40)


def _recorded(original, on_step):
    def record(self, row, is_best):
        original(self, row, is_best)
        on_step(row.step)

    return record


@pytest.mark.parametrize(
    "operation",
    [
        "rename",
        *(
            pytest.param(each, marks=pytest.mark.long)
            for each in ("make_directory", "create", "write", "sync", "close", "sync_directory", "symlink")
        ),
    ],
)
def test_a_run_killed_in_the_middle_of_a_save_resumes_to_the_same_bits(runs, straight, operation):
    path = runs.new_path()
    arguments = [runs.config().model_dump_json(), str(path), str(runs.cache), operation]
    killed = subprocess.run(
        [sys.executable, "-c", DIES, *arguments], env=os.environ, capture_output=True, timeout=120
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    whole, damages = newest_whole(path / "checkpoints")
    assert whole.name == "step-00000010" and damages == []
    resumed = runs.resume(path, workers=1)
    assert (resumed.status, resumed.warnings) == (0, "")
    assert not list((path / "checkpoints").glob(".*"))
    assert resumed.state(40) == straight.state(40)
    assert comparable_rows(path / "metrics.csv") == comparable_rows(straight.run / "metrics.csv")
