"""Descriptors that are held from the start of a run, to be given up for what must not fail for want of one: a
save, the start of a worker, what is put back.

Where there is no other left, ZeroMQ ends the whole process as it lets a worker in.
"""

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

COUNT = 16
"""A save takes four, a start of a worker five and its connection one, what is put back three."""


class SpareDescriptors:
    """For any thread."""

    def __init__(self, count: int = COUNT) -> None:
        # a save that a signal asks for may come in the midst of a settlement, in the same thread
        self._count, self._lock = count, threading.RLock()
        self._held: list[int] = []
        self._holders = self._borrowers = 0

    def hold(self) -> None:
        """From here on, as many as there are; until as many calls of release()."""
        with self._lock:
            self._holders += 1
            self._settle()

    def release(self) -> None:
        with self._lock:
            self._holders -= 1
            self._settle()

    def lend(self) -> None:
        """They are free to be used from here on, until as many calls of take_back()."""
        with self._lock:
            self._borrowers += 1
            self._settle()

    def take_back(self) -> None:
        with self._lock:
            self._borrowers -= 1
            self._settle()

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        self.lend()
        try:
            yield
        finally:
            self.take_back()

    def in_need(self, call: Callable[[], T]) -> T:
        """call(), and once more with these free where it lacked one. Lending each time would take 40 us."""
        try:
            return call()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
        with self.lent():
            return call()

    def _settle(self) -> None:
        wanted = self._count if self._holders and not self._borrowers else 0
        while len(self._held) > wanted:
            os.close(self._held.pop())
        with contextlib.suppress(OSError):  # what has been used up meanwhile is missing from then on
            while len(self._held) < wanted:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))


spare = SpareDescriptors()
"""Those of this process."""


def check_free(count: int) -> None:
    """OSError where so many cannot be opened now."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
