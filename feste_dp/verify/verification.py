"""Whether this machine gives the bits of the table: trains the golden runs with real workers and, where one
differs, looks for the first kernel that does. Leaves nothing behind but compiled code."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from feste_dp.errors import RunError
from feste_dp.files.temporary import temporary_folder, temporary_places
from feste_dp.kernels.vector.target import HAS_BF16, TARGET_VARIABLE
from feste_dp.machine.cpus import cpu_features, cpu_name, default_workers
from feste_dp.machine.versions import versions
from feste_dp.verify.golden_run import Outcome, first_other_step, train_golden
from feste_dp.verify.kernel_cases import kernel_cases
from feste_dp.verify.kernel_hashes import hash_kernels_in_a_process
from feste_dp.verify.table import GoldenRun, RunHashes, Table

_COMPUTE = ("feste-dp", "python", "numpy", "numba", "llvmlite", "tokenizers")


@dataclass(frozen=True)
class RunResult:
    config: str
    precision: str
    steps: int
    workers: int
    seconds: float
    found: RunHashes
    wanted: RunHashes

    @property
    def differs_in(self) -> tuple[str, ...]:
        same_state, same_rows = (
            self.found.state == self.wanted.state,
            self.found.metrics == self.wanted.metrics,
        )
        return ("weights, m, v",) * (not same_state) + ("metrics.csv",) * (not same_rows)

    @property
    def first_other_step(self) -> int | None:
        return first_other_step(self.found, self.wanted)


@dataclass(frozen=True)
class Machine:
    """What the bits must not depend on."""

    cpu: str
    features: list[str]
    compiled_for: str
    bf16: str
    releases: dict[str, str]


@dataclass(frozen=True)
class Verification:
    machine: Machine
    arithmetic: int
    runs: list[RunResult]
    other_kernels: list[str] | None
    """Those whose hash is not the table's, in the order of a step; None where nobody looked, for all runs are
    as they must be."""

    @property
    def holds(self) -> bool:
        return not any(run.differs_in for run in self.runs) and not self.other_kernels


def this_machine(environ: Mapping[str, str]) -> Machine:
    releases = {name: version for name, version in versions(also=_COMPUTE).items() if name in _COMPUTE}
    return Machine(
        cpu=cpu_name(),
        features=cpu_features(),
        compiled_for=environ.get(TARGET_VARIABLE) or "this CPU",
        bf16="the instruction" if HAS_BF16 else "two fused multiply-adds",
        releases=releases,
    )


def verify(
    table: Table,
    runs: Sequence[GoldenRun],
    workers: int | None,
    environ: Mapping[str, str],
    tell: Callable[[RunResult], None],
    warn: Callable[[str], None],
    examine: Callable[[], None],
) -> Verification:
    """Train these runs and tell of each when it is done; `examine` is called where a kernel is looked for.
    Raises UsageError, RunError, StoppedError."""
    results: list[RunResult] = []
    for result, warnings in _results(table, runs, workers):
        for line in warnings if not results else []:
            warn(line)
        results.append(result)
        tell(result)
    other = None
    if any(result.differs_in for result in results):
        examine()
        other = kernels_that_differ(table.kernels, hash_kernels_in_a_process(environ))
    return Verification(this_machine(environ), table.arithmetic, results, other)


def kernels_that_differ(wanted: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """In the order of a step."""
    return [name for name, digest in found.items() if wanted.get(name) != digest]


def source_of(kernel: str) -> str:
    """The file of a kernel, as one finds it in the sources."""
    return next(f"feste_dp/{case.file}" for case in kernel_cases() if case.name == kernel)


def _results(
    table: Table, runs: Sequence[GoldenRun], workers: int | None
) -> Iterator[tuple[RunResult, list[str]]]:
    for run in runs:
        started = time.perf_counter()
        count = workers_for(table, run, workers)
        outcome, warnings = train_in_passing(table, run, count)
        seconds = time.perf_counter() - started
        yield (
            RunResult(run.config, run.precision, outcome.steps, count, seconds, outcome.hashes, run.hashes),
            warnings,
        )


def workers_for(table: Table, run: GoldenRun, workers: int | None) -> int:
    """As many as asked for, as far as the run has shards."""
    shards = table.config(run, 1, Path(tempfile.gettempdir())).train.shards
    return min(workers, shards) if workers else default_workers(shards)


def train_in_passing(table: Table, run: GoldenRun, workers: int) -> tuple[Outcome, list[str]]:
    """A run in a temporary folder, which goes with it."""
    try:
        with temporary_folder("verify", temporary_places()) as folder:
            return train_golden(table, run, workers, folder)
    except OSError as error:
        raise RunError(
            f"the run {run.name} found no place: {error.strerror}; set TMPDIR to another"
        ) from None
