"""Where the socket of a run lies while its workers connect: a door that is open for as long as that takes.

Its path is chosen before the workers start and it is made after, so that there is always somebody who removes
it: the coordinator once all are in, or, where the coordinator is killed before, a worker on its way out.
"""

import contextlib
import os
import secrets
import tempfile
from pathlib import Path

from feste_dp.errors import UsageError

MAX_SOCKET_PATH = 107  # bytes, sun_path less its terminating zero
_SOCKET = "s"


def choose_door() -> str:
    """The path of a directory to be made, whose socket's path fits; beside TMPDIR when that is too long."""
    name = f"feste-dp-{secrets.token_hex(8)}"
    try:
        for parent in (tempfile.gettempdir(), "/tmp"):
            if len(os.fsencode(parent)) + len(f"/{name}/{_SOCKET}") <= MAX_SOCKET_PATH:
                return f"{parent}/{name}"
    except OSError as error:
        raise UsageError(f"no temporary directory for the sockets ({error}): set TMPDIR to one") from None
    raise UsageError(
        f"TMPDIR is longer than a socket path may be ({MAX_SOCKET_PATH} bytes): set a shorter one"
    )


def open_door(door: str) -> str:
    """Make the private directory (mode 0700); returns the endpoint to bind."""
    try:
        Path(door).mkdir(mode=0o700)
    except OSError as error:
        raise UsageError(f"no temporary directory for the sockets ({error}): set TMPDIR to one") from None
    return endpoint_of(door)


def endpoint_of(door: str) -> str:
    return f"ipc://{door}/{_SOCKET}"


def remove_door(door: str) -> None:
    """Leaves nothing of the door, also where it was never made."""
    with contextlib.suppress(OSError):
        (Path(door) / _SOCKET).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        Path(door).rmdir()
