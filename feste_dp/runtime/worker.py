"""One worker: a single-threaded process that computes shards, stripes and validation losses on request.

Knows its model, its data and the arena; nothing of optimizers, schedules, files or other workers. Started by
worker_process.py as `python -m feste_dp.runtime.worker`, with its WorkerSpec on standard input.
"""

import ctypes
import os
import signal
import sys
import time
import traceback
from pathlib import Path

import zmq
from pydantic import BaseModel, ConfigDict

from feste_dp.data.tokens import open_token_data
from feste_dp.model.parameters import parameter_count
from feste_dp.runtime import messages as m
from feste_dp.runtime.arena import Arena
from feste_dp.runtime.protocol import Phase, next_phase
from feste_dp.runtime.rehearsal import check_that_compiled_code_is_loaded
from feste_dp.runtime.shard_computer import ShardComputer, ShardSpec
from feste_dp.runtime.tracing import Recorder, TraceRequest

_PR_SET_PDEATHSIG = 1
_PARENT_CHECK_MS = 1000


class WorkerSpec(BaseModel):
    """All that a worker is told at its start."""

    model_config = ConfigDict(frozen=True, strict=True)

    worker: int
    coordinator_pid: int
    endpoint: str
    token: bytes
    arena_fd: int
    shard: ShardSpec
    data_directory: str
    cpu: int | None
    trace: TraceRequest | None = None


class Connection:
    """The words' side of a worker: its socket, and the protocol as seen from here."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec, self._phase = spec, Phase.STARTING
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.IDENTITY, spec.worker.to_bytes(2, "big"))
        self._socket.setsockopt(zmq.MAXMSGSIZE, m.MAX_FRAME_BYTES)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 5)
        self._socket.setsockopt(zmq.RCVTIMEO, _PARENT_CHECK_MS)
        self._socket.connect(spec.endpoint)

    def send(self, message: m.Message) -> None:
        self._phase = next_phase(self._phase, message)
        self._socket.send_multipart([self._spec.token, m.encode(message)])

    def receive(self) -> m.Message:
        """The next order. Exits when the coordinator is gone."""
        while True:
            try:
                frames = self._socket.recv_multipart()
            except zmq.Again:  # silence: is there still somebody to speak?
                exit_if_orphaned(self._spec.coordinator_pid)
                continue
            if len(frames) != 2 or frames[0] != self._spec.token:
                continue
            message = m.decode(frames[1])
            self._phase = next_phase(self._phase, message)
            return message

    def report_failure(self, error: Exception) -> None:
        """Tell the coordinator why this worker ends, giving the message a second to leave."""
        reason, trace = f"{type(error).__name__}: {error}", traceback.format_exc()
        self._socket.setsockopt(zmq.LINGER, 1000)
        self.send(m.Failed(*(text.encode(errors="backslashreplace").decode() for text in (reason, trace))))
        zmq.Context.instance().destroy(linger=1000)


def serve(connection: Connection, computer: ShardComputer, sequences_per_shard: int) -> None:
    """Follow orders until told to stop."""
    connection.send(m.Ready(os.getpid()))
    while True:
        order = connection.receive()
        match order:
            case m.Compute(step, shards, offsets):
                for shard, part in zip(shards, _parts(offsets, sequences_per_shard), strict=True):
                    started = time.perf_counter()
                    loss_sum = computer.shard(step, shard, part)
                    connection.send(m.ShardDone(step, shard, loss_sum, time.perf_counter() - started))
            case m.Reduce(step, first, last):
                started = time.perf_counter()
                computer.stripe(first, last)
                connection.send(m.StripeDone(step, first, last, time.perf_counter() - started))
            case m.Evaluate(step, units, offsets):
                for unit, part in zip(units, _parts(offsets, sequences_per_shard), strict=True):
                    started = time.perf_counter()
                    loss_sum = computer.validation_unit(step, unit, part)
                    connection.send(m.UnitDone(step, unit, loss_sum, time.perf_counter() - started))
            case m.Stop():
                return


def _parts(offsets: m.Ints, size: int) -> list[m.Ints]:
    return [offsets[i : i + size] for i in range(0, len(offsets), size)]


def exit_if_orphaned(coordinator_pid: int) -> None:
    if os.getppid() != coordinator_pid:
        os._exit(1)


def die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the coordinator dies."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def connect(spec: WorkerSpec, recorder: Recorder | None) -> Connection:
    if recorder is None:
        return Connection(spec)
    from feste_dp.runtime.traced_worker import TracedConnection

    return TracedConnection(spec, recorder)


def make_computer(spec: WorkerSpec, arena: Arena, recorder: Recorder | None) -> ShardComputer:
    data = open_token_data(Path(spec.data_directory))
    if recorder is None:
        return ShardComputer(spec.shard, arena, data)
    from feste_dp.runtime.traced_worker import TracedShardComputer

    return TracedShardComputer(spec.shard, arena, data, recorder)


def main() -> int:
    spec = WorkerSpec.model_validate_json(sys.stdin.buffer.read())
    die_with_parent()
    exit_if_orphaned(spec.coordinator_pid)
    if spec.cpu is not None:
        os.sched_setaffinity(0, {spec.cpu})
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the coordinator decides when a run stops
    recorder = None if spec.trace is None else Recorder(spec.trace, f"worker {spec.worker}", 1 + spec.worker)
    connection = connect(spec, recorder)
    try:
        check_that_compiled_code_is_loaded()
        arena = Arena(spec.arena_fd, parameter_count(spec.shard.model), spec.shard.shards)
        computer = make_computer(spec, arena, recorder)
        serve(connection, computer, spec.shard.sequences_per_shard)
    except Exception as error:
        connection.report_failure(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
