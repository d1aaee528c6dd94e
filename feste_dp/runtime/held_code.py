"""The compiled code of a run, held in memory: a worker that starts late loads the same, though the cache was
removed meanwhile. (Compiled by itself it would have other bits.)"""

import contextlib
from pathlib import Path

from feste_dp.cache import make_private
from feste_dp.files.writing import write_whole
from feste_dp.kernels.code_cache import code_files, code_place, is_complete
from feste_dp.runtime.warmup import write_mark

_MODE = 0o600


class HeldCode:
    """Some 6 MB; none where the cache is not whole at the start."""

    def __init__(self) -> None:
        self._folder = code_place().path
        self._files: dict[Path, bytes] = {}
        with contextlib.suppress(OSError):
            if is_complete(self._folder):
                self._files = {path: path.read_bytes() for path in code_files(self._folder)}

    def put_back(self) -> None:
        """Make the cache whole again where it is not; where that cannot be, the worker says what it lacks."""
        if not self._files or is_complete(self._folder):
            return
        with contextlib.suppress(OSError):
            make_private(self._folder)
            for path, content in self._files.items():
                make_private(path.parent)
                write_whole(path, content, _MODE)
            write_mark(self._folder)
