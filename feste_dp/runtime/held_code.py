"""The compiled code of a run, held in memory: a worker that starts late loads the same, though the cache was
removed meanwhile. (Compiled by itself it would have other bits.)"""

import contextlib
from pathlib import Path

from feste_dp.files.writing import write_whole
from feste_dp.runtime import warmup

_MODE = 0o600


class HeldCode:
    """Some 6 MB; none where the cache is not whole at the start."""

    def __init__(self) -> None:
        self._files: dict[Path, bytes] = {}
        with contextlib.suppress(OSError):
            if warmup.is_complete():
                self._files = {path: path.read_bytes() for path in warmup.compiled_files()}

    def put_back(self) -> None:
        """Make the cache whole again where it is not; where that cannot be, the worker says what it lacks."""
        if not self._files or warmup.is_complete():
            return
        with contextlib.suppress(OSError):
            for path, content in self._files.items():
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_whole(path, content, _MODE)
            warmup.write_mark()
