"""Memory that processes share by a descriptor, without a name: a memfd, or where there is none (old kernels,
profiles of containers) a file of /dev/shm or the temporary directory that never has a name."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from feste_dp.files.temporary import temporary_places
from feste_dp.machine.file_limit import file_size_limit_lifted

_MISSING = {errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EINVAL, errno.EOPNOTSUPP}
"""What a system call that is not there, or not allowed, answers."""
_ZEROS = 1 << 20


def reserve_shared_memory(size: int, reserved: int | None = None) -> int:
    """A descriptor of so many zero bytes, the first `reserved` of them there, all where it is not said.

    Raises the last OSError.
    """
    error = OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    for fd in _candidates():
        try:
            with file_size_limit_lifted():
                os.ftruncate(fd, size)
            reserve(fd, 0, size if reserved is None else reserved)
        except OSError as failed:
            os.close(fd)
            error = failed
            if error.errno == errno.EFBIG:  # no other place would change that
                break
        except BaseException:
            os.close(fd)
            raise
        else:
            with contextlib.suppress(OSError):  # a seal is a precaution
                fcntl.fcntl(
                    fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
                )
            return fd
    raise error


def _candidates() -> Iterator[int]:
    try:
        fd = os.memfd_create("feste-dp", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError as error:
        if error.errno not in _MISSING:
            raise
    else:
        yield fd
        return
    for place in dict.fromkeys([Path("/dev/shm"), *temporary_places()]):
        with contextlib.suppress(OSError):
            fd = os.open(place, os.O_TMPFILE | os.O_RDWR | os.O_EXCL | os.O_CLOEXEC, 0o600)
            yield fd


def reserve(fd: int, start: int, stop: int) -> None:
    """Have the bytes start .. stop - 1 there; what was in them stays. Raises OSError."""
    with file_size_limit_lifted():
        try:
            os.posix_fallocate(fd, start, stop - start)
        except OSError as error:
            if error.errno not in _MISSING:
                raise
            _touch(fd, start, stop)


def _touch(fd: int, start: int, stop: int) -> None:
    """Write zeros where no memory is yet."""
    while start < stop:
        try:
            hole = os.lseek(fd, start, os.SEEK_HOLE)
            end = os.lseek(fd, hole, os.SEEK_DATA) if hole < stop else stop
        except OSError as error:
            if error.errno != errno.ENXIO:  # no data after the hole
                raise
            end = stop
        zeros = bytes(_ZEROS)
        for place in range(hole, min(end, stop), _ZEROS):
            if os.pwrite(fd, zeros[: min(end, stop) - place], place) <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        start = max(end, hole)
