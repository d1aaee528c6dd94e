"""A file that only grows, line by line. Knows nothing of what the lines say.

A kill leaves at most one partial last line: readers drop it, and the next writer cuts it off. Only a regular
file of the folder itself is written to, never what a link in its place names.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Self

from feste_dp.files.reading import open_checked, read_plain
from feste_dp.files.writing import write_whole

_BLOCK = 65536


class GrowingFile:
    """Appends to the file `path`, made if need be, behind what is whole of it; the rest is cut first.

    OSError from any call leaves the file as it was after the last write, and a later one may be tried.
    """

    def __init__(self, path: Path, whole: Callable[[int], int], head: bytes = b"") -> None:
        """`whole` says how many bytes of an open file are whole; `head` is what a new file begins with."""
        self._head = head
        self._fd = open_growing(path)
        try:
            self._end = whole(self._fd)
            os.ftruncate(self._fd, self._end)
            if not self._end:
                with contextlib.suppress(OSError):  # a full disk: the head comes with the first write
                    self._write(b"")
        except BaseException:
            os.close(self._fd)
            raise

    def _write(self, data: bytes) -> None:
        """Hands it to the system in one write call."""
        head = b"" if self._end else self._head
        self._end = append_whole(self._fd, self._end, head + data)

    def sync(self) -> None:
        """Returns when what was written is on the disk."""
        os.fsync(self._fd)

    def is_at(self, path: Path) -> bool:
        """Whether what is written is what has this name."""
        return is_at(self._fd, path)

    def put_back(self, path: Path) -> None:
        """Write all so far anew, at `path`, where the file has lost its name, and go on there. OSError leaves
        everything as it was."""
        write_whole(path, os.pread(self._fd, self._end, 0))
        new = open_growing(path)
        os.close(self._fd)
        self._fd = new

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


class LineFile(GrowingFile):
    """A growing file of lines, whole up to its last full line."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _end_of_last_line)

    def append(self, line: str) -> None:
        """The line without its newline, in one write call."""
        self._write(f"{line}\n".encode(errors="backslashreplace"))


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
