"""The coordinator's side of a step: hands out work, gathers reports, hands a lost worker's work to others.

Owns the arena and what is asked of the workers. Knows nothing of files, schedules or validation policy: it is
told what to compute and returns numbers, which do not depend on who computed what or how often.
"""

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self, TypeVar

from feste_dp.config.schema import Config
from feste_dp.data.order import Spacing
from feste_dp.data.token_guard import TokenGuard
from feste_dp.data.tokens import HeldTokens, hold_tokens
from feste_dp.errors import RunError, UsageError
from feste_dp.files.descriptors import spare
from feste_dp.interruption import held
from feste_dp.kernels.reduction import make_tree, reduce_slots
from feste_dp.machine.cpus import pin_plan, usable_cpus
from feste_dp.model.parameters import parameter_count
from feste_dp.runtime import messages as m
from feste_dp.runtime.arena import create_arena
from feste_dp.runtime.crew import Crew
from feste_dp.runtime.faults import COORDINATOR, FAULT_VARIABLE, Faults, parse_faults
from feste_dp.runtime.gathering import Gathering, Notice, Task
from feste_dp.runtime.held_code import HeldCode
from feste_dp.runtime.ledger import Ledger
from feste_dp.runtime.rehearsal import rehearse_sampler
from feste_dp.runtime.results import Gradient, mean_loss
from feste_dp.runtime.shard_computer import ShardSpec
from feste_dp.runtime.slots import ShardBlock, shards_per_slot, slot_count
from feste_dp.runtime.tracing import Recorder, TraceRequest
from feste_dp.runtime.worker import WorkerSpec

# Floats of all slots up to which the coordinator sums them itself: 80 us, less than asking the workers takes.
SMALL_REDUCTION = 1 << 21
# How long a worker looks for its next order before it sleeps: as long as the update of a model of a few
# million parameters takes.
_LISTEN_S = 2e-3

Number = TypeVar("Number", int, float)


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
        block: ShardBlock | None = None,
    ) -> None:
        """block says which shards of the batch are computed here; all of them where it is None."""
        self._trace = trace
        self._block = block or ShardBlock(0, config.train.shards)
        self.recorder = None if trace is None else Recorder(trace, "coordinator", 0)
        self.faults = Faults(parse_faults(environ.get(FAULT_VARIABLE, "")), COORDINATOR)
        self._config, self._data_directory = config, data_directory
        self._count, self._cpus = workers, pin_plan(config.run.pin, workers)
        self.arena = create_arena(
            parameter_count(config.model), self._block.count, slot_count(self._block.count, workers)
        )
        spare.hold()
        self._held_code = HeldCode()
        self._tree = make_tree(self._block.count)
        self._crew = Crew(self._spec, self.arena, environ, self.recorder)
        self._tokens: HeldTokens | None = None
        with contextlib.suppress(OSError, UsageError):  # the workers say what is wrong with it
            self._tokens = hold_tokens(data_directory)
            self._crew.inherited = (self._tokens.fd,)
        self._gathering = Gathering(self._crew, workers, config.run.step_timeout_s, notify)
        self._gathering.before_hiring = self._put_code_back
        if self._tokens is not None:
            self._gathering.check = TokenGuard(self._tokens).check

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close(at_once=kind is not None)

    def start(self) -> None:
        """Start the workers and wait until all are ready. Raises RunError where none can be started."""
        rehearse_sampler()
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

        Between steps only. Raises UsageError where run.pin names fewer CPUs, and RunError where one cannot be
        started or more gradient slots find no memory: the number stays what it was then.
        """
        before = self._cpus, self._count
        slots = slot_count(self._block.count, workers)
        try:
            self.arena.reserve_slots(slots)
        except OSError as error:
            raise RunError(f"no memory for {slots} gradient slots: {error.strerror}") from None
        self._cpus, self._count = pin_plan(self._config.run.pin, workers), workers
        try:
            self._gathering.resize(workers)
        except RunError:
            self._cpus, self._count = before
            raise

    def _put_code_back(self) -> None:
        self._held_code.put_back()
        self._crew.code = self._held_code.folder

    def tend(self) -> None:
        """Take in what has happened to the workers meanwhile, without waiting: for between the phases."""
        self._gathering.tend()

    def tell(self, notify: Callable[[Notice], None]) -> None:
        """Where notices go from here on."""
        self._gathering.notify = notify

    def watch(self, check: Callable[[], None]) -> Callable[[], None]:
        """Have check() called, which may raise, in the main thread while workers are waited for, whenever the
        function that is returned was called, in whichever thread."""
        self._crew.look = check
        return self._crew.ring

    @property
    def block(self) -> ShardBlock:
        """The shards of the batch that are computed here."""
        return self._block

    @property
    def shards_per_slot(self) -> int:
        """How many shards are added up in each of the arena's slots."""
        return shards_per_slot(self._block.count, self._count)

    def gradient(self, step: int) -> Gradient:
        """Sum the gradient of this block's shards of a step's batch into the arena."""
        started = time.perf_counter()
        per_slot = self.shards_per_slot
        self.faults.at("compute", step)
        ledger = Ledger(self._block.count, per_slot)

        def order(first: int, last: int) -> m.Message:
            return m.Compute(step, first, last, per_slot)

        self._gathering.gather(ledger, Task("compute", step, "shard", m.ShardsDone, order, self._block.first))
        computed = time.perf_counter()
        self.faults.at("reduce", step)
        reduce_seconds = self._reduce(step)
        self._record(step, {"compute": (started, computed), "reduce": (computed, time.perf_counter())})
        losses = ledger.losses()
        self._gathering.step_done()
        return Gradient(
            shard_losses=losses,
            worker_seconds=self._by_worker(ledger.seconds),
            worker_reduce_seconds=self._by_worker(reduce_seconds),
            worker_shards=self._by_worker(ledger.counts),
        )

    def _record(self, step: int, phases: Mapping[str, tuple[float, float]]) -> None:
        if self.recorder is not None:
            self.recorder.phases(step, phases)

    def validation_loss(self, step: int, count: int, spacing: Spacing) -> float:
        """Mean loss over so many held-out sequences, a multiple of sequences_per_shard."""
        units = range(count // self._config.train.sequences_per_shard)
        return mean_loss(self.unit_losses(step, units, spacing), count * self._config.model.block_size)

    def unit_losses(self, step: int, units: range, spacing: Spacing) -> list[float]:
        """Sum of the losses of each of these units of held-out sequences, each of sequences_per_shard."""
        started = time.perf_counter()
        self.faults.at("evaluate", step)
        if not units:
            return []
        ledger = Ledger(len(units))

        def order(first: int, last: int) -> m.Message:
            return m.Evaluate(step, first, last, units.start, *spacing)

        self._gathering.gather(ledger, Task("validation", step, "unit", m.UnitsDone, order, units.start))
        self._record(step, {"validation": (started, time.perf_counter())})
        return ledger.losses()

    def close(self, *, at_once: bool) -> None:
        """End the workers: ask first unless `at_once`, kill what is left, reap all, free the memory."""
        try:
            self._crew.close(at_once=at_once)
        finally:
            with held:
                if self.recorder is not None:
                    self.recorder.write()
                self._held_code.close()
                if self._tokens is not None:
                    os.close(self._tokens.fd)
                    self._tokens = None
                if self.arena.fd >= 0:
                    os.close(self.arena.fd)
                    self.arena.fd = -1
                    spare.release()

    def _by_worker(self, numbers: Mapping[int, Number]) -> list[Number]:
        """A list by worker, 0 where one has no number; fewer may be wanted by now than reported."""
        zero = type(next(iter(numbers.values())))()
        return [numbers.get(worker, zero) for worker in range(max(self._count, 1 + max(numbers)))]

    def _reduce(self, step: int) -> dict[int, float]:
        """Sum the slots; how long that took each worker."""
        arena, count = self.arena, self._block.count // self.shards_per_slot
        slots = arena.slots[:count]
        if slots.size <= SMALL_REDUCTION:
            started = time.perf_counter()
            reduce_slots(arena.grad, arena.norms, slots, 0, len(arena.norms), self._tree)
            return {0: time.perf_counter() - started}
        ledger = Ledger(len(arena.norms))

        def order(first: int, last: int) -> m.Message:
            return m.Reduce(step, first, last, count)

        self._gathering.gather(ledger, Task("reduce", step, "chunk", m.StripeDone, order))
        return ledger.seconds

    def _spec(self, worker: int, life: int, endpoint: str, token: bytes, bell: int) -> WorkerSpec:
        return WorkerSpec(
            worker=worker,
            life=life,
            coordinator_pid=os.getpid(),
            endpoint=endpoint,
            token=token,
            arena_fd=self.arena.fd,
            bell_fd=bell,
            shard=ShardSpec.of(self._config, self._block),
            data_directory=str(self._data_directory),
            tokens=self._tokens,
            cpu=self._cpus[worker],
            # where the cores do not suffice, one that looks would take the time of one that works
            listen_s=_LISTEN_S if self._count <= usable_cpus() else 0.0,
            trace=self._trace,
        )
