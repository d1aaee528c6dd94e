"""Where the socket of a run lies while its workers connect."""

import os
import tempfile

from feste_dp.errors import UsageError

MAX_SOCKET_PATH = 107  # bytes, sun_path less its terminating zero


def make_socket_directory() -> str:
    """A new private directory (mode 0700) whose socket path fits; beside TMPDIR when that is too long."""
    try:
        for parent in (tempfile.gettempdir(), "/tmp"):
            if len(os.fsencode(parent)) + len("/feste-dp-12345678/s") <= MAX_SOCKET_PATH:
                return tempfile.mkdtemp(prefix="feste-dp-", dir=parent)
    except OSError as error:
        raise UsageError(f"no temporary directory for the sockets ({error}): set TMPDIR to one") from None
    raise UsageError(
        f"TMPDIR is longer than a socket path may be ({MAX_SOCKET_PATH} bytes): set a shorter one"
    )
