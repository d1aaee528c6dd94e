"""Opens what claims to be a file: waits for no FIFO, reads no device, follows a link only where asked.

A run or a folder of tokens from elsewhere may hold anything under a name that we know. `NotPlainFileError` is
an OSError, so that whoever reports `error.strerror` already says the right thing.
"""

import errno
import os
import stat
from pathlib import Path

_CHUNK = 1 << 20
_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISCHR, "a device"),
)


class NotPlainFileError(OSError):
    """Under the name lies something that is not a regular file, or one larger than it may be."""


def open_plain(path: Path, *, follow_links: bool = False) -> int:
    """A descriptor of the regular file, for reading. Raises OSError at once, whatever lies there.

    Links are followed in the folders of the path always, in its last part only where asked.
    """
    return open_checked(path, os.O_RDONLY, follow_links=follow_links)


def read_plain(path: Path, limit: int, *, follow_links: bool = False) -> bytes:
    """All of the regular file. Raises OSError, also where it has more than `limit` bytes."""
    fd = open_plain(path, follow_links=follow_links)
    try:
        size = os.fstat(fd).st_size
        if size > limit:
            raise _too_large(path, size, limit)
        content = bytearray()
        while chunk := os.read(fd, _CHUNK):
            content += chunk
            if len(content) > limit:  # it grows, or lies where files have no size, such as /proc
                raise _too_large(path, len(content), limit)
        return bytes(content)
    finally:
        os.close(fd)


def open_checked(path: Path, flags: int, mode: int = 0o666, *, follow_links: bool = False) -> int:
    """As os.open, but for regular files only and without waiting."""
    flags |= os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | (0 if follow_links else os.O_NOFOLLOW)
    try:
        fd = os.open(path, flags, mode)
    except OSError as error:
        if error.errno in (
            errno.ELOOP,
            errno.ENXIO,
            errno.EISDIR,
        ):  # a link, a socket or unread FIFO, a folder
            raise _refusal(path, follow_links, error) from None
        raise
    kind = kind_of(os.fstat(fd).st_mode)
    if kind is not None:
        os.close(fd)
        raise _not_plain(path, kind)
    return fd


def kind_of(mode: int) -> str | None:
    """What lies there in words, by its st_mode; None for a regular file."""
    return next((words for is_kind, words in _KINDS if is_kind(mode)), None)


def _refusal(path: Path, follow_links: bool, error: OSError) -> OSError:
    try:
        kind = kind_of(path.stat(follow_symlinks=follow_links).st_mode)
    except OSError:
        return error  # links in a circle
    return error if kind is None else _not_plain(path, kind)


def _not_plain(path: Path, kind: str) -> NotPlainFileError:
    return NotPlainFileError(errno.EINVAL, f"it is {kind}, not a regular file", str(path))


def _too_large(path: Path, size: int, limit: int) -> NotPlainFileError:
    return NotPlainFileError(
        errno.EFBIG, f"it has {size} bytes, more than the {limit} that are read", str(path)
    )
