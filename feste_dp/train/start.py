"""What every command does before its first step: look at the machine, prepare tokens and kernels, start the
workers. Creates nothing but caches; knows nothing of run directories."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from feste_dp.config.schema import Config
from feste_dp.data.preparation import prepare_for_run
from feste_dp.data.tokens import TokenData
from feste_dp.errors import UsageError
from feste_dp.kernels.simd import HAS_BF16
from feste_dp.runtime.coordinator import Coordinator
from feste_dp.runtime.cpus import pin_plan
from feste_dp.runtime.limits import measure_limits
from feste_dp.runtime.warmup import compile_kernels
from feste_dp.train.preflight import shortages
from feste_dp.train.progress import Progress
from feste_dp.train.signals import StopSignals


@dataclass(frozen=True)
class Surroundings:
    """What a run takes from the process it is in."""

    environ: Mapping[str, str]
    cache_root: Path
    progress: Progress
    signals: StopSignals
    trace: tuple[int, int] | None = None
    """First and last step to trace."""
    program: str = "feste-dp"
    """How the user calls it, for the commands that a run suggests."""


def check_machine(config: Config, workers: int, checkpoints: Path | None = None) -> None:
    """What can be refused before the slow parts: precision, CPUs, and what the machine has too little of.

    checkpoints is where the run will save, None where nothing is saved. Raises UsageError.
    """
    check_cpus(config, workers)
    limits = measure_limits(checkpoints)
    found = shortages(config, workers, limits, saves=checkpoints is not None)
    if found:
        raise UsageError("; ".join(shortage.line for shortage in found))


def check_cpus(config: Config, workers: int) -> None:
    """Whether the CPUs can multiply so and be pinned so. Raises UsageError."""
    if config.train.precision == "bf16" and not HAS_BF16:
        raise UsageError(
            "train.precision: bf16 needs a CPU that multiplies bfloat16 (AVX512-BF16), this one does not: "
            "use train.precision: fp32"
        )
    pin_plan(config.run.pin, workers)


def prepare(config: Config, around: Surroundings) -> TokenData:
    """Token data and compiled kernels: the slow parts of a first start, both cached."""
    around.progress.phase("reading the text")
    data = prepare_for_run(
        config.data.corpus,
        config.model.vocab_size,
        config.data.val_fraction,
        config.model.block_size,
        around.cache_root,
    )
    announced = False

    def on_wait(seconds: float) -> None:
        nonlocal announced
        if not announced:
            around.progress.phase("compiling the kernels (only the first time, about a minute)")
            announced = True

    compile_kernels(around.environ, on_wait)
    return data


def start_workers(coordinator: Coordinator, workers: int, around: Surroundings) -> None:
    around.progress.phase(f"starting {counted(workers, 'worker')}")
    coordinator.start()


def counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number > 1 else ''}"
