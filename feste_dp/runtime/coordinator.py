"""The coordinator's side of a step: hands out work, gathers reports, hands a lost worker's work to others.

Owns the arena and what is asked of the workers. Knows nothing of files, schedules or validation policy: it is
told what to compute and returns numbers, which do not depend on who computed what or how often.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from feste_dp.config.schema import Config
from feste_dp.kernels.reduction import make_tree, reduce_slots
from feste_dp.model.parameters import parameter_count
from feste_dp.runtime import messages as m
from feste_dp.runtime.arena import create_arena
from feste_dp.runtime.cpus import pin_plan, usable_cpus
from feste_dp.runtime.crew import Crew
from feste_dp.runtime.faults import COORDINATOR, FAULT_VARIABLE, Faults, parse_faults
from feste_dp.runtime.gathering import Gathering, Notice, Task
from feste_dp.runtime.ledger import Ledger, split_range
from feste_dp.runtime.results import Gradient, Report, tree_sum
from feste_dp.runtime.shard_computer import ShardSpec
from feste_dp.runtime.traced_crew import TracedCrew
from feste_dp.runtime.tracing import Recorder, TraceRequest
from feste_dp.runtime.worker import WorkerSpec

# Floats of all slots up to which the coordinator sums them itself: 80 us, less than asking the workers takes.
SMALL_REDUCTION = 1 << 21
# How long a worker looks for its next order before it sleeps: as long as the update of a model of a few
# million parameters takes.
_LISTEN_S = 2e-3


class Coordinator:
    """Runs the workers. Use as a context manager: leaving it ends every process and frees the socket."""

    def __init__(
        self,
        config: Config,
        workers: int,
        data_directory: Path,
        environ: Mapping[str, str],
        notify: Callable[[Notice], None] = lambda notice: None,
        trace: TraceRequest | None = None,
    ) -> None:
        self._trace = trace
        self.recorder = None if trace is None else Recorder(trace, "coordinator", 0)
        self.faults = Faults(parse_faults(environ.get(FAULT_VARIABLE, "")), COORDINATOR)
        self._config, self._data_directory = config, data_directory
        self._count, self._cpus = workers, pin_plan(config.run.pin, workers)
        self.arena = create_arena(parameter_count(config.model), config.train.shards)
        self._tree = make_tree(config.train.shards)
        self._crew = (
            Crew(self._spec, self.arena, environ)
            if self.recorder is None
            else TracedCrew(self._spec, self.arena, environ, self.recorder)
        )
        self._gathering = Gathering(self._crew, workers, config.run.step_timeout_s, notify)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close(at_once=kind is not None)

    def start(self) -> None:
        """Start the workers and wait until all are ready. Raises RunError where none can be started."""
        self._gathering.start()

    @property
    def workers(self) -> int:
        """How many workers are wanted; after losses there may be fewer for a while."""
        return self._count

    @property
    def dropped_frames(self) -> int:
        return self._crew.dropped_frames

    def worker_pids(self) -> list[int]:
        return self._crew.pids()

    def resize(self, workers: int) -> None:
        """Go on with another number of workers, from 1 to train.shards; new ones join when they are ready.

        Between steps only. Raises UsageError where run.pin names fewer CPUs.
        """
        self._cpus = pin_plan(self._config.run.pin, workers)
        self._count = workers
        self._gathering.resize(workers)

    def tend(self) -> None:
        """Take in what has happened to the workers meanwhile, without waiting: for between the phases."""
        self._gathering.tend()

    def tell(self, notify: Callable[[Notice], None]) -> None:
        """Where notices go from here on."""
        self._gathering.notify = notify

    def gradient(self, step: int, offsets: NDArray[np.int64]) -> Gradient:
        """Compute and reduce one step's gradient; offsets (batch_size,) are the sequences' first tokens."""
        started = time.perf_counter()
        train = self._config.train
        self.faults.at("compute", step)
        ledger: Ledger[int, Report] = Ledger(range(train.shards))

        def order(shards: Sequence[int]) -> m.Message:
            return m.Compute(step, tuple(shards), self._slice(offsets, shards))

        self._gathering.gather(ledger, Task("compute", step, "shard", m.ShardDone, order))
        computed = time.perf_counter()
        self.faults.at("reduce", step)
        stripes = self._reduce(step)
        self._record(step, {"compute": (started, computed), "reduce": (computed, time.perf_counter())})
        reports = ledger.results()
        losses = [report.value for report in reports]
        self._gathering.step_done()
        return Gradient(
            loss=tree_sum(losses) / (train.batch_size * self._config.model.block_size),
            shard_losses=losses,
            compute_seconds=computed - started,
            reduce_seconds=time.perf_counter() - computed,
            worker_seconds=self._seconds_by_worker(reports),
            worker_reduce_seconds=self._seconds_by_worker(stripes),
            worker_shards=self._count_by_worker(reports),
        )

    def _record(self, step: int, phases: Mapping[str, tuple[float, float]]) -> None:
        if self.recorder is not None:
            self.recorder.phases(step, phases)

    def validation_loss(self, step: int, offsets: NDArray[np.int64]) -> float:
        """Mean loss over the sequences at offsets, a multiple of sequences_per_shard of them."""
        started = time.perf_counter()
        units = len(offsets) // self._config.train.sequences_per_shard
        ledger: Ledger[int, Report] = Ledger(range(units))
        self.faults.at("evaluate", step)

        def order(units: Sequence[int]) -> m.Message:
            return m.Evaluate(step, tuple(units), self._slice(offsets, units))

        self._gathering.gather(ledger, Task("validation", step, "unit", m.UnitDone, order))
        total = tree_sum([report.value for report in ledger.results()])
        self._record(step, {"validation": (started, time.perf_counter())})
        return total / (len(offsets) * self._config.model.block_size)

    def close(self, *, at_once: bool) -> None:
        """End the workers: ask first unless `at_once`, kill what is left, reap all, free the memory."""
        try:
            self._crew.close(at_once=at_once)
        finally:
            if self.recorder is not None:
                self.recorder.write()
            if self.arena.fd >= 0:
                os.close(self.arena.fd)
                self.arena.fd = -1

    def _seconds_by_worker(self, reports: Sequence[Report]) -> list[float]:
        seconds = [0.0] * self._numbers(reports)
        for report in reports:
            seconds[report.worker] += report.seconds
        return seconds

    def _numbers(self, reports: Sequence[Report]) -> int:
        """Length of a list by worker; fewer may be wanted by now than reported."""
        return max(self._count, 1 + max(report.worker for report in reports))

    def _count_by_worker(self, reports: Sequence[Report]) -> list[int]:
        counts = [0] * self._numbers(reports)
        for report in reports:
            counts[report.worker] += 1
        return counts

    def _reduce(self, step: int) -> list[Report]:
        if self.arena.slots.size <= SMALL_REDUCTION:
            started = time.perf_counter()
            arena = self.arena
            reduce_slots(arena.grad, arena.norms, arena.slots, 0, len(arena.norms), self._tree)
            return [Report(0.0, 0, time.perf_counter() - started)]
        stripes = split_range(len(self.arena.norms), max(1, len(self._crew.ready())))
        ledger: Ledger[tuple[int, int], Report] = Ledger(stripes)

        def order(stripes: Sequence[tuple[int, int]]) -> m.Message:
            return m.Reduce(step, *stripes[0])  # a worker is given one at a time

        self._gathering.gather(ledger, Task("reduce", step, "stripe", m.StripeDone, order))
        return ledger.results()

    def _slice(self, offsets: NDArray[np.int64], items: Sequence[int]) -> tuple[int, ...]:
        size = self._config.train.sequences_per_shard
        return tuple(int(offset) for item in items for offset in offsets[item * size : (item + 1) * size])

    def _spec(self, worker: int, life: int, endpoint: str, token: bytes, bell: int) -> WorkerSpec:
        train = self._config.train
        return WorkerSpec(
            worker=worker,
            life=life,
            coordinator_pid=os.getpid(),
            endpoint=endpoint,
            token=token,
            arena_fd=self.arena.fd,
            bell_fd=bell,
            shard=ShardSpec(
                model=self._config.model,
                shards=train.shards,
                sequences_per_shard=train.sequences_per_shard,
                micro_batch=train.micro_batch,
                seed=train.seed,
                precision=train.precision,
            ),
            data_directory=str(self._data_directory),
            cpu=self._cpus[worker],
            # where the cores do not suffice, one that looks would take the time of one that works
            listen_s=_LISTEN_S if self._count <= usable_cpus() else 0.0,
            trace=self._trace,
        )
