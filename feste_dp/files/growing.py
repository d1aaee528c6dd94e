"""A file that only grows, line by line. Knows nothing of what the lines say.

A kill leaves at most one partial last line: readers drop it, and the next writer cuts it off. Only a regular
file of the folder itself is written to, never what a link in its place names.
"""

import contextlib
import os
from pathlib import Path

from feste_dp.files.reading import open_checked, read_plain
from feste_dp.files.writing import write_whole

_BLOCK = 65536


class LineFile:
    """Appends lines to `path`, made if need be; a partial last line is cut first.

    OSError from any call leaves the file whole up to its last full line, and a later line may be tried.
    """

    def __init__(self, path: Path) -> None:
        self._fd = open_growing(path)
        try:
            self._end = _end_of_last_line(self._fd)
            os.ftruncate(self._fd, self._end)
        except BaseException:
            os.close(self._fd)
            raise

    def append(self, line: str) -> None:
        """Hands the line, without its newline, to the system in one write call."""
        self._end = append_whole(self._fd, self._end, f"{line}\n".encode(errors="backslashreplace"))

    def is_at(self, path: Path) -> bool:
        """Whether what is written is what has this name."""
        return is_at(self._fd, path)

    def put_back(self, path: Path) -> None:
        """Write all lines so far anew, at `path`, and go on there. OSError leaves everything as it was."""
        self._fd = put_back(self._fd, self._end, path)

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


def open_growing(path: Path) -> int:
    """A descriptor to read and write the regular file `path`, made if need be. OSError for anything else.

    One that has a second name, as in a copy made of hard links, gets a copy of its own first: what grows here
    must not grow there.
    """
    fd = open_checked(path, os.O_RDWR | os.O_CREAT)
    try:
        status = os.fstat(fd)
        if status.st_nlink > 1:
            write_whole(path, read_plain(path, status.st_size))
            os.close(fd)
            fd = open_checked(path, os.O_RDWR)
    except BaseException:
        os.close(fd)
        raise
    return fd


def is_at(fd: int, path: Path) -> bool:
    """Whether the open file has this name; True where nobody can tell."""
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False
    except OSError:
        return True


def put_back(fd: int, end: int, path: Path) -> int:
    """Write the first `end` bytes of an open file that has lost its name anew, at `path`; returns the new
    descriptor, and closes the old. OSError leaves everything as it was."""
    write_whole(path, os.pread(fd, end, 0))
    new = open_growing(path)
    os.close(fd)
    return new


def append_line(path: Path, line: str) -> None:
    """One whole line, below what a kill may have left without its end."""
    fd = open_growing(path)
    try:
        end = os.fstat(fd).st_size
        start = "\n" if end and os.pread(fd, 1, end - 1) != b"\n" else ""
        append_whole(fd, end, f"{start}{line}\n".encode(errors="backslashreplace"))
    finally:
        os.close(fd)


def append_whole(fd: int, end: int, data: bytes) -> int:
    """Writes `data` at `end`, in one call unless the disk fills up; returns the new end. OSError leaves the
    file cut back to `end`. The descriptor must not be in append mode, which would ignore `end`."""
    written = 0
    try:
        while written < len(data):
            written += os.pwrite(fd, data[written:], end + written)
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(fd, end)
        raise
    return end + written


def _end_of_last_line(fd: int) -> int:
    """The offset behind the last newline, 0 where there is none."""
    start = os.fstat(fd).st_size
    while start > 0:
        stop, start = start, max(0, start - _BLOCK)
        newline = os.pread(fd, stop - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
    return 0
