"""The entry point of feste-dp. Imports little before it handles signals, which then end it in silence."""

import os
import sys

from feste_dp.cli.environment import settle_cpu_limit, settle_environment
from feste_dp.errors import on_one_line
from feste_dp.import_path import leave_current_folder
from feste_dp.interruption import asked_to_stop, end_on_the_spot, end_with
from feste_dp.runtime.numba_config import CONFIG_FILE, pass_over_numba_config

FAILED = 1


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 bad usage or config, 130, 143 or 129 stopped by a
    signal (SIGINT, SIGTERM, SIGHUP), 141 where nobody reads the output any more."""
    end_on_the_spot()
    leave_current_folder()
    _open_missing_streams()
    settle_cpu_limit()
    ignored = settle_environment(os.environ) + [CONFIG_FILE] * pass_over_numba_config()
    for name in ignored:
        sys.stderr.write(f"warning: {name} is ignored: the kernels are compiled in one way\n")
    try:
        from feste_dp.cli.commands import run  # here: half a second goes by in it
    except (OSError, MemoryError) as error:  # a refused system call, no descriptor, no address space
        sys.stderr.write(f"error: the program cannot be loaded here: {on_one_line(error)}\n")
        sys.exit(FAILED)
    status = run()
    end_on_the_spot()
    signum = asked_to_stop()
    if signum is not None and status == 128 + signum:
        _leave_unwritten()
    status = _flushed(status)
    end_with(status)
    sys.exit(status)


def _open_missing_streams() -> None:
    """Standard descriptors that the caller closed (`>&-`) lead nowhere, instead of into the next file or
    shared memory that the program opens."""
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, mode, closefd=False))
        elif name == "stdout":
            sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _leave_unwritten() -> None:
    """What a command had printed when it was told to stop is not waited for: nobody may ever read it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _flushed(status: int) -> int:
    """The status once all output is written. A failure to write it is one line, unless the command has
    already failed and said why: what it left in the buffer cannot be written either."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if status == 0 and not isinstance(error, BrokenPipeError):
            sys.stderr.write(f"error: cannot write: {error.strerror}\n")
            return FAILED
    return status
