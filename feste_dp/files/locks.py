"""flock, once: a file that one process holds until it ends, however it ends.

Whoever may open a lock file may hold it, for ever. So it is private (0600) from its first moment, and one
that is wider is tightened before it is waited for. Processes started with exec do not hold it.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from feste_dp.files.reading import open_checked, open_plain
from feste_dp.files.writing import ABANDONED_S, beside_name, remove_leftovers

MODE = 0o600
_LOCKS = Path("/proc/locks")
_WITHOUT_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
"""What file systems without flock answer: Lustre without -o flock, NFS without lockd, some of FUSE."""


class NoLocksError(OSError):
    """The file system has no flock."""


def open_lock(path: Path) -> int:
    """A descriptor of the lock file, made if need be, for nobody but this user. Nothing is locked yet.

    OSError where it belongs to somebody else, is a link or no regular file.
    """
    fd = open_checked(path, os.O_RDWR | os.O_CREAT, MODE)
    status = os.fstat(fd)
    if status.st_mode & 0o077:
        try:
            os.fchmod(fd, MODE)
        except OSError:
            if status.st_uid != os.geteuid():  # else a file system that knows no modes, such as FAT
                os.close(fd)
                raise PermissionError(
                    errno.EPERM, "it belongs to another user, who could hold it for ever", str(path)
                ) from None
    return fd


def try_lock(fd: int, *, shared: bool = False) -> bool:
    """Whether the lock is held now; False where another process has it. NoLocksError where there are none."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _WITHOUT_LOCKS:
            raise NoLocksError(error.errno, f"the file system has no locks ({error.strerror})") from None
        raise
    return True


def is_held(path: Path) -> bool:
    """Whether a process has the lock file locked, also where it is another user's and cannot be opened."""
    try:
        fd = open_plain(path)
    except PermissionError:
        return _is_listed(path)
    except OSError:
        return False
    try:
        return not try_lock(fd, shared=True)
    except OSError:
        return False
    finally:
        os.close(fd)


def _is_listed(path: Path) -> bool:
    """Whether the kernel's list of locks has the file. It lacks those of other containers."""
    try:
        status = path.lstat()
        lines = _LOCKS.read_text().splitlines()
    except OSError:
        return False
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    return any(fields[1] == "FLOCK" and file in fields for fields in map(str.split, lines) if len(fields) > 1)


@contextlib.contextmanager
def lock_if_possible(path: Path, wait: Callable[[], None]) -> Iterator[bool]:
    """Holds the lock file, calling wait() while another process of this user does.

    Goes on without, and yields False, where it cannot be opened or the file system has no locks: for what a
    lock makes cheaper, not right.
    """
    try:
        fd = open_lock(path)
    except OSError:
        yield False
        return
    try:
        try:
            while not (held := try_lock(fd)):
                wait()
        except OSError:
            held = False
        yield held
    finally:
        os.close(fd)


def check_locks(directory: Path) -> None:
    """NoLocksError where files in the folder cannot be locked. Leaves nothing there.

    Other OSErrors are passed over: they say nothing of locks.
    """
    try:
        fd = _nameless(directory)
    except OSError:
        return
    try:
        try_lock(fd)
    except NoLocksError:
        raise
    except OSError:
        pass
    finally:
        os.close(fd)


def _nameless(directory: Path) -> int:
    """A new file that a kill cannot leave behind; where the file system has none, one that has lost its
    name."""
    flags = os.O_RDWR | os.O_CLOEXEC
    with contextlib.suppress(OSError):
        return os.open(directory, os.O_TMPFILE | flags, MODE)
    remove_leftovers(directory / "lock", idle_s=ABANDONED_S)
    probe = beside_name(directory / "lock")
    fd = os.open(probe, flags | os.O_CREAT | os.O_EXCL, MODE)
    with contextlib.suppress(OSError):
        probe.unlink()
    return fd
