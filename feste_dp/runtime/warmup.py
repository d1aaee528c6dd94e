"""Compiles every kernel of a training run once, in a process of its own, before the workers start.

The machine code goes to the cache on disk (kernels/compilation.py); workers only load it. A mark in the
cache says that it is complete, so that later runs skip this.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feste_dp.config.schema import ModelConfig, OptimConfig
from feste_dp.data.order import train_offsets
from feste_dp.data.tokens import TokenData
from feste_dp.errors import RunError
from feste_dp.kernels.compilation import CACHE_DIRECTORY
from feste_dp.model.parameters import decayed_count, parameter_count, view_params
from feste_dp.model.sampling import Sampler
from feste_dp.optim.adamw import AdamW
from feste_dp.runtime.arena import Arena, create_arena
from feste_dp.runtime.worker import ShardComputer, WorkerSpec
from feste_dp.runtime.worker_process import ONE_THREAD

_MARK = "complete"
_POLL_S = 0.05
_OLD_CACHES_KEPT = 4


def kernels_are_compiled() -> bool:
    return (CACHE_DIRECTORY / _MARK).exists()


def compile_kernels(environ: Mapping[str, str], on_wait: Callable[[float], None]) -> None:
    """Fill the cache unless it is full; calls on_wait(seconds so far) while it takes. Raises RunError."""
    if kernels_are_compiled():
        return
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "feste_dp.runtime.warmup"],
        env=dict(environ) | ONE_THREAD,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        process_group=0,
    )
    try:
        while process.poll() is None:
            on_wait(time.monotonic() - started)
            time.sleep(_POLL_S)
    finally:
        if process.poll() is None:
            process.kill()
        _, errors = process.communicate()
    if process.returncode:
        reason = errors.decode(errors="replace").strip().splitlines()
        raise RunError(f"the kernels could not be compiled: {reason[-1] if reason else process.returncode}")


def run_every_kernel() -> None:
    """Call each compiled function with the types of a real run; the sizes do not matter."""
    cfg = ModelConfig(vocab_size=256, block_size=8, n_layer=1, n_head=2, n_embd=8, dropout=0.1)
    arena = create_arena(parameter_count(cfg), shards=2)
    computer = ShardComputer(_spec(cfg, arena), arena, _tokens())
    computer.shard(1, 0, (0,))
    computer.validation_unit(1, 0, (0,))
    computer.stripe(0, 1)
    train_offsets(1, 1, 1, 32, 8)
    optimizer = AdamW(len(arena.params), decayed_count(cfg), OptimConfig(), threads=1)
    optimizer.update(arena.params, arena.grad, 1, 1e-3, 1.0)
    list(Sampler(cfg, view_params(arena.params, cfg)).draw([0], 1, temperature=1.0, seed=1))
    os.close(arena.fd)


def remove_old_caches(current: Path) -> None:
    """Delete the code of earlier sources, a folder each, but for the newest few: other versions may be in use."""
    others = [path for path in current.parent.iterdir() if path.is_dir() and path != current]
    for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[_OLD_CACHES_KEPT:]:
        shutil.rmtree(path, ignore_errors=True)


def _spec(cfg: ModelConfig, arena: Arena) -> WorkerSpec:
    return WorkerSpec(
        worker=0,
        coordinator_pid=0,
        endpoint="",
        token=b"",
        arena_fd=arena.fd,
        model=cfg,
        shards=2,
        sequences_per_shard=1,
        micro_batch=1,
        seed=1,
        data_directory="",
        cpu=None,
    )


def _tokens() -> TokenData:
    tokens: NDArray[np.uint16] = np.arange(32, dtype=np.uint16)
    return TokenData(Path(), tokens, tokens, 256, "", "", 0, 0)


def main() -> int:
    run_every_kernel()
    (CACHE_DIRECTORY / _MARK).touch()
    remove_old_caches(CACHE_DIRECTORY)
    return 0


if __name__ == "__main__":
    sys.exit(main())
