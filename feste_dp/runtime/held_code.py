"""The compiled code of a run, held in memory: a worker that starts late loads the same, though the cache was
removed meanwhile. (Compiled by itself it would have other bits.)"""

import contextlib
from pathlib import Path

from feste_dp.cache import make_private
from feste_dp.files.temporary import temporary_folder, temporary_places
from feste_dp.files.writing import write_whole
from feste_dp.kernels.code_cache import code_files, code_place, is_complete
from feste_dp.runtime.warmup import write_mark

_MODE = 0o600


class HeldCode:
    """Some 6 MB; none where the cache is not whole at the start. `folder` is where the code lies now."""

    def __init__(self) -> None:
        self.folder = code_place().path
        self._files: dict[Path, bytes] = {}
        self._temporary = contextlib.ExitStack()
        with contextlib.suppress(OSError):
            if is_complete(self.folder):
                self._files = {
                    path.relative_to(self.folder): path.read_bytes() for path in code_files(self.folder)
                }

    def put_back(self) -> None:
        """Make the cache whole again where it is not, or a temporary one where that cannot be; where there is
        no place at all, the worker says what it lacks."""
        if not self._files or is_complete(self.folder):
            return
        with contextlib.suppress(OSError):
            return self._write(self.folder)
        self.close()
        with contextlib.suppress(OSError):
            place = self._temporary.enter_context(temporary_folder("code", temporary_places()))
            self._write(place)
            self.folder = place

    def close(self) -> None:
        self._temporary.close()

    def _write(self, folder: Path) -> None:
        make_private(folder)
        for name in [path for path in code_files(folder) if path.relative_to(folder) not in self._files]:
            name.unlink()
        for name, content in self._files.items():
            make_private((folder / name).parent)
            write_whole(folder / name, content, _MODE)
        write_mark(folder)
