"""Runs one contender once, in a process and an environment of its own, and says why one cannot run.

Knows the command of each program; knows nothing of rounds and tables.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.comparison import OURS
from feste_dp.config.loading import load_config
from feste_dp.runtime.child_process import child_command, child_environment

ROOT = Path(__file__).parents[1]

PEERS = (
    "torch",
    "torch-compiled",
    "torch-ddp",
    "torch-ddp-compiled",
    "torch-tuned",
    "torch-tuned-compiled",
    "torch-tuned-ddp",
)

# What would change a peer behind its back: settings of a BLAS, of OpenMP and of PyTorch, preloaded libraries.
_FOREIGN_SETTINGS = ("OPENBLAS_", "MKL_", "OMP_", "KMP_", "GOMP_", "DNNL_", "ONEDNN_", "TORCH", "ATEN_")


@dataclass(frozen=True)
class Task:
    """One step of one model for all contenders: `workers` cores, a global batch, and how it is cut for us."""

    config: Path
    precision: str
    workers: int
    batch_size: int
    shards: int
    micro_batch: int
    dropout: float
    steps: int
    warmup: int

    @property
    def overrides(self) -> list[str]:
        """The same task as overrides of the config."""
        changes = [
            f"train.batch_size={self.batch_size}",
            f"train.shards={self.shards}",
            f"train.micro_batch={self.micro_batch}",
            f"model.dropout={self.dropout}",
        ]
        return changes + ([] if self.precision == "fp32" else [f"train.precision={self.precision}"])


@dataclass(frozen=True)
class Round:
    """What one run of one contender gave."""

    step_seconds: list[float]
    peak_memory_bytes: int


class ContenderError(Exception):
    """The contender ended without a result; one line says why."""


def missing(name: str, task: Task, override: Path | None) -> str | None:
    """Why this contender cannot run here, in words; None where it can."""
    if name == OURS:
        return None
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed"
    if name.endswith("compiled") and not (os.environ.get("CXX") or shutil.which("g++")):
        return "torch.compile needs a C++ compiler and none was found"
    if "ddp" in name:
        if task.workers == 1:
            return "DDP needs more than one worker"
        if task.batch_size % task.workers:
            return f"a batch of {task.batch_size} does not divide by {task.workers} processes"
        if not _has_gloo():
            return "this PyTorch has no gloo"
    if "tuned" in name and override is None:
        return "no AMD CPU, or no C compiler for the library that overrides MKL's vendor check"
    return None


def run_round(name: str, task: Task, override: Path | None, folder: Path) -> Round:
    """Run a contender once; `folder` keeps what it compiles for later rounds. Raises ContenderError."""
    return _run_ours(task) if name == OURS else _run_torch(name, task, override, folder)


def _run_ours(task: Task) -> Round:
    command = [sys.executable, "-m", "feste_dp", "bench", "--json", "--config", str(task.config)]
    command += ["--workers", str(task.workers), "--steps", str(task.steps), "--warmup", str(task.warmup)]
    for override in task.overrides:
        command += ["--set", override]
    report = json.loads(_output(command, _environment(os.environ), None))
    seconds = [milliseconds / 1e3 for milliseconds in report["step_ms_each"]]
    return Round(seconds, report["memory"]["total_bytes"])


def _run_torch(name: str, task: Task, override: Path | None, folder: Path) -> Round:
    from feste_dp.scale.baselines.torch_steps import Settings  # here: PyTorch may be absent

    ddp = "ddp" in name
    model = load_config(task.config, [f"model.dropout={task.dropout}"]).model
    settings = Settings(
        model=model.model_dump(),
        batch_size=task.batch_size,
        precision=task.precision,
        processes=task.workers if ddp else 1,
        threads=1 if ddp else task.workers,
        compiled=name.endswith("compiled"),
        warmup=task.warmup,
        steps=task.steps,
    )
    environ = _environment(os.environ) | {
        "OMP_NUM_THREADS": str(settings.threads),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
    }
    if "tuned" in name:
        environ["LD_PRELOAD"] = str(override)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        result = Path(place) / "result.json"
        command = child_command("feste_dp.scale.baselines.torch_steps", str(result))
        _output(command, child_environment(environ), json.dumps(asdict(settings)))
        times = json.loads(result.read_text())
    return Round(times["seconds"], times["peak_memory_bytes"])


def _output(command: list[str], environ: Mapping[str, str], given: str | None) -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True, env=dict(environ), cwd=ROOT)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise ContenderError(lines[-1].removeprefix("error: "))
    return done.stdout


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment without what would change a peer, and with this repository importable."""
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith(_FOREIGN_SETTINGS) and name != "LD_PRELOAD"
    }
    return kept | {"PYTHONPATH": str(ROOT)}


def _has_gloo() -> bool:
    import torch.distributed

    return torch.distributed.is_available() and torch.distributed.is_gloo_available()
