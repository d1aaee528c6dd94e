"""What carries bytes between nodes: MPI, and what the rest of the package needs of it.

MPI moves bytes and nothing else; no collective operation of it is used, for what they add, in which order, is
the library's own affair, and a blocking one burns a core that the workers need.
"""

import os
import threading
from collections.abc import Callable
from typing import Any, Protocol

from feste_dp.errors import RunError, UsageError, on_one_line

_FINALIZE_S = 20.0
"""To leave MPI takes the others; who waits longer for them ends without."""


class TransportError(RunError):
    """The MPI library could not do what it was asked to."""


class Request(Protocol):
    """A transfer under way."""

    def done(self) -> bool:
        """Whether it has ended. What is sent or received into must stay untouched until then."""
        ...

    @property
    def received(self) -> int:
        """Bytes that came, once done."""
        ...


class Transport(Protocol):
    """Messages between `size` ranks: of the same sender and tag they arrive in the order in which they were
    sent. May be used by several threads."""

    rank: int
    size: int

    def send(self, data: Any, to: int, tag: int) -> Request: ...
    def receive(self, into: Any, source: int, tag: int) -> Request: ...

    def incoming(self, tag: int) -> tuple[int, int] | None:
        """(sender, bytes) of a message with this tag that has come and is not received yet."""
        ...

    def close(self) -> None:
        """Only where all others are there to close it too."""
        ...


class MpiTransport:
    """By mpi4py, over whichever library it finds. One call of it at a time, whichever thread makes it."""

    def __init__(self) -> None:
        """Starts MPI in this process. Raises UsageError where there is none."""
        try:
            import mpi4py

            mpi4py.rc.initialize = mpi4py.rc.finalize = False
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:
            raise UsageError(
                f"several nodes need mpi4py and an MPI library ({on_one_line(error)}): "
                "pip install 'feste-dp[mpi]' on every node"
            ) from None
        if MPI.Init_thread(MPI.THREAD_SERIALIZED) < MPI.THREAD_SERIALIZED:
            raise UsageError("the MPI library may be called by one thread alone: take one built with threads")
        self._lock, self._mpi = threading.Lock(), MPI
        self._under_way: set[_MpiRequest] = set()
        """MPI reads and writes their memory, whether anybody still waits for them or not."""
        self._comm = MPI.COMM_WORLD.Dup()
        self.rank, self.size = self._comm.rank, self._comm.size
        self.library = MPI.Get_library_version().split("\n")[0].split(",")[0].strip()

    def send(self, data: Any, to: int, tag: int) -> Request:
        return self._started(data, lambda: self._comm.Isend([data, self._mpi.BYTE], to, tag))

    def receive(self, into: Any, source: int, tag: int) -> Request:
        return self._started(into, lambda: self._comm.Irecv([into, self._mpi.BYTE], source, tag))

    def incoming(self, tag: int) -> tuple[int, int] | None:
        status = self._mpi.Status()
        try:
            with self._lock:
                if not self._comm.Iprobe(self._mpi.ANY_SOURCE, tag, status):
                    return None
                return status.Get_source(), status.Get_count(self._mpi.BYTE)
        except self._mpi.Exception as error:
            raise _told(error) from None

    def close(self) -> None:
        late = threading.Timer(_FINALIZE_S, os._exit, [1])
        late.daemon = True
        late.start()
        try:
            with self._lock:
                self._mpi.Finalize()
        except self._mpi.Exception as error:
            raise _told(error) from None
        finally:
            late.cancel()

    def _started(self, buffer: Any, start: Callable[[], Any]) -> Request:
        try:
            with self._lock:
                request = _MpiRequest(self._lock, self._mpi, start(), buffer, self._under_way)
                self._under_way.add(request)
                return request
        except self._mpi.Exception as error:
            raise _told(error) from None


class _MpiRequest:
    def __init__(
        self, lock: threading.Lock, mpi: Any, request: Any, buffer: Any, under_way: "set[_MpiRequest]"
    ) -> None:
        self._lock, self._mpi, self._request = lock, mpi, request
        self._status = mpi.Status()
        self._buffer, self._under_way = buffer, under_way

    def done(self) -> bool:
        try:
            with self._lock:
                if not self._request.Test(self._status):
                    return False
                self._under_way.discard(self)
                return True
        except self._mpi.Exception as error:
            raise _told(error) from None

    @property
    def received(self) -> int:
        return int(self._status.Get_count(self._mpi.BYTE))


def _told(error: Exception) -> TransportError:
    return TransportError(f"the MPI library failed: {on_one_line(error)}")
