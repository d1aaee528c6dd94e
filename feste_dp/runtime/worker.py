"""One worker: a single-threaded process that computes shards, stripes and validation losses on request.

Knows its model, its data and the arena; nothing of optimizers, schedules, files or other workers. Started by
worker_boot.py, with its WorkerSpec on standard input.
"""

import contextlib
import os
import sys
import time
import traceback
from pathlib import Path

import zmq
from pydantic import BaseModel, ConfigDict

from feste_dp.data.order import Spacing
from feste_dp.data.tokens import HeldTokens, TokenData, held_token_data, open_token_data
from feste_dp.errors import RunError, UsageError
from feste_dp.model.parameters import parameter_count
from feste_dp.output import write_if_room
from feste_dp.runtime import messages as m
from feste_dp.runtime.arena import Arena
from feste_dp.runtime.faults import FAULT_VARIABLE, Faults, parse_faults
from feste_dp.runtime.frames import FrameReader
from feste_dp.runtime.letterbox import Letterbox
from feste_dp.runtime.own_code import own_code
from feste_dp.runtime.protocol import Phase, next_phase
from feste_dp.runtime.rehearsal import check_that_compiled_code_is_loaded
from feste_dp.runtime.shard_computer import ShardComputer, ShardSpec
from feste_dp.runtime.tracing import Recorder, TraceRequest, step_of

_PARENT_CHECK_MS = 1000
_OF_THE_MACHINE = (OSError, MemoryError, zmq.ZMQError, RunError, UsageError)
"""What is no fault of the program: what it says is enough, where it stood in the program is of no use."""
# Items that take less are reported together: each report wakes the coordinator, which has no core of its own.
_REPORT_EVERY_S = 0.02


class WorkerSpec(BaseModel):
    """All that a worker is told at its start."""

    model_config = ConfigDict(frozen=True, strict=True)

    worker: int
    life: int
    """How many processes had this number before."""
    coordinator_pid: int
    endpoint: str
    token: bytes
    arena_fd: int
    bell_fd: int
    """An eventfd that wakes the coordinator: something lies in a box of reports."""
    shard: ShardSpec
    data_directory: str
    tokens: HeldTokens | None
    """Those of the folder, open; None where they have to be opened."""
    cpu: int | None
    listen_s: float
    """How long the worker looks for its next order before it sleeps."""
    trace: TraceRequest | None = None

    @property
    def identity(self) -> bytes:
        return self.worker.to_bytes(2, "big") + self.life.to_bytes(4, "big")


class Connection:
    """The words' side of a worker: its socket and letterboxes, and the protocol as seen from here."""

    def __init__(self, spec: WorkerSpec, recorder: Recorder | None = None) -> None:
        self._spec, self._phase, self._recorder = spec, Phase.STARTING, recorder
        self._orders: Letterbox | None = None
        self._reports: Letterbox | None = None
        self._frames = FrameReader(spec.token, m.ORDERS, m.MAX_ORDER_BYTES, self._warn)
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.IDENTITY, spec.identity)
        self._socket.setsockopt(zmq.MAXMSGSIZE, m.MAX_FRAME_BYTES)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 5)
        self._socket.setsockopt(zmq.RCVTIMEO, _PARENT_CHECK_MS)
        self._socket.connect(spec.endpoint)

    def use(self, orders: Letterbox, reports: Letterbox) -> None:
        """From here on look for orders, and leave reports of work, in these boxes before the socket."""
        self._orders, self._reports = orders, reports
        orders.listen()

    def send(self, message: m.Message) -> None:
        started = time.perf_counter()
        self._phase = next_phase(self._phase, message)
        frame = m.encode(message)
        if self._reports is not None and isinstance(message, m.RESULTS) and self._reports.put(frame):
            os.eventfd_write(self._spec.bell_fd, 1)
        else:
            self._socket.send_multipart([self._spec.token, frame])
        if self._recorder is not None:
            self._recorder.sent(self._spec.worker, message, started, time.perf_counter())

    def receive(self) -> m.Message:
        """The next order; what is none is dropped. Exits when the coordinator is gone."""
        started = time.perf_counter()
        while True:
            message = self._message()
            try:
                self._phase = next_phase(self._phase, message)
            except m.ProtocolError as error:
                self._frames.drop(error)
                continue
            if self._recorder is not None:
                self._record(self._recorder, message, started)
            return message

    def _record(self, recorder: Recorder, message: m.Message, started: float) -> None:
        recorder.received(self._spec.worker, message, started, time.perf_counter(), "wait for")
        if recorder.is_past(step_of(message)) or isinstance(message, m.Stop):
            recorder.write()

    def _message(self) -> m.Message:
        if self._orders is not None:
            frame = self._orders.take(self._spec.listen_s)
            if frame is not None:
                return m.decode(frame)
        while True:
            try:
                frames = self._socket.recv_multipart()
            except zmq.Again:  # silence: is there still somebody to speak?
                exit_if_orphaned(self._spec.coordinator_pid)
                continue
            message = self._frames.read(frames)
            if message is not None:
                if self._orders is not None:
                    self._orders.listen()
                return message

    def _warn(self, line: str) -> None:
        write_if_room(2, f"warning: worker {self._spec.worker} {line}\n".encode(errors="backslashreplace"))

    def at(self, item: int) -> None:
        """Leave word of the item that this worker is at, for whoever asks what ended it."""
        if self._reports is not None:
            self._reports.item = item

    def report_failure(self, error: Exception) -> None:
        """Tell the coordinator why this worker ends, giving the message a second to leave."""
        reason, trace = f"{type(error).__name__}: {error}", traceback.format_exc()
        if isinstance(error, _OF_THE_MACHINE):
            reason, trace = str(error) or type(error).__name__, ""
        self._socket.setsockopt(zmq.LINGER, 1000)
        self.send(m.Failed(*(text.encode(errors="backslashreplace").decode() for text in (reason, trace))))
        zmq.Context.instance().destroy(linger=1000)


class _Done:
    """Items of an order that are done, and reported when they have taken a moment, or are the last."""

    def __init__(
        self,
        connection: Connection,
        report: type[m.ShardsDone | m.UnitsDone],
        step: int,
        first: int,
        last: int,
    ) -> None:
        self._connection, self._report, self._step = connection, report, step
        self._first, self._last = first, last
        self._losses: list[float] = []
        self._seconds = 0.0

    def add(self, loss_sum: float, seconds: float) -> None:
        losses = self._losses
        losses.append(loss_sum)
        self._seconds += seconds
        following = self._first + len(losses)
        if self._seconds < _REPORT_EVERY_S and len(losses) < m.MAX_LOSSES and following < self._last:
            return
        if following == self._last:
            self._connection.at(-1)
        self._connection.send(self._report(self._step, self._first, tuple(losses), self._seconds))
        self._first, self._losses, self._seconds = following, [], 0.0


def serve(
    connection: Connection, computer: ShardComputer, faults: Faults, recorder: Recorder | None = None
) -> None:
    """Follow orders until told to stop; the recorder is told when each piece of a traced step was done."""
    code = own_code()
    connection.send(m.Ready(os.getpid(), code.digest, code.place))
    while True:
        order = connection.receive()
        match order:
            case m.Compute(step, first, last, per_slot):
                faults.at("compute", step)
                if recorder is not None:
                    computer.time_kernels(recorder.wants(step))
                done = _Done(connection, m.ShardsDone, step, first, last)
                for number in range(first, last):
                    connection.at(number)
                    shard = computer.first_shard + number
                    nan = faults.at(f"shard{shard}", step) if faults else False
                    started = time.perf_counter()
                    loss_sum = computer.shard(step, number, per_slot)
                    seconds = time.perf_counter() - started
                    if recorder is not None and recorder.wants(step):
                        recorder.slice(
                            f"shard {shard}", "phase", started, started + seconds, step=step, shard=shard
                        )
                        recorder.kernels(computer.kernel_times(), computer.layers)
                    if nan:
                        computer.spoil()
                    faults.at("computed", step)
                    done.add(loss_sum, seconds)
            case m.Reduce(step, first, last, slots):
                faults.at("reduce", step)
                started = time.perf_counter()
                computer.stripe(first, last, slots)
                seconds = time.perf_counter() - started
                if recorder is not None:
                    stripe = f"sum chunks {first} to {last - 1}"
                    recorder.phases(step, {stripe: (started, started + seconds)})
                faults.at("reduced", step)
                connection.send(m.StripeDone(step, first, last, seconds))
            case m.Evaluate():
                faults.at("evaluate", order.step)
                _evaluate(order, connection, computer, faults, recorder)
            case m.Stop():
                return
            case _:
                raise m.ProtocolError(f"{type(order).__name__} is not an order")
        faults.at("wait", order.step)


def _evaluate(
    order: m.Evaluate,
    connection: Connection,
    computer: ShardComputer,
    faults: Faults,
    recorder: Recorder | None,
) -> None:
    spacing = Spacing(order.span, order.gaps)
    done = _Done(connection, m.UnitsDone, order.step, order.first, order.last)
    for unit in range(order.first, order.last):
        connection.at(unit)
        started = time.perf_counter()
        loss_sum = computer.validation_unit(order.step, order.start + unit, spacing)
        ended = time.perf_counter()
        if recorder is not None:
            recorder.phases(order.step, {f"validation {unit}": (started, ended)})
        faults.at("evaluated", order.step)
        done.add(loss_sum, ended - started)


def exit_if_orphaned(coordinator_pid: int) -> None:
    if os.getppid() != coordinator_pid:
        os._exit(1)


def _token_data(spec: WorkerSpec) -> TokenData:
    held = spec.tokens
    return open_token_data(Path(spec.data_directory)) if held is None else held_token_data(held)


def _yield_to_coordinator() -> None:
    """A worker that is woken must not push the coordinator off its core before that has woken the others.
    Where the user chose another policy, such as SCHED_IDLE, that stays."""
    with contextlib.suppress(OSError):
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def work() -> int:
    """The life of a worker; returns its exit status."""
    told = sys.stdin.buffer.read()
    if not told:  # the coordinator ended, or let this worker go, before it said what there is to do
        return 1
    spec = WorkerSpec.model_validate_json(told)
    if spec.cpu is not None:
        with contextlib.suppress(OSError):  # the set of allowed CPUs has changed: slower, not wrong
            os.sched_setaffinity(0, {spec.cpu})
    faults = Faults(parse_faults(os.environ.get(FAULT_VARIABLE, "")), f"worker{spec.worker}", spec.life)
    recorder = None if spec.trace is None else Recorder(spec.trace, f"worker {spec.worker}", 1 + spec.worker)
    connection = Connection(spec, recorder)
    _yield_to_coordinator()
    try:
        faults.at("start", 0)
        check_that_compiled_code_is_loaded()
        arena = Arena(spec.arena_fd, parameter_count(spec.shard.model), spec.shard.block.count)
        connection.use(Letterbox(arena.orders[spec.worker]), Letterbox(arena.reports[spec.worker]))
        computer = ShardComputer(spec.shard, arena, _token_data(spec))
        serve(connection, computer, faults, recorder)
    except Exception as error:
        connection.report_failure(error)
        return 1
    return 0
