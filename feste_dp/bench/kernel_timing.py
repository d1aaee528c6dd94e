"""Times every kernel alone, on one core, against its own limit: arithmetic or memory, whichever is nearer.

Runs in a process of its own with a folder of compiled code of its own: a kernel called alone is compiled
once more, and the code of real runs must stay as their warm-up wrote it.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from feste_dp.bench.kernel_cases import Case, kernel_cases
from feste_dp.config.schema import Config
from feste_dp.errors import RunError
from feste_dp.kernels.code_cache import code_place
from feste_dp.machine.cpus import cpu_name, usable_cpus
from feste_dp.plan.yardsticks import (
    beyond_caches_bytes,
    memory_bytes_per_second,
    peak_flops_per_second,
)
from feste_dp.runtime.child_process import child_command
from feste_dp.runtime.worker_process import worker_environment

_LEAST_S, _LEAST_RUNS = 0.2, 3


@dataclass(frozen=True)
class KernelTime:
    """The best time of one call, and the time that its limit would take."""

    name: str
    microseconds: float
    calls: int
    gflops_per_second: float
    gb_per_second: float
    limit: str
    limit_microseconds: float
    share_of_limit: float


@dataclass(frozen=True)
class KernelReport:
    """The whole result, as --json prints it. Bandwidths are those of a triad beyond all caches."""

    cpu: str
    precision: str
    cores: int
    micro_batch: int
    block_size: int
    peak_gflops_per_second_one_core: float
    peak_gflops_per_second_per_core_all_cores: float
    memory_gb_per_second_one_core: float
    memory_gb_per_second_all_cores: float
    kernels: list[KernelTime]


def time_kernels_in_a_process(config: Config, environ: Mapping[str, str]) -> KernelReport:
    """What time_kernels finds, in a process with one thread and a cache of its own. Raises RunError."""
    cache = code_place("-kernels").path
    done = subprocess.run(
        child_command("feste_dp.bench.kernel_timing"),
        env=worker_environment(environ, cache),
        input=config.model_dump_json(),
        stdout=subprocess.PIPE,
        process_group=0,
        text=True,
    )
    if done.returncode:
        raise RunError(f"the kernels could not be timed: exit status {done.returncode}")
    content = json.loads(done.stdout)
    content["kernels"] = [KernelTime(**kernel) for kernel in content["kernels"]]
    return KernelReport(**content)


def time_kernels(config: Config) -> KernelReport:
    """Measure the yardsticks, then each case."""
    precision, cores = config.train.precision, usable_cpus()
    peak = peak_flops_per_second(precision, 1)
    far = beyond_caches_bytes()
    bandwidths: dict[int, float] = {}

    def bandwidth(working_set: float) -> float:
        """Of one core, over the next power of two of bytes."""
        size = min(far, 1 << max(12, int(working_set - 1).bit_length()))
        if size not in bandwidths:
            bandwidths[size] = memory_bytes_per_second(1, size)
        return bandwidths[size]

    return KernelReport(
        cpu=cpu_name(),
        precision=precision,
        cores=cores,
        micro_batch=config.train.micro_batch,
        block_size=config.model.block_size,
        peak_gflops_per_second_one_core=peak / 1e9,
        peak_gflops_per_second_per_core_all_cores=peak_flops_per_second(precision, cores) / 1e9,
        memory_gb_per_second_one_core=bandwidth(far) / 1e9,
        memory_gb_per_second_all_cores=memory_bytes_per_second(cores, far) / 1e9,
        kernels=[_kernel_time(case, peak, bandwidth(case.working_set)) for case in kernel_cases(config)],
    )


def _kernel_time(case: Case, peak: float, bandwidth: float) -> KernelTime:
    return against_limit(case, best_seconds(case.run), peak, bandwidth)


def best_seconds(run: Callable[[], object]) -> float:
    """The fastest of at least three calls and a fifth of a second."""
    run()
    best, started, runs = float("inf"), time.perf_counter(), 0
    while runs < _LEAST_RUNS or time.perf_counter() - started < _LEAST_S:
        before = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - before)
        runs += 1
    return best


def against_limit(case: Case, seconds: float, peak: float, bandwidth: float) -> KernelTime:
    """`seconds` of one call beside what arithmetic at `peak` and traffic at `bandwidth` take at least."""
    arithmetic, traffic = case.flops / peak, case.bytes / bandwidth
    limit = max(arithmetic, traffic)
    return KernelTime(
        name=case.name,
        microseconds=1e6 * seconds,
        calls=case.calls,
        gflops_per_second=case.flops / seconds / 1e9,
        gb_per_second=case.bytes / seconds / 1e9,
        limit="arithmetic" if arithmetic >= traffic else "memory",
        limit_microseconds=1e6 * limit,
        share_of_limit=limit / seconds,
    )


def main() -> int:
    config = Config.model_validate_json(sys.stdin.read())
    print(json.dumps(asdict(time_kernels(config))))
    return 0
