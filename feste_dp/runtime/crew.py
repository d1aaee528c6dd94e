"""The worker processes of a run and the words exchanged with them: start, speak, listen, watch, bury.

Knows numbers, phases and process handles of workers; nothing of steps, shards or what a loss means for the
run (the coordinator's), nor when to replace whom (supervision.py's).
"""

import contextlib
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import zmq

from feste_dp.errors import RunError
from feste_dp.files.descriptors import check_free, spare
from feste_dp.interruption import held
from feste_dp.kernels.handover import FULL
from feste_dp.machine.oom import KillCount, explain_end
from feste_dp.runtime import messages as m
from feste_dp.runtime.arena import Arena
from feste_dp.runtime.frames import FrameReader
from feste_dp.runtime.letterbox import Letterbox
from feste_dp.runtime.own_code import own_code
from feste_dp.runtime.protocol import Phase, next_phase
from feste_dp.runtime.router import Router
from feste_dp.runtime.tracing import Recorder
from feste_dp.runtime.worker import WorkerSpec
from feste_dp.runtime.worker_process import WorkerProcess, start_worker

_STOP_TIMEOUT_S = 5.0
_LAST_WORDS_MS = 100  # from the exit of a worker that says why it ends to the arrival of what it said


@dataclass(frozen=True)
class Said:
    """A worker's report."""

    worker: int
    message: m.Message


@dataclass(frozen=True)
class Joined:
    """A worker is ready for its first order."""

    worker: int


@dataclass(frozen=True)
class Lost:
    """A worker has ended that was not asked to, and is reaped: nothing of it writes any more."""

    worker: int
    pid: int
    end: str
    """How it ended: "was killed by SIGKILL"."""
    was_ready: bool
    item: int = -1
    """The item that it was at, -1 where it was at none: see letterbox.py."""
    is_other_code: bool = False
    """It was another program than the coordinator, and so would any other be that is started now."""
    reason: str = ""
    """What the worker said of it, in one line, where it could; and its traceback."""
    trace: str = ""


Event: TypeAlias = Said | Joined | Lost


@dataclass
class Member:
    """A worker as the coordinator knows it."""

    spec: WorkerSpec
    process: WorkerProcess
    orders: Letterbox
    reports: Letterbox
    heard_at: float
    """When it last said something, or was given work while it had none; time.monotonic()."""
    joined: bool = False
    phase: Phase = Phase.STARTING
    failure: m.Failed | None = None
    killed_for: str | None = None
    """Why the coordinator itself ended it."""
    is_other_code: bool = False


class Crew:
    """The workers by number. All methods belong to the main thread."""

    def __init__(
        self,
        make_spec: Callable[[int, int, str, bytes, int], WorkerSpec],
        arena: Arena,
        environ: Mapping[str, str],
        recorder: Recorder | None = None,
    ) -> None:
        """make_spec gives a worker's spec from its number, how many had it before, endpoint, token, bell."""
        self._make_spec, self._arena, self._environ = make_spec, arena, environ
        self._recorder = recorder
        self._token = secrets.token_hex(16).encode()
        self.members: dict[int, Member] = {}
        self.inherited: tuple[int, ...] = ()
        """Further descriptors that the specs speak of."""
        self.code: Path | None = None
        """Where the compiled code lies, if not where this process has it from."""
        self._borrows = False
        self._lives: dict[int, int] = {}
        self._router, self._by_end = Router(m.MAX_FRAME_BYTES), dict[int, int]()
        self._early: deque[Event] = deque()
        self._kill_count = KillCount.now()
        self._frames = FrameReader(self._token, m.REPORTS, m.MAX_FRAME_BYTES, lambda line: self.tell(line))
        self.tell: Callable[[str], None] = lambda line: None
        """Takes a line on frames that were dropped, once a minute at most."""

        self.look: Callable[[], None] = lambda: None
        """Called when the bell was rung; it may raise."""

    def ring(self) -> None:
        """Have look() called soon, where this is waited for; any thread may."""
        self._router.ring()

    @property
    def dropped_frames(self) -> int:
        return self._frames.dropped

    def hire(self, numbers: Iterable[int]) -> None:
        """Start workers with these numbers; each joins when it is ready. Raises RunError, UsageError."""
        with held:  # a process that is started is either a member or has ended
            # until they are in: ZeroMQ aborts where it has no descriptor for one. Not for the first, whose
            # start would leave high numbers for the reserve, of no use below a limit that is set later
            if self._lives and not self._borrows:
                spare.lend()
                self._borrows = True
            try:
                self._hire(numbers)
            finally:
                self._take_back()

    def _take_back(self) -> None:
        if self._borrows and not self.starting():
            self._borrows = False
            spare.take_back()

    def _hire(self, numbers: Iterable[int]) -> None:
        door, bell = self._router.open(), self._router.bell
        descriptors = (self._arena.fd, bell, *door.descriptors, *self.inherited)
        started: list[WorkerProcess] = []
        try:
            for worker in numbers:
                started.append(start_worker(worker, descriptors, self._environ, self.code))
            _check_free(len(started) + len(self.starting()))
        except BaseException:
            for process in started:
                process.kill()
                process.close()
            raise
        for process in started:
            worker = process.worker
            life = self._lives.get(worker, 0)
            spec = self._make_spec(worker, life, door.endpoint, self._token, bell)
            self._lives[worker] = spec.life + 1
            orders, reports = Letterbox(self._arena.orders[worker]), Letterbox(self._arena.reports[worker])
            orders.clear()
            reports.listen()
            reports.item = -1
            self.members[worker] = Member(spec, process, orders, reports, time.monotonic())
            self._router.watch(process.ended)
            self._by_end[process.ended] = worker
            process.tell(spec)

    def ready(self) -> list[int]:
        """The numbers of the workers that can be given work, in order."""
        return sorted(
            worker
            for worker, member in self.members.items()
            if member.phase not in (Phase.STARTING, Phase.FAILED, Phase.STOPPED)
        )

    def starting(self) -> list[int]:
        """The numbers of the workers that have not been ready yet, also of one that said why and will end."""
        return sorted(worker for worker, member in self.members.items() if not member.joined)

    def pids(self) -> list[int]:
        return [self.members[worker].process.pid for worker in sorted(self.members)]

    def send(self, worker: int, message: m.Message) -> None:
        """Give a worker an order: into its letterbox where it looks there, else through the socket."""
        started = time.perf_counter()
        member = self.members[worker]
        member.phase = next_phase(member.phase, message)
        frame = m.encode(message)
        if not member.orders.put(frame):
            # where the peer is gone, its process handle says so at the next wait; an exception that a signal
            # raises in between would leave half a message in the socket
            with held, contextlib.suppress(zmq.ZMQError):
                self._router.send([member.spec.identity, self._token, frame])
        if self._recorder is not None:
            self._recorder.sent(worker, message, started, time.perf_counter())

    def wait(self, deadline: float) -> Event | None:
        """What happens next; None when nothing has by the deadline, a time.monotonic().

        Words come before the end of who said them.
        """
        started = time.perf_counter()
        event = self._next_event(deadline)
        if self._recorder is not None and isinstance(event, Said):
            self._recorder.received(event.worker, event.message, started, time.perf_counter())
        return event

    def _next_event(self, deadline: float) -> Event | None:
        while True:
            if not self._early:
                self._hear_all()
            if self._early:
                return self._early.popleft()
            remaining = deadline - time.monotonic()
            said, ended = self._router.wait(max(0, int(remaining * 1000) + 1))
            if said:
                self.look()
                continue
            if ended is not None:
                self._hear_all()  # one that was killed after it left its report may not have rung
                if not self._early:
                    return self._bury(self._by_end[ended])
                continue
            if remaining <= 0:
                return None

    def kill(self, worker: int, why: str) -> None:
        """End a worker now; its loss comes out of wait()."""
        member = self.members[worker]
        member.killed_for = why
        member.process.signal_kill()

    def dismiss(self, numbers: Iterable[int]) -> None:
        """Ask these workers to end, wait until they have, and forget them."""
        leaving = [worker for worker in numbers if worker in self.members]
        for worker in leaving:
            if self.members[worker].phase is not Phase.FAILED:
                self.send(worker, m.Stop())
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        for worker in leaving:
            process = self.members[worker].process
            while process.process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.005)
            process.kill()
            self._forget(worker)

    def close(self, *, at_once: bool) -> None:
        """End the workers: ask first unless `at_once`, kill what is left, reap all, remove the socket."""
        try:
            if not at_once:
                self.dismiss(sorted(self.members))
        finally:  # a second Ctrl-C cuts the waiting short, not the tidying up
            with held:
                self._tidy_up()

    def _tidy_up(self) -> None:
        for member in self.members.values():
            member.process.signal_kill()
        for worker in list(self.members):
            self.members[worker].process.kill()
            self._forget(worker)
        self._router.close()

    def _bury(self, worker: int) -> Lost:
        """Reap a worker that has ended and forget it."""
        member = self.members[worker]
        status = member.process.wait()
        if status == 1 and self._router.has_more(_LAST_WORDS_MS):
            self._hear_all()  # it said why, but the words took longer than the exit
        self._forget(worker)
        said = member.failure or m.Failed("", "")
        return Lost(
            worker,
            member.process.pid,
            member.killed_for
            or explain_end(status, self._kill_count.risen_to(KillCount.now()), len(self.members) + 1),
            member.joined,
            member.reports.item,
            member.is_other_code,
            said.reason,
            said.trace,
        )

    def _hear_all(self) -> None:
        """Take in what was left in boxes, then what came through the socket: asking the poller takes longer
        than reading."""
        # one look at all words at once: 2 us for 256 boxes, which took 100 one by one
        for worker in (self._arena.report_words == FULL).nonzero()[0].tolist():
            member = self.members.get(worker)
            frame = None if member is None else member.reports.collect()
            if member is not None and frame is not None:
                self._hear(member.spec.identity, [self._token, frame])
        for identity, *frames in self._router.waiting():
            self._hear(identity, frames)

    def _forget(self, worker: int) -> None:
        member = self.members.pop(worker)
        self._early = deque(event for event in self._early if event.worker != worker)
        self._router.forget(member.process.ended)
        del self._by_end[member.process.ended]
        member.process.close()
        self._take_back()

    def _hear(self, identity: bytes, frames: list[bytes]) -> None:
        """Take in what a worker said; drop, and count, what is not of this run or of a worker of before."""
        worker = int.from_bytes(identity[:2], "big")
        member = self.members.get(worker)
        message = self._frames.read(frames)
        if message is None:
            return
        try:
            if member is None or identity != member.spec.identity:
                raise m.ProtocolError("from a worker that has ended")
            member.phase = next_phase(member.phase, message)
        except m.ProtocolError as error:
            self._frames.drop(error)
            return
        member.heard_at = time.monotonic()
        if isinstance(message, m.Failed):
            member.failure = message  # it ends next
        elif isinstance(message, m.Ready) and message.code != own_code().digest:
            member.phase, member.is_other_code = Phase.FAILED, True
            own, other = own_code().place, f"runs {message.place}, which"
            changed = f"{other} was changed since this run started"
            self.kill(worker, changed if message.place == own else f"{other} is not the program of {own}")
        elif isinstance(message, m.Ready):
            member.joined = True
            self._take_back()
            self._early.append(Joined(worker))
        else:
            self._early.append(Said(worker, message))


def _check_free(connections: int) -> None:
    try:
        check_free(connections)
    except OSError as error:
        raise RunError(f"no further worker could be started: {error.strerror}") from None
