"""One writer a run: who writes in it holds its lock, and gets that only where the run's files are its own."""

import os
import time
from datetime import datetime
from pathlib import Path

from feste_dp.errors import UsageError
from feste_dp.files.growing import is_at
from feste_dp.files.locks import NoLocksError, is_held, open_lock, try_lock
from feste_dp.files.writing import remove_leftovers
from feste_dp.run.directory import LOCK_TEXT, RunDirectory, check_own_files, reason, time_text

_TRIES, _PAUSE_S = 5, 0.01


class RunLock:
    """Holds a run for this process until closed; the kernel lets go when the process ends, however it ends.

    UsageError, naming the holder, when another process has it, and where what would be written leads out of
    the run. Processes started with exec do not hold it.
    """

    def __init__(self, run: RunDirectory, now: datetime) -> None:
        self._fd = -1
        check_own_files(run)
        try:
            self._fd = _take(run)
        except NoLocksError as error:
            raise UsageError(
                f"cannot lock the run {run.path}: {error.strerror}; use a file system with flock"
            ) from error
        except OSError as error:
            raise UsageError(f"cannot write in the run {run.path}: lock: {reason(error)}") from error
        for written in (run.config, run.tokenizer, run.metrics):
            remove_leftovers(written)
        try:
            if os.fstat(self._fd).st_nlink == 1:  # else its content is also that of another name
                os.ftruncate(self._fd, 0)
                os.pwrite(self._fd, f"{os.getpid()} {time_text(now)}\n".encode(), 0)
        except OSError:  # a full disk: the lock holds without its text
            pass
        except BaseException:
            self.close()
            raise

    def is_at(self, path: Path) -> bool:
        """Whether the lock has this name: one that was removed keeps nobody out."""
        return is_at(self._fd, path)

    def put_back(self, run: RunDirectory) -> None:
        """Lock the run again where it is now. UsageError, naming the holder, where another process was
        quicker; OSError."""
        fd = _take(run)
        text = os.pread(self._fd, 100, 0)
        os.close(self._fd)
        self._fd = fd
        os.pwrite(fd, text, 0)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> "RunLock":
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def _take(run: RunDirectory) -> int:
    """The descriptor of the lock, held. Asks a few times: who looks whether the run is alive holds a shared
    lock for some microseconds, and who gives a half-made run up removes the file."""
    for attempt in range(_TRIES + 1):
        fd = open_lock(run.lock)
        try:
            if try_lock(fd) and is_at(fd, run.lock):
                return fd
        except BaseException:
            os.close(fd)
            raise
        holder = LOCK_TEXT.fullmatch(os.pread(fd, 100, 0).decode(errors="replace"))
        os.close(fd)
        if attempt < _TRIES:
            time.sleep(_PAUSE_S)
    who = f"process {holder[1]} (started {holder[2]})" if holder else "another process"
    raise UsageError(f"run {run.path} is in use by {who}")


def is_locked(run: RunDirectory) -> bool:
    """Whether a process trains in the run now."""
    return is_held(run.lock)
