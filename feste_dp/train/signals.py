"""How signals end a run: first politely, then at once. Knows nothing of what there is to save.

Before there is anything to save, SIGINT (Ctrl-C) and SIGTERM end the program at once. After `defer()` the
first one only asks; the loop finishes its step, saves, and exits with 128 + the signal's number. A second
one ends the program at once. SIGUSR1 asks for a save and nothing else.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

STOPPING = "stopping after this step; press Ctrl-C again to stop now"

REPEAT_S = 0.1
"""A copy of the same signal within this time is not a second request: a wrapper that forwards Ctrl-C to a
process that the terminal has signalled too makes two out of one, a few milliseconds apart."""


class Interrupted(BaseException):
    """Stop now. Not an Exception, so that no handler for errors swallows it."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum

    @property
    def exit_status(self) -> int:
        """130 after SIGINT, 143 after SIGTERM."""
        return 128 + self.signum


def write_notice(text: str) -> None:
    """Writes a line to standard error by the descriptor: a handler may run in the middle of a print, and
    Python's streams refuse to be entered twice."""
    with contextlib.suppress(OSError):
        os.write(2, f"\n{text}\n".encode())


class StopSignals:
    """Handles SIGINT, SIGTERM and SIGUSR1 while entered, in the main thread; then restores the handlers.

    A signal that was ignored at the start (nohup, a shell's background job) stays ignored. `notice` runs
    inside the handler: it must not use a buffered stream.
    """

    def __init__(
        self,
        notice: Callable[[str], None] = write_notice,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stop_signal: int | None = None
        """The SIGINT or SIGTERM that asked to stop, once deferred."""
        self.save_requested = False
        self._notice = notice
        self._clock = clock
        self._deferred = False
        self._asked_at = 0.0
        self._old: dict[int, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether the loop should finish its step, save and exit."""
        return self.stop_signal is not None

    @property
    def exit_status(self) -> int:
        """The exit status once the run has stopped: 130 or 143, or 0 when nothing asked it to."""
        return 0 if self.stop_signal is None else 128 + self.stop_signal

    def defer(self) -> None:
        """From now on the first SIGINT or SIGTERM only asks: there is something to save."""
        self._deferred = True

    def take_save_request(self) -> bool:
        """Whether SIGUSR1 came since the last call."""
        requested, self.save_requested = self.save_requested, False
        return requested

    def __enter__(self) -> "StopSignals":
        for signum, handler in (
            (signal.SIGINT, self._stop),
            (signal.SIGTERM, self._stop),
            (signal.SIGUSR1, self._save),
        ):
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
            self.stop_signal, self._asked_at = signum, now
            self._notice(STOPPING)
        elif signum != self.stop_signal or now - self._asked_at >= REPEAT_S:
            raise Interrupted(signum)

    def _save(self, signum: int, frame: FrameType | None) -> None:
        self.save_requested = True
