"""Gets every piece of a phase done, whatever happens to the workers meanwhile.

Deals the pieces out, hands on what a lost worker left undone, has it replaced, and looks for those that are
silent. Knows nothing of what a piece is.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from feste_dp.errors import RunError
from feste_dp.files.descriptors import spare
from feste_dp.runtime import messages as m
from feste_dp.runtime.crew import Crew, Event, Joined, Lost, Said
from feste_dp.runtime.ledger import Ledger, numbers_of
from feste_dp.runtime.results import read_report
from feste_dp.runtime.supervision import Patience, Supervision, Vacancies

START_TIMEOUT_S = 300.0
NO_WORKER_S = 30.0
"""How long a run without any worker goes on trying to start one."""

Kind = Literal["lost", "joined", "left", "slow", "back", "dropped"]


@dataclass(frozen=True)
class Notice:
    """Something happened to a worker that people want to know; it changes no result."""

    kind: Kind
    worker: int
    """-1 where it was no worker's doing."""
    text: str
    trace: str = ""


@dataclass(frozen=True)
class Task:
    """A phase of a step: its name, what an item is called, how it is ordered and reported."""

    phase: str
    step: int
    item: str
    report: type[m.Message]
    order: Callable[[int, int], m.Message]
    """That for items first .. last - 1."""
    first: int = 0
    """What people know item 0 as: here may be the later ones of a batch."""

    @property
    def where(self) -> str:
        return f"{self.phase} of step {self.step}"


class Gathering:
    """What is done about the workers of a crew while their work is waited for."""

    def __init__(self, crew: Crew, workers: int, timeout_s: float, notify: Callable[[Notice], None]) -> None:
        """A worker that says nothing for timeout_s is held to be stuck."""
        self._crew, self._timeout, self.notify = crew, timeout_s, notify
        self._supervision, self._patience = Supervision(workers), Patience()
        self._vacancies = Vacancies()
        self._alone_since: float | None = None
        self._wanted = workers
        self._called_slow: dict[int, float] = {}
        self.before_hiring: Callable[[], None] = lambda: None
        """Called before a worker is started later than the first: what it needs may have been removed."""
        self.check: Callable[[], None] = lambda: None
        """Called when a piece of work is done or a worker lost; raises RunError where no other would do
        better."""
        crew.tell = lambda line: self.notify(Notice("dropped", -1, line))

    def start(self) -> None:
        """Start the workers and wait until all are ready. Raises RunError where none can be started."""
        self._crew.hire(range(self._wanted))
        while self._crew.starting():
            event = self._crew.wait(self._start_deadline())
            if isinstance(event, Lost) and event.is_other_code:
                raise _run_error(_described(event, "start-up"), event)
            self._take_in(event)
        if not self._crew.members:
            raise RunError("no worker could be started")

    def resize(self, workers: int) -> None:
        """Have so many workers from here on; new ones join when they are ready. Not while gathering.

        Raises RunError, with nothing changed, where one cannot be started.
        """
        missing = [worker for worker in range(workers) if worker not in self._crew.members]
        if missing:
            self._hire(missing)
        self._wanted, self._supervision = workers, Supervision(workers)
        self._vacancies.clear()
        self._crew.dismiss([worker for worker in sorted(self._crew.members) if worker >= workers])

    def tend(self) -> None:
        """Take in what has happened meanwhile, without waiting: for the times between phases."""
        while (event := self._crew.wait(0.0)) is not None:
            self._take_in(event)
        self._fill_vacancies()

    def step_done(self) -> None:
        self._supervision.step_done()

    def gather(self, ledger: Ledger, task: Task) -> None:
        """Wait until every item is done. Raises RunError where the run cannot go on."""
        self._deal(ledger, task)
        look_at: float | None = None
        while not ledger.complete:
            self._fill_vacancies()
            # a report only puts off the moment at which its worker has been silent for long: many need one
            # look at all workers, not one each
            if look_at is None or math.isfinite(self._vacancies.next_try):
                look_at = self._next_look(ledger, task)
            event = self._crew.wait(look_at)
            if not isinstance(event, Said) or self._called_slow:
                look_at = None
            if isinstance(event, Said) and isinstance(event.message, task.report):
                step, report = read_report(event.message)
                if (
                    step == task.step
                    and ledger.done(event.worker, *report)
                    and self._patience.done(task.phase, report.seconds)
                ):
                    look_at = None
            self._take_in(event, ledger, task)
            if self._deal(ledger, task):
                look_at = None
        self.check()

    def _deal(self, ledger: Ledger, task: Task) -> bool:
        """Give what nobody holds to whoever has nothing to do; whether anybody was given anything."""
        idle = (
            [worker for worker in self._crew.ready() if not ledger.holds(worker)] if ledger.has_free else []
        )
        if not idle:
            return False
        for worker, run in ledger.deal(idle, self._wanted).items():
            self._crew.members[worker].heard_at = time.monotonic()
            self._crew.send(worker, task.order(*run))
        return True

    def _take_in(
        self,
        event: Event | None,
        ledger: Ledger | None = None,
        task: Task | None = None,
    ) -> None:
        """What an event means for the crew. Raises RunError where the run cannot go on."""
        match event:
            case Joined(worker):
                self._supervision.ready(worker)
                self._vacancies.ready(worker)
                if self._crew.members[worker].spec.life > 0:
                    self._tell("joined", worker, f"worker {worker} is ready")
            case Lost():
                self._replace(event, ledger, task)
            case Said(worker) if worker in self._called_slow:
                seconds = time.monotonic() - self._called_slow.pop(worker)
                self._tell("back", worker, f"worker {worker} is back after {seconds:.1f} s")
            case None:
                self._end_late_starts()
                if ledger is not None and task is not None:
                    self._look_for_silence(ledger, task)

    def _replace(self, lost: Lost, ledger: Ledger | None, task: Task | None) -> None:
        """Free what a lost worker held, and start another unless that has failed too often."""
        self.check()
        self._called_slow.pop(lost.worker, None)
        at = None if ledger is None else ledger.unfinished(lost.worker, lost.item)
        undone = [] if ledger is None else ledger.release(lost.worker)
        where = "start-up" if not lost.was_ready else task.where if task is not None else "the wait for work"
        text = _described(lost, where)
        suspect = None
        if undone and task is not None:
            suspect = f"{task.item} {at if at is None else task.first + at}"
            known_as = [(task.first + first, task.first + stop) for first, stop in undone]
            text += f"; to be done again: {task.item} {numbers_of(known_as)}"
        verdict = self._supervision.lost(lost.worker, where, suspect, was_ready=lost.was_ready)
        if verdict.end is not None:
            raise _run_error(f"{verdict.end}, the last of them: {text}", lost)
        if verdict.replace and lost.worker < self._wanted and not lost.is_other_code:
            self._tell("lost", lost.worker, f"{text}; another is started", lost.trace)
            try:
                return self._hire([lost.worker])
            except RunError as error:
                self._vacancies.failed(lost.worker, time.monotonic())
                without = "; going on without it" if self._crew.members else ""
                line = f"{error} in the place of one that {lost.end}{without}; it is tried again"
                return self._tell("left", lost.worker, line)
        if not lost.was_ready and self._crew.ready() and lost.worker < self._wanted:
            self._vacancies.failed(lost.worker, time.monotonic())
            line = f"{text}; going on without it; it is tried again"
            return self._tell("left", lost.worker, line, lost.trace)
        if not self._crew.members and not math.isfinite(self._vacancies.next_try):
            raise _run_error(f"{text}; no worker is left, and too many were lost to start more", lost)
        self._tell("left", lost.worker, f"{text}; going on without it", lost.trace)

    def _hire(self, workers: Sequence[int]) -> None:
        """Raises RunError where one cannot be started, whatever it lacks."""
        try:
            with spare.lent():
                self.before_hiring()
                self._crew.hire(workers)
        except RunError:
            raise
        except Exception as error:
            names = ", ".join(map(str, workers))
            raise RunError(f"worker {names} could not be started: {error}") from error

    def _fill_vacancies(self) -> None:
        """Try again where no worker could be started. Raises RunError when there has been none for long, and
        where none is to come."""
        if not math.isfinite(self._vacancies.next_try):
            if not self._crew.members:
                raise RunError("no worker is left, and too many were lost to start more")
            return
        now = time.monotonic()
        if self._crew.members:
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = now
        for worker in self._vacancies.due(now):
            try:
                self._hire([worker])
                self._vacancies.fill(worker)
            except RunError as error:
                self._vacancies.failed(worker, now)
                alone_s = 0.0 if self._alone_since is None else now - self._alone_since
                if alone_s > NO_WORKER_S:
                    raise RunError(
                        f"no worker is left, and none has come for {alone_s:.0f} s: {error}"
                    ) from None

    def _next_look(self, ledger: Ledger, task: Task) -> float:
        """When a silence becomes worth a look, a time.monotonic()."""
        deadlines = [self._vacancies.next_try]
        if self._crew.starting():
            deadlines.append(self._start_deadline())
        for worker, member in self._crew.members.items():
            if ledger.holds(worker):
                slow = worker in self._called_slow
                deadlines.append(member.heard_at + (self._timeout if slow else self._slow_after(task)))
        return min(*deadlines, time.monotonic() + START_TIMEOUT_S)

    def _end_late_starts(self) -> None:
        for worker in self._crew.starting():
            if time.monotonic() - self._crew.members[worker].heard_at > START_TIMEOUT_S:
                self._crew.kill(worker, f"was not ready within {START_TIMEOUT_S:g} s, and was killed")

    def _look_for_silence(self, ledger: Ledger, task: Task) -> None:
        """Name who is slow, and end who is silent for too long: the loss comes next, handled as any."""
        for worker, member in self._crew.members.items():
            silent = time.monotonic() - member.heard_at
            if not ledger.holds(worker):
                continue
            if silent > self._timeout:
                self._crew.kill(
                    worker, f"gave no answer within {self._timeout:g} s (run.step_timeout_s), and was killed"
                )
            elif silent > self._slow_after(task) and worker not in self._called_slow:
                self._called_slow[worker] = member.heard_at
                self._tell(
                    "slow",
                    worker,
                    f"worker {worker} (pid {member.process.pid}) has said nothing for {silent:.1f} s in "
                    f"{task.where}; after {self._timeout:g} s (run.step_timeout_s) it is killed",
                )

    def _slow_after(self, task: Task) -> float:
        return min(self._patience.seconds(task.phase), self._timeout)

    def _start_deadline(self) -> float:
        """When the first of those that start is late."""
        members = self._crew.members
        return min(members[worker].heard_at for worker in self._crew.starting()) + START_TIMEOUT_S

    def _tell(self, kind: Kind, worker: int, text: str, trace: str = "") -> None:
        self.notify(Notice(kind, worker, text, trace))


def _described(lost: Lost, where: str) -> str:
    reason = f": {lost.reason}" if lost.reason else ""
    return f"worker {lost.worker} (pid {lost.pid}) {lost.end} during {where}{reason}"


def _run_error(text: str, lost: Lost) -> RunError:
    error = RunError(text)
    if lost.trace:
        error.add_note(lost.trace)
    return error
