"""How a signal ends this program: once, quietly, with status 128 + its number. Nothing is lost on the way.

From the first moment a handler is there: process 1 of a container gets only the signals that it handles. At
first it ends the program on the spot; from raise_from_here() on it raises Interrupted, so that what was begun
is tidied up. An exception from a handler can come between any two instructions and can be lost, so

- what must not be torn (start a process and take note of it, make a folder and see to its removal, tidy up)
  stands in `with held:`; signals wait until it is over;
- once Interrupted was raised, no further signal raises: what tidies up is not cut short. But a second signal
  after a second or more ends the program where it stands: the kernel ends its children;
- an Interrupted that ended in a callback of compiled code, where Python drops it, is raised again at once.

Only the main thread is held or interrupted. Imports little: it is the first that runs.
"""

import os
import signal
import sys
import time
from _thread import get_ident
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

STOP_SIGNALS = (
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR2),
    *(signal.SIGXCPU, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF),
)
NEVER_INSIST = frozenset({signal.SIGHUP, signal.SIGXCPU})
"""Sent more than once without anybody's wish: by a terminal that closes (the kernel, then the shell), and for
each second of CPU time above the limit."""
_HANGS_S = 1.0
_AGAIN_S = 0.005

Handler = Callable[[int], None]


class RaisedBySignal(BaseException):
    """Raised by a handler. Not an Exception, so that no handler for errors swallows it."""

    def __init__(self, again: Callable[[], None], text: str = "") -> None:
        """again raises it once more, where it was lost and is still wanted."""
        super().__init__(text)
        self.again = again


class Interrupted(RaisedBySignal):
    """Stop now."""

    def __init__(self, signum: int) -> None:
        super().__init__(_interrupt_again, f"stopped by {signal.Signals(signum).name}")
        self.signum = signum

    @property
    def exit_status(self) -> int:
        """130 after SIGINT, 143 after SIGTERM, 129 after SIGHUP."""
        return 128 + self.signum


class _State:
    def __init__(self) -> None:
        self.main = get_ident()
        self.handler: Callable[[int, FrameType | None], object] | None = None
        self.depth = 0
        self.waiting: list[tuple[int, Handler]] = []
        """Signals that came while held, and who handles them."""
        self.first: int | None = None
        """The signal that interrupts."""
        self.first_at = 0.0
        self.raised = False
        self.again: Callable[[], None] | None = None
        """Raises what was lost."""


_state = _State()


class Held:
    """`with held:` signals wait, as long as it is entered."""

    def __enter__(self) -> None:
        if get_ident() == _state.main:
            _state.depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if get_ident() != _state.main:
            return
        _state.depth -= 1
        while _state.waiting and not _state.depth:
            receive(*_state.waiting.pop(0))


held = Held()


def receive(signum: int, handler: Handler) -> None:
    """What every Python handler of a stop signal calls: handler(signum), now or when nothing is held."""
    if _state.depth:
        if not _state.waiting:
            _state.first_at = time.monotonic()
        _insist(signum)
        if signum not in [waiting for waiting, _ in _state.waiting]:
            _state.waiting.append((signum, handler))
    elif signum == signal.SIGALRM and _state.again is not None:
        again, _state.again = _state.again, None
        again()
    else:
        handler(signum)


def interrupt(signum: int) -> None:
    """Raise Interrupted, the first time."""
    if _state.first is None:
        _state.first, _state.first_at = signum, time.monotonic()
    if _state.raised:
        _insist(signum)
        return
    _state.raised = True
    raise Interrupted(_state.first)


def _interrupt_again() -> None:
    _state.raised = False
    check()


def check() -> None:
    """Raise an Interrupted that was lost."""
    if _state.first is not None and not _state.raised:
        interrupt(_state.first)


def asked_to_stop() -> int | None:
    """The signal that has interrupted the program."""
    return _state.first


def start_anew() -> None:
    """Forget an interruption that was raised, and dealt with by now."""
    _state.main = get_ident()
    if _state.raised and _state.again is None:
        _state.first, _state.raised = None, False


def end_on_the_spot() -> None:
    """From here on a signal ends the program where it stands: there is nothing to tidy up."""
    _handle(lambda signum, frame: os._exit(128 + signum))
    if signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL:  # asks for a save: there is nothing yet
        signal.signal(signal.SIGUSR1, lambda signum, frame: None)


def raise_from_here() -> None:
    """From here on a signal raises Interrupted in the main thread."""
    start_anew()
    sys.unraisablehook = _not_of_signals(sys.unraisablehook)
    _handle(lambda signum, frame: receive(signum, interrupt))


def end_with(status: int) -> None:
    """From here on a signal changes nothing but that the program ends at once, with this status."""
    _handle(lambda signum, frame: os._exit(status))


def _handle(handler: Callable[[int, FrameType | None], object]) -> None:
    """Set the handler of every stop signal that is not ignored (nohup, a shell's background job)."""
    replaced = (signal.SIG_DFL, signal.default_int_handler, _state.handler)
    _state.handler = handler
    for signum in STOP_SIGNALS:
        if signal.getsignal(signum) in replaced:
            signal.signal(signum, handler)


def _insist(signum: int) -> None:
    """End where we stand, if tidying up hangs and this is not the first signal."""
    if signum not in NEVER_INSIST and time.monotonic() - _state.first_at > _HANGS_S:
        os._exit(128 + signum)


def _not_of_signals(before: Callable[..., object]) -> Callable[..., object]:
    """A hook for exceptions that Python can only print, which has those of a signal raised again."""

    def hook(unraisable: Any) -> None:
        try:
            if isinstance(unraisable.exc_value, RaisedBySignal):
                _raise_later(unraisable.exc_value)
            elif not isinstance(unraisable.exc_value, KeyboardInterrupt):
                before(unraisable)
        except RaisedBySignal as error:  # in this hook it would be dropped as well
            _raise_later(error)

    return hook


def _raise_later(error: RaisedBySignal) -> None:
    _state.again = error.again
    if signal.getsignal(signal.SIGALRM) is signal.SIG_IGN:
        signal.signal(signal.SIGALRM, lambda signum, frame: receive(signum, lambda signum: None))
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
