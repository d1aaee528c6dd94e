"""The coordinator's side of a step: hands out work, gathers reports, and watches the workers live.

Owns the arena, the workers and the socket. Knows nothing of files, schedules or validation policy: it is
told what to compute and returns numbers.
"""

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import zmq
from numpy.typing import NDArray

from feste_dp.config.schema import Config
from feste_dp.errors import RunError
from feste_dp.kernels.reduction import make_tree, reduce_slots
from feste_dp.model.parameters import parameter_count
from feste_dp.runtime import messages as m
from feste_dp.runtime.arena import create_arena
from feste_dp.runtime.cpus import pin_plan
from feste_dp.runtime.ledger import Ledger, split_evenly, split_range
from feste_dp.runtime.protocol import Phase, next_phase
from feste_dp.runtime.results import Gradient, Report, read_report, tree_sum
from feste_dp.runtime.shard_computer import ShardSpec
from feste_dp.runtime.socket_directory import make_socket_directory
from feste_dp.runtime.tracing import Recorder, TraceRequest
from feste_dp.runtime.worker import WorkerSpec
from feste_dp.runtime.worker_process import WorkerProcess, start_worker

_START_TIMEOUT_S = 300.0
_STOP_TIMEOUT_S = 5.0
# Floats of all slots up to which the coordinator sums them itself: 80 us, less than asking the workers takes.
SMALL_REDUCTION = 1 << 21

Item = TypeVar("Item", bound=Hashable)


class Coordinator:
    """Runs the workers. Use as a context manager: leaving it ends every process and frees the socket."""

    def __init__(
        self,
        config: Config,
        workers: int,
        data_directory: Path,
        environ: Mapping[str, str],
        trace: TraceRequest | None = None,
    ) -> None:
        self._trace = trace
        self.recorder = None if trace is None else Recorder(trace, "coordinator", 0)
        self._config, self._data_directory, self._environ = config, data_directory, environ
        self._count, self._cpus = workers, pin_plan(config.run.pin, workers)
        self._directory: str | None = None
        self.arena = create_arena(parameter_count(config.model), config.train.shards)
        self._tree = make_tree(config.train.shards)
        self._token = secrets.token_hex(16).encode()
        self._workers: dict[int, WorkerProcess] = {}
        self._phases: dict[int, Phase] = {}
        self._failures: dict[int, m.Failed] = {}
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._poller = zmq.Poller()
        self.dropped_frames = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close(at_once=kind is not None)

    def start(self) -> None:
        """Start the workers and wait until all are ready. Raises RunError."""
        self._directory = make_socket_directory()
        endpoint = f"ipc://{self._directory}/s"
        for worker in range(self._count):
            self._workers[worker] = start_worker(self._spec(worker, endpoint), self._environ)
            self._phases[worker] = Phase.STARTING
            self._poller.register(self._workers[worker].pidfd, zmq.POLLIN)
        # after the workers: no child may inherit the context's descriptors
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.MAXMSGSIZE, m.MAX_FRAME_BYTES)
        self._socket.bind(endpoint)
        self._poller.register(self._socket, zmq.POLLIN)
        deadline = time.monotonic() + _START_TIMEOUT_S
        # a worker that reports a failure ends next: wait for that, which names it
        while any(phase is not Phase.IDLE for phase in self._phases.values()):
            self._receive(deadline, "start-up")
        self._remove_socket_directory()  # all are connected: whatever happens now, no file is left behind

    def worker_pids(self) -> list[int]:
        return [worker.pid for worker in self._workers.values()]

    def gradient(self, step: int, offsets: NDArray[np.int64]) -> Gradient:
        """Compute and reduce one step's gradient; offsets (batch_size,) are the sequences' first tokens."""
        started = time.perf_counter()
        train = self._config.train
        ledger: Ledger[int, Report] = Ledger(range(train.shards))
        self._order(ledger, lambda shards: m.Compute(step, shards, self._slice(offsets, shards)))
        self._gather(ledger, step, "compute")
        computed = time.perf_counter()
        stripes = self._reduce(step)
        self._record(step, {"compute": (started, computed), "reduce": (computed, time.perf_counter())})
        reports = ledger.results()
        losses = [report.value for report in reports]
        return Gradient(
            loss=tree_sum(losses) / (train.batch_size * self._config.model.block_size),
            shard_losses=losses,
            compute_seconds=computed - started,
            reduce_seconds=time.perf_counter() - computed,
            worker_seconds=self._seconds_by_worker(reports),
            worker_reduce_seconds=self._seconds_by_worker(stripes),
        )

    def _record(self, step: int, phases: Mapping[str, tuple[float, float]]) -> None:
        if self.recorder is not None:
            self.recorder.phases(step, phases)

    def validation_loss(self, step: int, offsets: NDArray[np.int64]) -> float:
        """Mean loss over the sequences at offsets, a multiple of sequences_per_shard of them."""
        started = time.perf_counter()
        units = len(offsets) // self._config.train.sequences_per_shard
        ledger: Ledger[int, Report] = Ledger(range(units))
        self._order(ledger, lambda units: m.Evaluate(step, units, self._slice(offsets, units)))
        self._gather(ledger, step, "validation")
        self._record(step, {"validation": (started, time.perf_counter())})
        total = tree_sum([report.value for report in ledger.results()])
        return total / (len(offsets) * self._config.model.block_size)

    def close(self, *, at_once: bool) -> None:
        """End the workers: ask first unless `at_once`, kill what is left, reap all, remove the socket."""
        try:
            if not at_once:
                self._ask_to_stop()
        finally:  # a second Ctrl-C cuts the waiting short, not the tidying up
            for process in self._workers.values():
                process.kill()
                process.close()
            self._workers.clear()
            if self._context is not None:
                self._context.destroy(linger=0)
            self._remove_socket_directory()
            if self.recorder is not None:
                self.recorder.write()
            if self.arena.fd >= 0:
                os.close(self.arena.fd)
                self.arena.fd = -1

    def _remove_socket_directory(self) -> None:
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _ask_to_stop(self) -> None:
        """Tell every worker to end, and wait a little until they have."""
        for worker in self._workers:
            if self._phases[worker] not in (Phase.FAILED, Phase.STOPPED):
                self._send(worker, m.Stop())
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        for process in self._workers.values():
            while process.process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.005)

    def _seconds_by_worker(self, reports: Sequence[Report]) -> list[float]:
        seconds = [0.0] * self._count
        for report in reports:
            seconds[report.worker] += report.seconds
        return seconds

    def _reduce(self, step: int) -> list[Report]:
        if self.arena.slots.size <= SMALL_REDUCTION:
            started = time.perf_counter()
            arena = self.arena
            reduce_slots(arena.grad, arena.norms, arena.slots, 0, len(arena.norms), self._tree)
            return [Report(0.0, 0, time.perf_counter() - started)]
        stripes = split_range(len(self.arena.norms), len(self._workers))
        ledger: Ledger[tuple[int, int], Report] = Ledger(stripes)
        for worker, stripe in zip(sorted(self._workers), stripes, strict=False):
            ledger.assign({worker: [stripe]})
            self._send(worker, m.Reduce(step, *stripe))
        self._gather(ledger, step, "reduce")
        return ledger.results()

    def _order(self, ledger: Ledger[int, Report], message: Callable[[tuple[int, ...]], m.Message]) -> None:
        parts = split_evenly(ledger.unfinished(), sorted(self._workers))
        ledger.assign(parts)
        for worker, items in parts.items():
            if items:
                self._send(worker, message(tuple(items)))

    def _slice(self, offsets: NDArray[np.int64], items: Sequence[int]) -> tuple[int, ...]:
        size = self._config.train.sequences_per_shard
        return tuple(int(offset) for item in items for offset in offsets[item * size : (item + 1) * size])

    def _gather(self, ledger: Ledger[Item, Report], step: int, phase: str) -> None:
        """Wait until every item is done."""
        timeout = self._config.run.step_timeout_s
        deadline = time.monotonic() + timeout
        while not ledger.complete:
            where = f"{phase} of step {step}"
            worker, message = self._receive(deadline, where, ledger)
            reported_step, item, report = read_report(worker, message)
            if reported_step == step and ledger.done(item, report):
                deadline = time.monotonic() + timeout

    def _receive(
        self, deadline: float, where: str, ledger: Ledger[Item, Report] | None = None
    ) -> tuple[int, m.Message]:
        """The next valid message. Raises RunError when a worker has ended, failed, or is silent too long."""
        while True:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                silent = [w for w in self._workers if ledger is None or ledger.unfinished(w)]
                names = ", ".join(f"{worker} (pid {self._workers[worker].pid})" for worker in silent)
                raise RunError(f"no answer from worker {names} during {where} within {self._allowed(ledger)}")
            frames = self._waiting_frames()
            if frames is not None:
                received = self._read(frames)
                if received is not None:
                    return received
                continue
            ready = dict(self._poller.poll(int(remaining * 1000) + 1))
            if ready and self._socket not in ready:
                lost = [worker for worker, process in self._workers.items() if process.pidfd in ready]
                raise self._loss(lost[0], where, ledger)

    def _allowed(self, ledger: Ledger[Item, Report] | None) -> str:
        if ledger is None:
            return f"{_START_TIMEOUT_S:g} s"
        return f"{self._config.run.step_timeout_s:g} s (run.step_timeout_s)"

    def _waiting_frames(self) -> list[bytes] | None:
        """What has arrived, without asking the poller, which takes longer than reading."""
        try:
            return self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None

    def _read(self, frames: list[bytes]) -> tuple[int, m.Message] | None:
        """The worker and its message; None, and counted, for a frame that is not one of this run."""
        started, worker = time.perf_counter(), int.from_bytes(frames[0], "big")
        try:
            if len(frames) != 3 or frames[1] != self._token or worker not in self._workers:
                raise m.ProtocolError("not a frame of this run")
            message = m.decode(frames[2])
            if not isinstance(message, m.REPORTS):
                raise m.ProtocolError(f"{type(message).__name__} from a worker")
            self._phases[worker] = next_phase(self._phases[worker], message)
        except m.ProtocolError:
            self.dropped_frames += 1
            return None
        if isinstance(message, m.Failed):
            self._failures[worker] = message
        if self.recorder is not None:
            self.recorder.received(worker, message, started, time.perf_counter())
        return worker, message

    def _loss(self, worker: int, where: str, ledger: Ledger[Item, Report] | None) -> RunError:
        process = self._workers[worker]
        text = f"worker {worker} (pid {process.pid}) {process.describe_end()} during {where}"
        if worker in self._failures:
            text += f": {self._failures[worker].reason}"
        undone = ledger.release(worker) if ledger is not None else []
        if undone:
            text += f"; unfinished: {', '.join(map(str, undone))}"
        error = RunError(text)
        if worker in self._failures:
            error.add_note(self._failures[worker].trace)
        return error

    def _send(self, worker: int, message: m.Message) -> None:
        started = time.perf_counter()
        self._phases[worker] = next_phase(self._phases[worker], message)
        # where the peer is gone, its process handle says so at the next wait
        with contextlib.suppress(zmq.ZMQError):
            self._socket.send_multipart([worker.to_bytes(2, "big"), self._token, m.encode(message)])
        if self.recorder is not None:
            self.recorder.sent(worker, message, started, time.perf_counter())

    def _spec(self, worker: int, endpoint: str) -> WorkerSpec:
        train = self._config.train
        return WorkerSpec(
            worker=worker,
            coordinator_pid=os.getpid(),
            endpoint=endpoint,
            token=self._token,
            arena_fd=self.arena.fd,
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
            trace=self._trace,
        )
