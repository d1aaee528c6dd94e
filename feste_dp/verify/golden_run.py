"""One golden run: a real one, with workers, checkpoints and all, and the hashes of what it leaves."""

import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path

from feste_dp.checkpoint.listing import newest_whole
from feste_dp.checkpoint.loading import load_checkpoint
from feste_dp.json_text import json_text
from feste_dp.run.directory import RunDirectory
from feste_dp.run.metrics import comparable_rows, read_metrics
from feste_dp.run.screen import Progress
from feste_dp.train.launch import launch
from feste_dp.train.signals import StopSignals
from feste_dp.train.start import Surroundings
from feste_dp.verify.golden_text import write_golden_text
from feste_dp.verify.table import GoldenRun, RunHashes, Table

_DIGITS = 8


@dataclass(frozen=True)
class Outcome:
    hashes: RunHashes
    clipped: int
    """Steps whose gradient was scaled down"""
    steps: int


class StoppedError(Exception):
    """A signal ended the run; `status` is how the program ends."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _Quiet(Progress):
    """Keeps the warnings, of which each run has the same."""

    def __init__(self) -> None:
        super().__init__(io.StringIO(), io.StringIO())
        self.warnings: list[str] = []

    def warning(self, text: str) -> None:
        self.warnings.append(text)


def train_golden(table: Table, run: GoldenRun, workers: int, folder: Path) -> tuple[Outcome, list[str]]:
    """Train a run of the table in an empty folder: what it gave, and what it warned of. Raises UsageError,
    RunError, StoppedError."""
    tokens, directory = folder / "tokens", folder / "run"
    tokens.mkdir()
    vocab_size = table.configs[run.config]["model"]["vocab_size"]
    assert isinstance(vocab_size, int)
    write_golden_text(tokens, vocab_size)
    config = table.config(run, workers, tokens)
    progress = _Quiet()
    with progress, StopSignals() as signals:
        status = launch(config, directory, Surroundings(os.environ, folder, progress, signals))
    if status:
        raise StoppedError(status)
    rows = read_metrics(RunDirectory(directory).metrics)
    clip = config.optim.clip_norm
    clipped = sum(row.grad_norm > clip for row in rows) if clip else 0
    return Outcome(run_hashes(directory), clipped, len(rows)), progress.warnings


def run_hashes(directory: Path) -> RunHashes:
    """Of a finished run. Raises UsageError."""
    run, state = RunDirectory(directory), hashlib.sha256()
    checkpoint, _ = newest_whole(run.checkpoints)
    manifest, arrays = load_checkpoint(checkpoint)
    for name in manifest.tensors:
        state.update(arrays[name].astype("<f4", copy=False).tobytes())
    rows = [json_text(row).encode() for row in comparable_rows(run.metrics)]
    return RunHashes(
        state=state.hexdigest(),
        metrics=hashlib.sha256(b"\n".join(rows)).hexdigest(),
        rows=" ".join(hashlib.sha256(row).hexdigest()[:_DIGITS] for row in rows),
    )


def first_other_step(found: RunHashes, wanted: RunHashes) -> int | None:
    """The step whose row of metrics.csv is the first that differs; None where none does."""
    pairs = zip(found.rows.split(), wanted.rows.split(), strict=False)
    return next((step for step, (ours, theirs) in enumerate(pairs, 1) if ours != theirs), None)
