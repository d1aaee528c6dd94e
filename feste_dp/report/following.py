"""Reads a growing file again and again, each byte once. Knows nothing of what the file says."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

Row = TypeVar("Row")
Parse = Callable[[bytes], tuple[list[Row], int]]
"""The rows of a piece of the file, and how many bytes they take; the rest is read again with what follows."""


class Following(Generic[Row]):
    """The rows of a file so far. A file that was exchanged or cut is read from its start."""

    def __init__(self, path: Path, parse: Parse[Row]) -> None:
        self._path, self._parse = path, parse
        self._inode, self._offset = -1, 0
        self.rows: list[Row] = []

    def update(self) -> None:
        """Reads what is new. A missing file has no rows. Raises OSError, and what parse() raises."""
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            self._inode, self._offset, self.rows = -1, 0, []
            return
        with file:
            status = os.fstat(file.fileno())
            if status.st_ino != self._inode or status.st_size < self._offset:
                self._inode, self._offset, self.rows = status.st_ino, 0, []
            file.seek(self._offset)
            rows, taken = self._parse(file.read())
        self._offset += taken
        self.rows = [*self.rows, *rows] if rows else self.rows
