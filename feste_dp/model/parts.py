"""Threads that run one compiled call together, each with its part, and wait for each other inside it.

The caller only waits, so whatever interrupts it (Ctrl-C, a signal's handler) leaves no thread waiting for
ever for one that never came: what was begun is finished, and what is asked next comes after it.
"""

import contextlib
import os
import queue
import signal
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import NamedTuple

from feste_dp.machine.cpus import usable_cpus_by_core

Work = Callable[[int], object]
Outcome = BaseException | None
Place = set[int] | None


class Parts:
    """`count` threads, fewer where no more may be started; with one there is none, the caller works.

    As many threads as there are cores stay on a core each. On a busy machine the kernel would put a thread
    that is woken beside the one that woke it, where both together are as fast as one.
    """

    def __init__(self, count: int) -> None:
        followers = []
        cores = usable_cpus_by_core()
        places = cores if count == len(cores) else [None] * count
        if count > 1:
            with contextlib.suppress(RuntimeError):  # no further thread may be started
                followers += [_start_follower(part, places[part]) for part in range(1, count)]
        self._given: queue.SimpleQueue[tuple[Work, queue.SimpleQueue[Outcome]] | None] = queue.SimpleQueue()
        if followers:
            # a daemon, and no method: it must keep neither the program nor this object
            _start(_lead, places[0], self._given, followers, name="decoding")
            weakref.finalize(self, self._given.put, None)
        self.count = 1 + len(followers)

    def run(self, work: Work) -> None:
        """work(part) for every part, all at once; returns when all have. Raises what one raises."""
        if self.count == 1:
            work(0)
            return
        done: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._given.put((work, done))
        error = done.get()
        if error is not None:
            raise error


class _Follower(NamedTuple):
    given: "queue.SimpleQueue[Work | None]"
    done: "queue.SimpleQueue[Outcome]"


def _start_follower(part: int, place: Place) -> _Follower:
    follower = _Follower(queue.SimpleQueue(), queue.SimpleQueue())
    _start(_follow, place, part, follower, name=f"decoding {part}")
    return follower


def _start(target: Callable[..., None], *arguments: object, name: str) -> None:
    threading.Thread(target=target, args=arguments, name=name, daemon=True).start()


def _settle(place: Place) -> None:
    """This thread, which leaves signals to the main one, and stays on these CPUs."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    if place is not None:
        with contextlib.suppress(OSError):  # they may have been taken from the process meanwhile
            os.sched_setaffinity(0, place)


def _lead(
    place: Place,
    given: "queue.SimpleQueue[tuple[Work, queue.SimpleQueue[Outcome]] | None]",
    followers: Sequence[_Follower],
) -> None:
    """The life of the first thread, which alone starts work: nothing interrupts it."""
    _settle(place)
    while (task := given.get()) is not None:
        work, done = task
        for follower in followers:
            follower.given.put(work)
        error = _outcome(work, 0)
        for follower in followers:
            error = follower.done.get() or error
        done.put(error)
        del work, done, task
    for follower in followers:
        follower.given.put(None)


def _follow(place: Place, part: int, follower: _Follower) -> None:
    _settle(place)
    while (work := follower.given.get()) is not None:
        follower.done.put(_outcome(work, part))
        del work


def _outcome(work: Work, part: int) -> Outcome:
    try:
        work(part)
    except BaseException as error:
        return error
    return None
