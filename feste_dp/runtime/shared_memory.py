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


def reserve_shared_memory(size: int) -> int:
    """A descriptor of so many zero bytes, all of them there. Raises the last OSError."""
    error = OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    for fd in _candidates():
        try:
            with file_size_limit_lifted():
                _fill(fd, size)
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


def _fill(fd: int, size: int) -> None:
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno not in _MISSING:
            raise
        zeros = bytes(_ZEROS)
        for start in range(0, size, _ZEROS):
            os.pwrite(fd, zeros[: size - start], start)
        if os.fstat(fd).st_size < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
