"""How signals end a run: first politely, then at once. Knows nothing of what there is to save.

Before there is anything to save, SIGINT (Ctrl-C), SIGTERM and SIGHUP (the terminal was closed) end the
program at once. After `defer()` the first one only asks, and the loop saves and exits with 128 + the signal's
number. How soon depends on what the loop is at:

- computing a gradient: Ctrl-C lets the step finish; SIGTERM and SIGHUP give it up, which leaves the weights
  of the step before. So a hung worker or a long step cannot use up the time that a supervisor allows.
- measuring (validation, sample): every one of them gives it up; a resumed run measures again.

To give up is to raise Abandoned from the handler, in those two sections and nowhere else. A second SIGINT or
SIGTERM ends the program at once, wherever it is. SIGUSR1 asks for a save and nothing else.
"""

import contextlib
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from feste_dp.output import write_if_room

STOPPING = "stopping after this step; press Ctrl-C again to stop now"
STOPPING_AT_ONCE = "stopping: saving the last finished step"

REPEAT_S = 0.1
"""A copy of the same signal within this time is not a second request: a wrapper that forwards Ctrl-C to a
process that the terminal has signalled too makes two out of one, a few milliseconds apart."""

STOP_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
GIVES_UP_A_STEP = frozenset({signal.SIGTERM, signal.SIGHUP})
_NONE: frozenset[signal.Signals] = frozenset()


class Interrupted(BaseException):
    """Stop now. Not an Exception, so that no handler for errors swallows it."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum

    @property
    def exit_status(self) -> int:
        """130 after SIGINT, 143 after SIGTERM, 129 after SIGHUP."""
        return 128 + self.signum


class Abandoned(BaseException):
    """Give up what is being computed, then save and stop."""


def write_notice(text: str) -> None:
    """Writes a line to standard error where somebody reads it, by the descriptor: a handler may run in the
    middle of a print, and Python's streams refuse to be entered twice."""
    write_if_room(2, f"\n{text}\n".encode())


class StopSignals:
    """Handles SIGINT, SIGTERM, SIGHUP and SIGUSR1 while entered, in the main thread; then restores the
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
        self._insistent: int | None = None
        """The first SIGINT or SIGTERM; after one more there is no waiting."""
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

    def defer(self) -> None:
        """From now on the first signal only asks: there is something to save."""
        self._deferred = True

    def take_save_request(self) -> bool:
        """Whether SIGUSR1 came since the last call."""
        requested, self.save_requested = self.save_requested, False
        return requested

    def computing(self) -> contextlib.AbstractContextManager[None]:
        """While a gradient is computed: Abandoned comes for SIGTERM and SIGHUP."""
        return self._section(GIVES_UP_A_STEP, None)

    def measuring(self, save: Callable[[], None]) -> contextlib.AbstractContextManager[None]:
        """While a loss is measured or a sample drawn: Abandoned comes for every request to stop, made before
        or now. SIGUSR1 calls save() at once, inside the handler."""
        return self._section(STOP_SIGNALS, save)

    @contextlib.contextmanager
    def _section(
        self, gives_up: frozenset[signal.Signals], save: Callable[[], None] | None
    ) -> Iterator[None]:
        self._gives_up, self._save_at_once = gives_up, save
        try:
            if self.stop_signal in gives_up:
                raise Abandoned
            yield
        finally:
            self._gives_up, self._save_at_once = _NONE, None

    def __enter__(self) -> "StopSignals":
        # writes a file to see whether it can, the first time: before a handler could raise in its middle
        with contextlib.suppress(OSError):
            tempfile.gettempdir()
        handlers = dict.fromkeys(STOP_SIGNALS, self._stop) | {signal.SIGUSR1: self._save}
        for signum, handler in handlers.items():
            # None: set by something other than Python, which could not be restored
            if signal.getsignal(signum) not in (signal.SIG_IGN, None):
                self._old[signum] = signal.signal(signum, handler)
        return self

    def __exit__(self, *raised: object) -> None:
        while self._old:
            signum, old = self._old.popitem()
            signal.signal(signum, old)

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        now = self._clock()
        if not self._deferred:
            raise Interrupted(signum)
        if self.stop_signal is None:
            self.stop_signal = signum
            self._notice(STOPPING if signum == signal.SIGINT else STOPPING_AT_ONCE)
        # a closed terminal sends SIGHUP more than once (the kernel, then the shell): it never insists
        if signum != signal.SIGHUP:
            if self._insistent is None:
                self._insistent, self._asked_at = signum, now
            elif signum != self._insistent or now - self._asked_at >= REPEAT_S:
                raise Interrupted(signum)
        if signum in self._gives_up:
            raise Abandoned

    def _save(self, signum: int, frame: FrameType | None) -> None:
        save, gives_up = self._save_at_once, self._gives_up
        if save is None:
            self.save_requested = True
            return
        # a save is not to be torn, nor entered twice
        self._save_at_once, self._gives_up = None, _NONE
        save()
        self._save_at_once, self._gives_up = save, gives_up
        if self.stop_signal in gives_up:
            raise Abandoned
