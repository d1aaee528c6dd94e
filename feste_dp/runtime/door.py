"""Where workers connect: a Unix socket that is open for as long as the run, and has a name for an instant.

It is made in a private folder that is removed at once. What stays is a descriptor of its file, and workers,
which inherit it, connect by /proc/self/fd. So nobody else finds it, starting a worker needs no folder, and
a coordinator that is killed leaves nothing. Where no folder can be made or there is no /proc, it has an
abstract name instead, at which ZeroMQ turns away the processes of other users.
"""

import contextlib
import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

import zmq

from feste_dp.errors import UsageError
from feste_dp.files.temporary import temporary_folder, temporary_places

_BACKLOG = 1024
_DESCRIPTORS = Path("/proc/self/fd")


@dataclass
class Door:
    """How a worker comes in: an endpoint, and the descriptors that it inherits for that."""

    endpoint: str
    descriptors: tuple[int, ...]

    def leads_in(self) -> bool:
        """Whether it can be found: /proc may have been taken away since."""
        return all((_DESCRIPTORS / str(descriptor)).exists() for descriptor in self.descriptors)

    def close(self) -> None:
        """Nobody comes in any more but who is on the way."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = ()


def open_door(router: "zmq.Socket[bytes]") -> Door:
    """Let workers of the same user connect to the router. Raises UsageError."""
    try:
        try:
            door, listener = _without_a_name()
        except OSError:
            door, listener = _by_abstract_name()
        with contextlib.closing(listener):
            listener.listen(_BACKLOG)
            listener.setblocking(False)
            router.setsockopt(zmq.IPC_FILTER_UID, os.geteuid())
            router.setsockopt(zmq.USE_FD, listener.fileno())
            router.bind(door.endpoint)
            listener.detach()  # ZeroMQ's from here on
    except (OSError, zmq.ZMQError) as error:
        raise UsageError(
            f"no socket for the workers ({error.strerror}): set TMPDIR to a folder that can be written"
        ) from None
    return door


def _without_a_name() -> tuple[Door, socket.socket]:
    with temporary_folder("door", temporary_places()) as folder:
        place = os.open(folder, os.O_PATH | os.O_CLOEXEC)
        try:
            # however long the folder's own name is
            listener = _bound(f"{_DESCRIPTORS}/{place}/s")
            file = os.open("s", os.O_PATH | os.O_CLOEXEC, dir_fd=place)
        finally:
            os.close(place)
    return Door(f"ipc://{_DESCRIPTORS}/{file}", (file,)), listener


def _by_abstract_name() -> tuple[Door, socket.socket]:
    name = f"feste-dp-{secrets.token_hex(16)}"
    return Door(f"ipc://@{name}", ()), _bound(f"\0{name}")


def _bound(address: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(address)
    except BaseException:
        listener.close()
        raise
    return listener
