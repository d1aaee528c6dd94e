"""What carries bytes between nodes: MPI, and what the rest of the package needs of it.

MPI moves bytes and nothing else; no collective operation of it is used, for what they add, in which order, is
the library's own affair, and a blocking one burns a core that the workers need.
"""

import threading
from collections.abc import Callable
from typing import Any, Protocol

from feste_dp.errors import UsageError, on_one_line


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
        MPI.Init_thread(MPI.THREAD_SERIALIZED)
        self._lock, self._mpi = threading.Lock(), MPI
        self._comm = MPI.COMM_WORLD.Dup()
        self.rank, self.size = self._comm.rank, self._comm.size
        self.library = MPI.Get_library_version().split("\n")[0].split(",")[0].strip()

    def send(self, data: Any, to: int, tag: int) -> Request:
        with self._lock:
            return _MpiRequest(self, self._comm.Isend([data, self._mpi.BYTE], to, tag), data)

    def receive(self, into: Any, source: int, tag: int) -> Request:
        with self._lock:
            return _MpiRequest(self, self._comm.Irecv([into, self._mpi.BYTE], source, tag), into)

    def incoming(self, tag: int) -> tuple[int, int] | None:
        status = self._mpi.Status()
        with self._lock:
            if not self._comm.Iprobe(self._mpi.ANY_SOURCE, tag, status):
                return None
            return status.Get_source(), status.Get_count(self._mpi.BYTE)

    def close(self) -> None:
        with self._lock:
            self._mpi.Finalize()


class _MpiRequest:
    def __init__(self, transport: MpiTransport, request: Any, buffer: Any) -> None:
        self._lock, self._request = transport._lock, request
        self._status = transport._mpi.Status()
        self._buffer, self._byte = buffer, transport._mpi.BYTE  # the buffer lives as long as the transfer

    def done(self) -> bool:
        with self._lock:
            return bool(self._request.Test(self._status))

    @property
    def received(self) -> int:
        return int(self._status.Get_count(self._byte))


MakeTransport = Callable[[], Transport]
