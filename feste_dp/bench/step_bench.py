"""The whole of `feste-dp bench` on steps: the run first, alone, then the yardsticks on the same cores."""

from feste_dp.bench.step_report import (
    StepReport,
    Yardsticks,
    reduce_bytes,
    step_report,
    update_working_set_bytes,
)
from feste_dp.bench.steps import measure_steps
from feste_dp.config.schema import Config
from feste_dp.machine.cpus import cpu_name, default_workers, usable_cpus
from feste_dp.plan.yardsticks import (
    beyond_caches_bytes,
    memory_bytes_per_second,
    peak_flops_per_second,
)
from feste_dp.train.start import Surroundings


def bench_steps(config: Config, steps: int, warmup: int, around: Surroundings) -> StepReport:
    """Raises UsageError with nothing written, RunError."""
    workers = config.run.workers or default_workers(config.train.shards)
    cores = min(workers, usable_cpus())
    measured = measure_steps(config, workers, steps, warmup, around)
    around.progress.phase("measuring what the cores can do")
    yardsticks = measure_yardsticks(config, workers, cores)
    return step_report(
        config, workers, cores, cpu_name(), yardsticks, measured.times, measured.losses, measured.memory
    )


def measure_yardsticks(config: Config, workers: int, cores: int) -> Yardsticks:
    """What `cores` cores at once reach, over as many bytes as the config's phases touch; takes 2 s."""
    far = beyond_caches_bytes()
    return Yardsticks(
        peak_flops_per_second=peak_flops_per_second(config.train.precision, cores),
        reduce_bytes_per_second=memory_bytes_per_second(cores, min(far, reduce_bytes(config, workers))),
        update_bytes_per_second=memory_bytes_per_second(
            usable_cpus(), min(far, update_working_set_bytes(config))
        ),
        memory_bytes_per_second=memory_bytes_per_second(cores, far),
    )
