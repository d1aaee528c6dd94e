"""Faults on request, so that tests of recovery are exact instead of timed. Does nothing unless asked.

FESTE_DP_FAULT holds faults separated by commas, each WHO:STEP:PLACE:ACTION[=SECONDS][:always], such as
`worker1:step3:reduce:kill` or `any:step5:shard2:nan:always`:

    WHO     worker1, any (whichever worker comes to the place), coordinator
    STEP    step3, or step* for the first step that comes to the place
    PLACE   of a worker: start, compute (before its first shard), shard2 (before that shard), computed (a
            shard is in its slot, not yet reported), reduce, reduced, evaluate, evaluated, wait (before it
            listens again)
            of the coordinator: compute, reduce, update, updated, evaluate, sample, save, saved
    ACTION  kill, stop (signals), segv, exit (status 3), raise, nan (the shard's gradient), slow=SECONDS

A fault happens once in the life of a process, and a worker's only in the first process of that number, so
that a worker started in its place is well; with `always`, every time and in every process.
"""

import os
import re
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass

from feste_dp.errors import UsageError

FAULT_VARIABLE = "FESTE_DP_FAULT"
COORDINATOR = "coordinator"
_WORKER_PLACES = r"start|compute|shard\d+|computed|reduce|reduced|evaluate|evaluated|wait"
_COORDINATOR_PLACES = r"compute|reduce|update|updated|evaluate|sample|save|saved"
_ACTIONS = r"kill|stop|segv|exit|raise|nan|slow=\d+(?:\.\d+)?"
_FORM = re.compile(
    rf"(?:(?P<who>worker\d+|any):(?P<step>step(?:\d+|\*)):(?P<place>{_WORKER_PLACES})"
    rf"|(?P<coordinator>{COORDINATOR}):(?P<at>step(?:\d+|\*)):(?P<where>{_COORDINATOR_PLACES}))"
    rf":(?P<action>{_ACTIONS})(?P<always>:always)?"
)


class InjectedFaultError(Exception):
    """What the action `raise` raises."""


@dataclass(frozen=True)
class Fault:
    who: str
    step: int | None
    place: str
    action: str
    always: bool


def parse_faults(text: str) -> tuple[Fault, ...]:
    """The faults of FESTE_DP_FAULT. Raises UsageError."""
    faults = []
    for part in filter(None, text.split(",")):
        found = _FORM.fullmatch(part)
        if found is None:
            raise UsageError(
                f"{FAULT_VARIABLE}: {part!r} is not WHO:STEP:PLACE:ACTION, such as worker1:step3:reduce:kill"
            )
        who = found["who"] or found["coordinator"]
        step = (found["step"] or found["at"]).removeprefix("step")
        place = found["place"] or found["where"]
        number = None if step == "*" else int(step)
        faults.append(Fault(who, number, place, found["action"], found["always"] is not None))
    return tuple(faults)


class Faults:
    """The faults of one process. `at` is called where one may happen."""

    def __init__(self, faults: Sequence[Fault], who: str, life: int = 0) -> None:
        """life counts the processes that had this worker's number before."""
        names = (who,) if who == COORDINATOR else (who, "any")
        self._waiting = [f for f in faults if f.who in names and (f.always or life == 0)]

    def at(self, place: str, step: int) -> bool:
        """Do what was asked for here; whether a NaN was."""
        asks_nan = False
        for fault in [f for f in self._waiting if f.place == place and f.step in (None, step)]:
            if not fault.always:
                self._waiting.remove(fault)
            asks_nan |= fault.action == "nan"
            _do(fault, step)
        return asks_nan

    def __bool__(self) -> bool:
        return bool(self._waiting)


NO_FAULTS = Faults((), COORDINATOR)


def _do(fault: Fault, step: int) -> None:
    match fault.action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "segv":
            signal.signal(signal.SIGSEGV, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGSEGV)
        case "exit":
            os._exit(3)
        case "raise":
            raise InjectedFaultError(f"asked for by {FAULT_VARIABLE} at {fault.place} of step {step}")
        case slow if slow.startswith("slow="):
            time.sleep(float(slow.removeprefix("slow=")))
