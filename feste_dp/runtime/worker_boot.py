"""How a worker begins: tied to its coordinator before anything that takes time is imported.

Called by child_boot.py with the arguments DOOR and COORDINATOR_PID. Until the first order comes, the
death of the coordinator is a signal that removes the door (socket_directory.py) first; after that it is
SIGKILL.
"""

import ctypes
import os
import signal
import sys
from types import FrameType

from feste_dp.runtime.socket_directory import remove_door

_PR_SET_PDEATHSIG = 1
_ORPHANED = signal.SIGUSR2


def die_with_coordinator(signum: int = signal.SIGKILL) -> None:
    """Ask the kernel for this signal when the coordinator dies."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signum)


def main() -> int:
    door, coordinator_pid = sys.argv[1], int(sys.argv[2])

    def leave(signum: int, frame: FrameType | None) -> None:
        remove_door(door)
        os._exit(1)

    signal.signal(_ORPHANED, leave)
    # the coordinator decides when a run stops, also where a signal went to every process of it
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(signum, signal.SIG_IGN)
    die_with_coordinator(_ORPHANED)
    if os.getppid() != coordinator_pid:
        leave(_ORPHANED, None)
    from feste_dp.runtime.worker import work  # takes half a second

    return work()
