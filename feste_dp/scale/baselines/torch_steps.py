"""Times training steps of PyTorch: one process of many threads, or many of one thread under DDP over gloo.

main() is a process of its own, with the argument OUT and a JSON object of Settings on its standard input; it
writes one JSON object of StepTimes to OUT. Threads and preloads are the caller's to set.
Nothing imports this but the benchmarks: PyTorch is no dependency.
"""

import contextlib
import json
import os
import queue
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from feste_dp.config.schema import ModelConfig
from feste_dp.machine.memory import peak_bytes, reset_peak
from feste_dp.model.parameters import initial_params
from feste_dp.scale.baselines.torch_gpt2 import TorchGPT2, make_optimizer, set_weights

_TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class Settings:
    """What to time. `processes` above 1 means DDP with one thread each; batch_size is the global batch."""

    model: dict[str, Any]
    batch_size: int
    precision: str
    processes: int
    threads: int
    compiled: bool
    warmup: int
    steps: int
    lr: float = 1e-3
    weight_decay: float = 0.1
    seed: int = 1


@dataclass(frozen=True)
class StepTimes:
    """Seconds of each timed step, all losses, and the peak memory of all processes over the timed steps."""

    seconds: list[float]
    losses: list[float]
    peak_memory_bytes: int


def time_steps(settings: Settings) -> StepTimes:
    if settings.processes == 1:
        return _steps(settings, rank=0)
    context = torch.multiprocessing.get_context("spawn")
    results = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        started = torch.multiprocessing.spawn(
            _rank, (settings, f"file://{folder}/store", results), settings.processes, join=False
        )
        ranks = [_take(results, started) for _ in range(settings.processes)]
        started.join()
    first = next(times for rank, times in ranks if rank == 0)
    return StepTimes(first.seconds, first.losses, sum(times.peak_memory_bytes for _, times in ranks))


def _take(results: Any, started: Any) -> tuple[int, StepTimes]:
    """The next rank's result; a rank that died raises what ended it."""
    deadline = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            rank: int
            times: StepTimes
            rank, times = results.get(timeout=1)
            return rank, times
        except queue.Empty:
            started.join(timeout=0)
    raise TimeoutError("a rank does not answer")


def _rank(rank: int, settings: Settings, store: str, results: Any) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=settings.processes)
    results.put((rank, _steps(settings, rank)))
    torch.distributed.destroy_process_group()


def _steps(settings: Settings, rank: int) -> StepTimes:
    cfg = ModelConfig.model_validate(settings.model)
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed + rank)
    module = TorchGPT2(cfg)
    set_weights(module, initial_params(cfg, settings.seed), cfg)
    optimizer = make_optimizer(module, settings.lr, settings.weight_decay)
    model: nn.Module = DistributedDataParallel(module) if settings.processes > 1 else module
    if settings.compiled:
        model.compile()
    seconds, losses = [], []
    batches = random_batches(cfg, settings.batch_size // settings.processes, settings.seed + rank)
    for step in range(settings.warmup + settings.steps):
        if step == settings.warmup:
            reset_peak()
        started = time.perf_counter()
        losses.append(train_step(model, optimizer, *next(batches), settings.precision))
        seconds.append(time.perf_counter() - started)
    return StepTimes(seconds[settings.warmup :], losses, peak_bytes(os.getpid()))


def random_batches(
    cfg: ModelConfig, sequences: int, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Random tokens and their successors, without end; the first batch comes over and over, so that there is
    something to learn."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(cfg.vocab_size, (sequences, cfg.block_size + 1), generator=generator)
    while True:
        yield rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    tokens: torch.Tensor,
    targets: torch.Tensor,
    precision: str,
) -> float:
    """Forward, backward, clip to 1.0, AdamW; the loss before the update."""
    optimizer.zero_grad(set_to_none=True)
    autocast: Any = contextlib.nullcontext()
    if precision == "bf16":
        autocast = torch.autocast("cpu", torch.bfloat16)
    with autocast:
        loss = model(tokens, targets)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    before: float = loss.item()
    return before


def main() -> int:
    settings = Settings(**json.loads(sys.stdin.read()))
    result = json.dumps(asdict(time_steps(settings)))
    with Path(sys.argv[1]).open("w") as file:  # not standard output: libraries print there
        file.write(result)
    return 0
