"""Puts a file on the disk whole or not at all, and makes a folder's new names last.

Knows the errors with which file systems refuse to sync a folder: nowhere else are they written down.
"""

import contextlib
import errno
import os
import re
import secrets
import time
from pathlib import Path

from feste_dp.interruption import held

_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{16}\.tmp", re.DOTALL)
ABANDONED_S = 60.0
"""No file takes so long to write here."""
_CANNOT_SYNC = {
    errno.EINVAL,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EBADF,
    errno.EISDIR,
    errno.EPERM,
    errno.EACCES,
}
"""What network, FUSE and foreign file systems answer to an fsync of a folder: there the rename must do. Not
EIO or ENOSPC, which say that something was lost."""


def write_whole(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Writes beside, fsyncs, renames: after a crash `path` holds the old content or the new, whole.

    A link at `path` is replaced, not followed. OSError leaves the old file and nothing beside it. What a
    killed writer left goes with a later one.
    """
    with held:
        remove_leftovers(path, idle_s=ABANDONED_S)
        _write_whole(path, content, mode)


def _write_whole(path: Path, content: bytes, mode: int) -> None:
    beside = beside_name(path)
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        try:
            write_all(fd, content)
            os.fsync(fd)
        finally:
            os.close(fd)
        beside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
    sync_directory(path.parent)


def write_all(fd: int, content: bytes | memoryview) -> None:
    """Every byte, in as many calls as the system needs."""
    left = memoryview(content)
    while left:
        left = left[os.write(fd, left) :]


def sync_directory(path: Path) -> None:
    """Forces the names in a folder to the disk, where its file system can do that."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:  # a folder that may be written but not listed
        return
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(fd)


def beside_name(path: Path) -> Path:
    """A name in the same folder that nobody else uses; `is_leftover` knows it again."""
    return path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}.tmp")


def remove_leftovers(path: Path, idle_s: float = 0.0) -> None:
    """Clears what dead writers of `path` left beside it, as far as it goes: all, which is only for who keeps
    others out, or what nobody has written to for so long."""
    start, before = f".{path.name[:40]}.", time.time() - idle_s
    with contextlib.suppress(OSError):
        for each in list(path.parent.iterdir()):
            if each.name.startswith(start) and is_leftover(each.name):
                with contextlib.suppress(OSError):
                    if not idle_s or each.lstat().st_mtime < before:
                        each.unlink()


def is_leftover(name: str) -> bool:
    """Whether what has this name was being written when its process died, or is being written now."""
    return _LEFTOVER.fullmatch(name) is not None
