"""Starts, watches and ends worker processes. Knows nothing of what they compute.

Workers are started with exec, never fork, from the main thread (the kernel's death signal follows the thread
that started them), in a process group of their own so that Ctrl-C reaches the coordinator alone.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from feste_dp.errors import RunError
from feste_dp.runtime.child_boot import LEFT_TO_THE_PARENT
from feste_dp.runtime.child_process import child_command, child_environment
from feste_dp.runtime.worker import WorkerSpec

# Whatever the user's environment says: a worker has one thread.
ONE_THREAD = {
    name: "1"
    for name in (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "BLIS_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "NUMBA_NUM_THREADS",
        "RAYON_NUM_THREADS",
    )
} | {"TOKENIZERS_PARALLELISM": "false"}


@dataclass
class WorkerProcess:
    """A running worker. `ended` becomes readable when the process ends: the truth about its death."""

    worker: int
    process: subprocess.Popen[bytes]
    ended: int

    @property
    def pid(self) -> int:
        return self.process.pid

    def tell(self, spec: WorkerSpec) -> None:
        """Give the worker its spec; it will report Ready over the socket."""
        assert self.process.stdin is not None
        # where it has ended meanwhile, its process handle says so
        with contextlib.suppress(BrokenPipeError), self.process.stdin as pipe:
            pipe.write(spec.model_dump_json().encode())

    def wait(self) -> int:
        """The exit status once it has ended, negative for a signal; nothing of it writes any more then."""
        return self.process.wait()

    def signal_kill(self) -> None:
        """End the process without waiting until it has ended."""
        if self.process.poll() is None:
            self.process.kill()

    def kill(self) -> None:
        """End the process now and reap it."""
        self.signal_kill()
        self.process.wait()

    def close(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        os.close(self.ended)


def worker_environment(environ: Mapping[str, str], code: Path | None = None) -> dict[str, str]:
    """The environment of a child that has one thread, and its code from a folder, if not this process's."""
    return child_environment(environ, code) | ONE_THREAD


def start_worker(
    worker: int, descriptors: Sequence[int], environ: Mapping[str, str], code: Path | None = None
) -> WorkerProcess:
    """Start a worker, which inherits the descriptors and waits to be told its spec. Raises RunError.

    From the main thread only.
    """
    try:
        with _Ending() as ending:
            # blocked here they are blocked in the worker before child_boot.py can ignore them, when Python
            # would still print a traceback for SIGINT; here they wait a few milliseconds
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, LEFT_TO_THE_PARENT)
            try:
                process = subprocess.Popen(
                    child_command("feste_dp.runtime.worker_boot"),
                    stdin=subprocess.PIPE,
                    pass_fds=[*descriptors, *ending.inherited],
                    env=worker_environment(environ, code),
                    process_group=0,
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            try:
                return WorkerProcess(worker, process, ending.of(process.pid))
            except OSError:  # no descriptor is left for it
                assert process.stdin is not None
                process.kill()
                process.wait()
                process.stdin.close()
                raise
    except OSError as error:
        raise RunError(f"worker {worker} could not be started: {error.strerror}") from None


class _Ending(contextlib.ExitStack):
    """What tells that a process has ended: a pidfd, or where there is none (old kernels, profiles of
    containers) the end of a pipe of which it alone holds the other."""

    def __enter__(self) -> Self:
        self.inherited: list[int] = []
        self._read = -1
        try:
            os.close(os.pidfd_open(os.getpid()))
        except (AttributeError, OSError):
            self._read, write = os.pipe2(os.O_CLOEXEC)
            self.callback(os.close, write)
            self._unused = self.enter_context(contextlib.ExitStack())
            self._unused.callback(os.close, self._read)
            self.inherited.append(write)
        return super().__enter__()

    def of(self, pid: int) -> int:
        if not self.inherited:
            return os.pidfd_open(pid)
        self._unused.pop_all()
        return self._read
