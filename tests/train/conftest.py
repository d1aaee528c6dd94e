"""Real runs of a very small model on a piece of the plays, and how they are compared."""

import hashlib
import io
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from feste_dp.checkpoint.format import step_directory_name
from feste_dp.config.schema import Config
from feste_dp.data.corpus import read_shakespeare
from feste_dp.run.metrics import MetricsRow
from feste_dp.run.screen import Progress
from feste_dp.train import launch as launching
from feste_dp.train.signals import StopSignals
from feste_dp.train.start import Surroundings

STEPS = 40

# Every feature on, each at a pace of its own, none of which divides 13.
SETTINGS: dict[str, dict[str, object]] = {
    "model": {"vocab_size": 300, "block_size": 32, "n_layer": 2, "n_head": 2, "n_embd": 32, "dropout": 0.1},
    "train": {"steps": STEPS, "batch_size": 16, "shards": 8, "micro_batch": 1, "seed": 5},
    "optim": {"lr": 3e-3, "min_lr": 3e-4, "warmup_steps": 5},
    "eval": {"every": 8, "batches": 2},
    "sample": {"every": 10, "tokens": 8, "prompt": "KING."},
    "checkpoint": {"every": 10, "keep": 10},
    "run": {"name": "small", "workers": 2},
}


class Watched(Progress):
    """The quiet form; remembers what it prints and calls `on_step` after each step."""

    def __init__(self, on_step: Callable[[int], None]) -> None:
        self.result, self.warnings = io.StringIO(), io.StringIO()
        self.messages: list[str] = []
        super().__init__(self.result, self.warnings)
        self._on_step = on_step

    def step(self, row: MetricsRow, total_steps: int, best: bool = False) -> None:
        self._on_step(row.step)

    def message(self, text: str) -> None:
        self.messages.append(text)


@dataclass
class Outcome:
    """How a launch or a resume ended."""

    run: Path
    status: int
    result: str
    warnings: str
    messages: list[str] = field(default_factory=list)

    def state(self, step: int) -> str:
        return state_sha256(self.run, step)


def state_sha256(run: Path, step: int) -> str:
    """SHA-256 of params, m and v, or another optimizer's, as the shard files of a checkpoint hold them."""
    digest = hashlib.sha256()
    shards = sorted((run / "checkpoints" / step_directory_name(step)).glob("*.safetensors"))
    tensors = [load_file(path) for path in shards]
    for name in ("params", *sorted(tensors[0].keys() - {"params"})):
        digest.update(np.concatenate([shard[name] for shard in tensors]).tobytes())
    return digest.hexdigest()


class Runs:
    """Starts runs in folders of its own, as the command line does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self.cache = folder / "cache"
        self.corpus = folder / "plays.txt"
        self.corpus.write_text(read_shakespeare()[1_000_000:1_060_000])

    def config(self, **changes: object) -> Config:
        """The small config; a change is written train__steps=7."""
        content = {name: dict(section) for name, section in SETTINGS.items()}
        content["data"] = {"corpus": [str(self.corpus)]}
        for key, value in changes.items():
            section, name = key.split("__")
            content[section][name] = value
        return Config.model_validate(content)

    def new_path(self) -> Path:
        self._number += 1
        return self.newest_path

    @property
    def newest_path(self) -> Path:
        """The run launched last, or about to be."""
        return self._folder / f"run{self._number}"

    def launch(
        self,
        config: Config,
        *,
        stop_after: int | None = None,
        path: Path | None = None,
        on_step: Callable[[int], None] = lambda step: None,
        trace: tuple[int, int] | None = None,
    ) -> Outcome:
        path = path or self.new_path()
        return self._follow(
            path, stop_after, lambda around: launching.launch(config, path, around), on_step, trace
        )

    def resume(
        self,
        run: Path,
        workers: int | None = None,
        overrides: Sequence[str] = (),
        *,
        stop_after: int | None = None,
        trace: tuple[int, int] | None = None,
    ) -> Outcome:
        return self._follow(
            run, stop_after, lambda around: launching.resume(run, workers, overrides, around), trace=trace
        )

    def _follow(
        self,
        path: Path,
        stop_after: int | None,
        start: Callable[[Surroundings], int],
        also_on_step: Callable[[int], None] = lambda step: None,
        trace: tuple[int, int] | None = None,
    ) -> Outcome:
        def on_step(step: int) -> None:
            also_on_step(step)
            if step == stop_after:
                os.kill(os.getpid(), signal.SIGTERM)

        progress = Watched(on_step)
        with progress, StopSignals(notice=lambda text: None) as signals:
            status = start(Surroundings(os.environ, self.cache, progress, signals, trace=trace))
        warnings = progress.warnings.getvalue().splitlines(keepends=True)
        about_the_run = "".join(line for line in warnings if " workers share " not in line)
        return Outcome(path, status, progress.result.getvalue(), about_the_run, progress.messages)


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def straight(runs):
    """The run that all others are compared with: 40 steps by two workers."""
    outcome = runs.launch(runs.config())
    assert (outcome.status, outcome.warnings) == (0, "")
    return outcome
