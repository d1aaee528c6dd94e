"""How signals end a run: first politely, then at once. Knows nothing of what there is to save.

Before there is anything to save, every signal that asks to stop ends the program at once, as interruption.py
does. After `defer()` the first one only asks, and the loop saves and exits with 128 + the signal's number.
How soon depends on what the loop is at:

- computing a gradient: Ctrl-C lets the step finish; the others (a supervisor's SIGTERM, SIGHUP when the
  terminal was closed, SIGXCPU at the limit of CPU time, SIGUSR2 before a batch system kills) give it up,
  which leaves the weights of the step before. So a hung worker or a long step cannot use up the time that is
  allowed.
- measuring (validation, sample): every one of them gives it up; a resumed run measures again.

To give up is to raise Abandoned from the handler, in those two sections and nowhere else. A second one ends
the program at once, wherever it is, but for SIGHUP and SIGXCPU. SIGUSR1 asks for a save and nothing else.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from feste_dp import interruption
from feste_dp.interruption import NEVER_INSIST, STOP_SIGNALS, RaisedBySignal
from feste_dp.output import write_if_room

STOPPING = "stopping after this step; press Ctrl-C again to stop now"
STOPPING_AT_ONCE = "stopping: saving the last finished step"

REPEAT_S = 0.1
"""A copy of the same signal within this time is not a second request: a wrapper that forwards Ctrl-C to a
process that the terminal has signalled too makes two out of one, a few milliseconds apart."""

MEASURING_GIVES_UP = frozenset(STOP_SIGNALS)
COMPUTING_GIVES_UP = MEASURING_GIVES_UP - {signal.SIGINT}
_CPU_LIMIT = " (the limit of CPU time, ulimit -t)"
_NONE: frozenset[int] = frozenset()


class Abandoned(RaisedBySignal):
    """Give up what is being computed, then save and stop."""


def write_notice(text: str) -> None:
    """Writes a line to standard error where somebody reads it, by the descriptor: a handler may run in the
    middle of a print, and Python's streams refuse to be entered twice."""
    write_if_room(2, f"\n{text}\n".encode())


def _notice_for(signum: int) -> str:
    if signum == signal.SIGINT:
        return STOPPING
    if signum in (signal.SIGTERM, signal.SIGHUP):
        return STOPPING_AT_ONCE
    return f"{described(signum)}: {STOPPING_AT_ONCE}"


def described(signum: int) -> str:
    """A signal in words: "SIGXCPU (the limit of CPU time, ulimit -t)"."""
    return signal.Signals(signum).name + (_CPU_LIMIT if signum == signal.SIGXCPU else "")


class StopSignals:
    """Handles STOP_SIGNALS and SIGUSR1 while entered, in the main thread; then restores the
    handlers.

    A signal that was ignored at the start (nohup, a shell's background job) stays ignored. `notice` runs
    inside the handler: it must not use a buffered stream.
    """

    def __init__(
        self,
        notice: Callable[[str], None] = write_notice,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stop_signal: int | None = None
        """The first signal that asked to stop, once deferred."""
        self.save_requested = False
        self._notice = notice
        self._clock = clock
        self._deferred = False
        self._passed_on: int | None = None
        """One that is sent by this process, for another machine was asked to stop."""
        self._insistent: int | None = None
        """The first that insists; after one more there is no waiting."""
        self._asked_at = 0.0
        self._gives_up = _NONE
        """Signals that end the section entered now."""
        self._save_at_once: Callable[[], None] | None = None
        self._old: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether the loop should finish its step, save and exit."""
        return self.stop_signal is not None

    @property
    def exit_status(self) -> int:
        """The exit status once the run has stopped: 130, 143 or 129, or 0 when nothing asked it to."""
        return 0 if self.stop_signal is None else 128 + self.stop_signal

    def mute(self) -> None:
        """From now on signals are obeyed without a word."""
        self._notice = lambda text: None

    def defer(self) -> None:
        """From now on the first signal only asks: there is something to save. Raises Interrupted where one
        came before and was lost."""
        interruption.check()
        self._deferred = True

    def adopt(self, signum: int) -> None:
        """Stop as if this signal had come, where none has: another machine of the run was asked to. The first
        that comes here is no second one."""
        if self.stop_signal is None:
            self.stop_signal = signum

    def pass_on(self, signum: int) -> None:
        """As adopt, in whichever thread, and at once: what the main thread is at is given up."""
        if self.stop_signal is None:
            self._passed_on = signum
            os.kill(os.getpid(), signum)

    def take_save_request(self) -> bool:
        """Whether SIGUSR1 came since the last call."""
        requested, self.save_requested = self.save_requested, False
        return requested

    def computing(self) -> contextlib.AbstractContextManager[None]:
        """While a gradient is computed: Abandoned comes for all but Ctrl-C."""
        return self._section(COMPUTING_GIVES_UP, None)

    def measuring(self, save: Callable[[], None]) -> contextlib.AbstractContextManager[None]:
        """While a loss is measured or a sample drawn: Abandoned comes for every request to stop, made before
        or now. SIGUSR1 calls save() at once, inside the handler."""
        return self._section(MEASURING_GIVES_UP, save)

    @contextlib.contextmanager
    def shielded(self) -> Iterator[None]:
        """Within a section: what several nodes finish together, or none does. What came meanwhile gives up
        afterwards."""
        gives_up, self._gives_up = self._gives_up, _NONE
        yield
        self._gives_up = gives_up
        self._give_up(self.stop_signal)

    @contextlib.contextmanager
    def _section(self, gives_up: frozenset[int], save: Callable[[], None] | None) -> Iterator[None]:
        self._gives_up, self._save_at_once = gives_up, save
        try:
            self._give_up(self.stop_signal)
            yield
        finally:
            self._gives_up, self._save_at_once = _NONE, None

    def __enter__(self) -> "StopSignals":
        interruption.start_anew()
        handlers = dict.fromkeys(STOP_SIGNALS, self._receive) | {signal.SIGUSR1: self._save}
        for signum, handler in handlers.items():
            # None: set by something other than Python, which could not be restored
            if signal.getsignal(signum) not in (signal.SIG_IGN, None):
                self._old[signum] = signal.signal(signum, handler)
        return self

    def __exit__(self, *raised: object) -> None:
        while self._old:
            signum, old = self._old.popitem()
            signal.signal(signum, old)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        interruption.receive(signum, self._stop)

    def _stop(self, signum: int) -> None:
        now = self._clock()
        was_passed_on, self._passed_on = signum == self._passed_on, None
        if not self._deferred:
            interruption.interrupt(signum)
            return
        if self.stop_signal is None:
            self.stop_signal = signum
            self._notice(_notice_for(signum))
        if signum not in NEVER_INSIST and not was_passed_on:
            if self._insistent is None:
                self._insistent, self._asked_at = signum, now
            elif signum != self._insistent or now - self._asked_at >= REPEAT_S:
                interruption.interrupt(signum)
                return
        self._give_up(signum)

    def _give_up(self, signum: int | None) -> None:
        if signum in self._gives_up:
            raise Abandoned(lambda: self._give_up(signum))

    def _save(self, signum: int, frame: FrameType | None) -> None:
        save, gives_up = self._save_at_once, self._gives_up
        if save is None:
            self.save_requested = True
            return
        # a save is not to be torn, nor entered twice
        self._save_at_once, self._gives_up = None, _NONE
        save()
        self._save_at_once, self._gives_up = save, gives_up
        self._give_up(self.stop_signal)
