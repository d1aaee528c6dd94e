"""Reads a growing file again and again, each byte once. Knows nothing of what the file says."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from feste_dp.files.reading import open_plain

Row = TypeVar("Row")
_PIECE = 2**23
_LONGEST = 2**25
"""A row has some hundred bytes and perhaps a sample; a hole in a file from elsewhere may have a terabyte."""
Parse = Callable[[bytes], tuple[list[Row], int]]
"""The rows of a piece of the file, and how many bytes they take; the rest is read again with what follows."""


class Following(Generic[Row]):
    """The rows of a file so far, in one list that grows. A file that was exchanged or cut is read from its
    start, into a new one."""

    def __init__(self, path: Path, parse: Parse[Row]) -> None:
        self._path, self._parse = path, parse
        self._inode, self._offset = -1, 0
        self.rows: list[Row] = []

    def update(self) -> None:
        """Reads what is new. A missing file has no rows. Raises OSError, and what parse() raises."""
        try:
            fd = open_plain(self._path)
        except FileNotFoundError:
            self._inode, self._offset, self.rows = -1, 0, []
            return
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(fd)
            if status.st_ino != self._inode or status.st_size < self._offset:
                self._inode, self._offset, self.rows = status.st_ino, 0, []
            file.seek(self._offset)
            new: list[Row] = []
            offset, left = self._offset, b""
            while piece := file.read(_PIECE):
                left += piece
                rows, taken = self._parse(left)
                new += rows
                offset, left = offset + taken, left[taken:]
                if len(left) > _LONGEST:
                    raise ValueError(f"a row of more than {_LONGEST >> 20} MiB")
        self._offset = offset
        self.rows += new
