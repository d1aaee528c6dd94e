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
from feste_dp.machine.cpus import cpu_name, usable_cpus
from feste_dp.nodes.link_speed import LinkSpeed
from feste_dp.plan.yardsticks import (
    beyond_caches_bytes,
    memory_bytes_per_second,
    peak_flops_per_second,
)
from feste_dp.train.start import Surroundings


def bench_steps(config: Config, steps: int, warmup: int, around: Surroundings) -> StepReport | None:
    """With all nodes, where there are several: all call it, and all but the first get None. Raises UsageError
    with nothing written, RunError."""
    workers = around.workers(config)
    cores = min(workers, usable_cpus())
    if around.nodes is not None:
        from feste_dp.train.follower import check_config

        check_config(around.nodes.link, config)
    speed: LinkSpeed | None = None
    measured = measure_steps(config, workers, steps, warmup, around)
    if around.nodes is not None:
        from feste_dp.nodes.probe import measure_links

        around.progress.phase("measuring the links between the nodes")
        speed = measure_links(around.nodes.link, around.nodes.transport)
        if not around.nodes.is_first:
            return None
    around.progress.phase("measuring what the cores can do")
    yardsticks = measure_yardsticks(config, workers, cores)
    return step_report(
        config,
        workers,
        cores,
        cpu_name(),
        yardsticks,
        measured.times,
        measured.losses,
        measured.memory,
        measured.nodes,
        speed,
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
