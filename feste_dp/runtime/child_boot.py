"""How a child of this program begins: tied to its parent, with its parent's import path and its parent's copy
of this package.

Run as a file by child_process.py: `python child_boot.py PARENT_PID MODULE ARGUMENTS`; calls main() of the
module.
"""

import os
import signal
import sys

PATH_VARIABLE = "FESTE_DP_IMPORT_PATH"

LEFT_TO_THE_PARENT = (
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2),
    *(signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF),
)
"""Signals that no child acts on, whoever sends them to all processes of a run: the parent decides when it
stops."""
_PR_SET_PDEATHSIG = 1


def main() -> None:
    for signum in LEFT_TO_THE_PARENT:
        signal.signal(signum, signal.SIG_IGN)
    path = bytes.fromhex(os.environ.pop(PATH_VARIABLE)).split(b"\0")
    # the parent's copy of the package, whatever else its path has under this name
    sys.path[:] = [os.path.abspath(f"{__file__}/../../..")]  # noqa: PTH100
    import feste_dp  # noqa: F401

    sys.path[:] = map(os.fsdecode, path)
    end_with_parent(int(sys.argv.pop(1)))
    from importlib import import_module

    from feste_dp.runtime.numba_config import pass_over_numba_config

    pass_over_numba_config()
    del sys.argv[0]
    sys.exit(import_module(sys.argv[0]).main())


def end_with_parent(parent_pid: int) -> None:
    """End at once, by SIGKILL, when the process that started this one does, or has by now."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    except (ImportError, OSError, AttributeError):  # then the pipes and sockets to it tell
        pass
    if os.getppid() != parent_pid:
        os._exit(1)


if __name__ == "__main__":
    main()
