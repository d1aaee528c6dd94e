"""The coordinator's end of all connections: its socket, the bell that is rung for the letterboxes, and the
ends of processes; one call waits for all of these. Knows no worker and no message.
"""

import os
import select
import threading
from collections.abc import Iterator, Sequence

import zmq

from feste_dp.errors import RunError, UsageError
from feste_dp.runtime.door import Door, open_door


class Router:
    """To be opened before anything is sent or waited for."""

    def __init__(self, most_bytes: int) -> None:
        """most_bytes: a frame that is longer ends its connection."""
        self._most_bytes = most_bytes
        self._door: Door | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        # a poller looks at all that it has whenever it is asked: three, however many workers there are
        self._ends = select.epoll()
        self.bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._ringing = threading.Lock()
        """No other thread rings what is closed, which may be another's file by then."""
        self._poller = zmq.Poller()
        self._poller.register(self.bell, zmq.POLLIN)
        self._poller.register(self._ends.fileno(), zmq.POLLIN)

    def open(self) -> Door:
        """Where workers connect now. Raises RunError, UsageError."""
        if self._door is None:
            check_that_a_thread_may_choose_its_scheduling()
            self._open_socket()
            self._door = open_door(self._socket)
            self._poller.register(self._socket, zmq.POLLIN)
        if not self._door.leads_in():
            self._door.close()
            self._door = open_door(self._socket)
        return self._door

    def ring(self) -> None:
        """Ring the bell, from whichever thread."""
        with self._ringing:
            if self.bell >= 0:
                os.eventfd_write(self.bell, 1)

    def watch(self, process: int) -> None:
        """Let wait() see the end of the process of this descriptor."""
        self._ends.register(process, select.EPOLLIN)

    def forget(self, process: int) -> None:
        self._ends.unregister(process)

    def send(self, frames: Sequence[bytes]) -> None:
        """The first frame says to whom. Raises ZMQError where it is gone."""
        self._socket.send_multipart(frames)

    def waiting(self) -> Iterator[list[bytes]]:
        """The frames of each message that has come; the first says from whom."""
        while True:
            try:
                yield self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return

    def has_more(self, timeout_ms: int) -> bool:
        """Whether a message is there, or comes within the time."""
        return bool(self._socket.poll(timeout_ms))

    def wait(self, timeout_ms: int) -> tuple[bool, int | None]:
        """Whether something may have been said, in a letterbox or here; if not, a process that has ended."""
        ready = dict(self._poller.poll(timeout_ms))
        if self.bell in ready:
            os.eventfd_read(self.bell)  # before a look into the boxes: what comes after that rings anew
            return True, None
        if self._socket in ready:
            return True, None
        ended = self._ends.poll(0, 1) if self._ends.fileno() in ready else []
        return False, ended[0][0] if ended else None

    def close(self) -> None:
        """May be called again, and without open()."""
        if self._door is not None:
            self._door.close()
            self._door = None
        if self._context is not None:
            self._context.destroy(linger=0)
            self._context = None
        if self.bell >= 0:
            self._poller.unregister(self._ends.fileno())
            self._ends.close()
            self._poller.unregister(self.bell)
            with self._ringing:
                os.close(self.bell)
                self.bell = -1

    def _open_socket(self) -> None:
        self._context = zmq.Context()
        try:
            self._socket = self._context.socket(zmq.ROUTER)
        except zmq.ZMQError as error:
            raise RunError(f"no socket for the workers: {error.strerror}") from None
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._socket.setsockopt(zmq.MAXMSGSIZE, self._most_bytes)


def check_that_a_thread_may_choose_its_scheduling() -> None:
    """ZeroMQ gives its thread the policy that it has, and ends the process where that is refused."""
    try:
        os.sched_setscheduler(0, os.sched_getscheduler(0), os.sched_getparam(0))
    except OSError as error:
        raise UsageError(
            f"the system call sched_setscheduler is refused ({error.strerror}), which ZeroMQ needs: allow it "
            "in the container's profile or the service's SystemCallFilter"
        ) from None
