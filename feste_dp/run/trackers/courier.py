"""Carries a run's figures to a tracker in a thread of its own, so that a slow, stuck or failing tracker costs
the training a place in a queue and nothing else."""

import queue
import threading
from collections.abc import Callable
from typing import Literal

from feste_dp.errors import on_one_line
from feste_dp.run.trackers.tracker import RunFacts, Tracker

QUEUE_SIZE = 20_000
"""Calls that may wait for a tracker; what comes while so many wait is dropped."""
CLOSE_TIMEOUT_S = 30.0

Method = Literal["scalars", "text", "event"]
Call = tuple[Method, tuple[object, ...]]


class Courier:
    """The methods of a tracker, none of which waits or raises. What goes wrong is said once, by problem()."""

    def __init__(self, tracker: Tracker, run: RunFacts, queue_size: int = QUEUE_SIZE) -> None:
        self._tracker, self._run = tracker, run
        self._calls: queue.Queue[Call | None] = queue.Queue(queue_size)
        self._problems: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._dropped = 0
        self._failed = False
        # a daemon: a tracker that hangs must not keep the process
        self._thread = threading.Thread(target=self._work, name=f"tracker-{tracker.name}", daemon=True)
        self._thread.start()

    def send(self, method: Method, *arguments: object) -> None:
        if self._failed:
            return
        try:
            self._calls.put_nowait((method, arguments))
        except queue.Full:
            self._dropped += 1
            if self._dropped == 1:
                self._problems.put(
                    f"tracker {self._tracker.name} does not keep up: it will lack some of what comes now"
                )

    def problem(self) -> str | None:
        """What went wrong since the last call, in a line; None where nothing did."""
        try:
            return self._problems.get_nowait()
        except queue.Empty:
            return None

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Returns when the tracker has all that was sent, or after timeout_s at the latest."""
        try:
            self._calls.put(None, timeout=timeout_s)
        except queue.Full:
            pass
        else:
            self._thread.join(timeout_s)
        if self._thread.is_alive() and timeout_s > 0:
            self._problems.put(
                f"tracker {self._tracker.name} did not end within {timeout_s:g} s: "
                "the last figures may be missing"
            )

    def _work(self) -> None:
        try:
            self._call(lambda: self._tracker.start(self._run))
            while not self._failed and (call := self._calls.get()) is not None:
                method, arguments = call
                self._call(lambda: getattr(self._tracker, method)(*arguments))  # noqa: B023
        finally:
            if not self._failed:
                self._call(self._tracker.close)

    def _call(self, act: Callable[[], None]) -> None:
        try:
            act()
        except BaseException as error:  # a library may raise SystemExit: in this thread it means nothing
            self._failed = True
            self._problems.put(
                f"tracker {self._tracker.name} failed, the run goes on without it: {on_one_line(error)}"
            )
