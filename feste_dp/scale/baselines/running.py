"""Runs the study's baselines, each in a process of its own, and says in a line why one cannot run."""

import importlib.util
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feste_dp.config.schema import Config
from feste_dp.errors import RunError
from feste_dp.files.temporary import temporary_folder, temporary_places
from feste_dp.machine.cpus import usable_cpus
from feste_dp.machine.limits import available_memory
from feste_dp.model.parameters import parameter_count
from feste_dp.runtime.child_process import child_command, child_environment
from feste_dp.runtime.worker_process import ONE_THREAD, worker_environment

# What PyTorch keeps for the backward pass, floats a token, layer and channel, fused attention: measured 24 to
# 34 on gpt2_87m; and copies of the logits a token and word.
_TORCH_FLOATS_A_CHANNEL, _TORCH_LOGITS = 34, 4


@dataclass(frozen=True)
class BaselineRun:
    """What one run of a baseline gave; losses are those of all steps."""

    step_seconds: list[float]
    losses: list[float]
    peak_memory_bytes: int


def run_one_process(
    config: Config, data_directory: Path, warmup: int, steps: int, environ: Mapping[str, str]
) -> BaselineRun:
    """Raises RunError."""
    settings = {
        "config": config.model_dump(mode="json"),
        "data_directory": str(data_directory),
        "warmup": warmup,
        "steps": steps,
    }
    return _run("feste_dp.scale.baselines.one_process", settings, worker_environment(environ))


def run_torch(
    config: Config, threads: int, warmup: int, steps: int, environ: Mapping[str, str]
) -> BaselineRun:
    """Raises RunError."""
    settings = {
        "model": config.model.model_dump(mode="json"),
        "batch_size": config.train.batch_size,
        "precision": config.train.precision,
        "processes": 1,
        "threads": threads,
        "compiled": False,
        "warmup": warmup,
        "steps": steps,
    }
    own = {name: value for name, value in environ.items() if name not in ONE_THREAD}
    return _run(
        "feste_dp.scale.baselines.torch_steps",
        settings,
        child_environment(own) | {"OMP_NUM_THREADS": str(threads)},
    )


def why_no_torch(config: Config) -> str | None:
    """Why PyTorch cannot take this step here, in words; None where it can."""
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed (pip install torch)"
    needed, available = _torch_memory(config), available_memory()
    if needed > available:
        return (
            f"the whole batch at once needs about {needed / 2**20:,.0f} MiB in PyTorch, "
            f"{available / 2**20:,.0f} are available"
        )
    return None


def one_process_words() -> str:
    return (
        "the same kernels and update in one process without workers, messages and shared slots; "
        f"1 thread, {usable_cpus()} in the update"
    )


def torch_words(threads: int) -> str:
    return (
        f"PyTorch, eager, fused attention and AdamW, the whole batch at once in one process of {threads} "
        f"thread{'s' if threads > 1 else ''}"
    )


def _torch_memory(config: Config) -> int:
    model = config.model
    floats_a_token = _TORCH_FLOATS_A_CHANNEL * model.n_layer * model.n_embd + _TORCH_LOGITS * model.vocab_size
    return 4 * (4 * parameter_count(model) + config.tokens_per_step * floats_a_token)


def _run(module: str, settings: dict[str, Any], environ: Mapping[str, str]) -> BaselineRun:
    with temporary_folder("scale", temporary_places()) as folder:
        result = folder / "result.json"
        done = subprocess.run(
            child_command(module, str(result)),
            env=dict(environ) | {"TMPDIR": str(folder)},  # PyTorch leaves a cache there
            input=json.dumps(settings),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            process_group=0,
            text=True,
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise RunError(f"{module.rpartition('.')[2]} failed: {lines[-1]}")
        times = json.loads(result.read_text())
    return BaselineRun(times["seconds"], times["losses"], times["peak_memory_bytes"])
