"""Writes this machine's share of checkpoints that another commits, in its own thread: see joint_saving.py."""

import contextlib
import os
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from feste_dp.checkpoint.background import SaveResult
from feste_dp.checkpoint.filesystem import Filesystem
from feste_dp.checkpoint.format import Arrays, ManifestFields
from feste_dp.checkpoint.joint_saving import Wire, owner
from feste_dp.checkpoint.shard_files import shard_chunks, write_file
from feste_dp.checkpoint.shards import FILE_COUNT, shard_name, split_evenly
from feste_dp.files.descriptors import spare

HUNG_S = 300.0
"""A disk that takes nothing for so long, or a first machine that wants nothing, is waited for no longer."""
_SEEN_LATE_S = 10.0
"""So long after it was made, a network file system may not show a folder yet."""
_LOOK_S = 0.05


class PartWriter:
    """Has copies of this machine's ranges only. Methods belong to one thread, that of the training loop.

    What fails is told to the first machine, which writes these files itself then.
    """

    def __init__(
        self,
        wire: Wire,
        machine: int,
        parameter_count: int,
        tensors: Sequence[str],
        *,
        file_count: int = FILE_COUNT,
        filesystem: Filesystem | None = None,
        hung_s: float = HUNG_S,
    ) -> None:
        self._wire, self._fs, self._hung_s = wire, filesystem or Filesystem(), hung_s
        ranges = split_evenly(parameter_count, file_count)
        own = [file for file in range(len(ranges)) if owner(file, len(wire.names)) == machine]
        self._ranges = {file: ranges[file] for file in own}
        self._count = len(ranges)
        self._staging = {
            file: {name: np.empty(stop - start, np.float32) for name in tensors}
            for file, (start, stop) in self._ranges.items()
        }
        for arrays in self._staging.values():
            for array in arrays.values():
                array.fill(0)  # touches the pages, so that the first submit takes no longer than the others
        self._jobs: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._idle = threading.Event()
        self._idle.set()
        self._is_out = not own
        self._moved_at = 0.0
        self._unread: list[Any] | None = None
        self._thread = threading.Thread(target=self._help_all, name="part-writer", daemon=True)
        self._thread.start()

    def submit(self, manifest_fields: ManifestFields, arrays: Arrays, *, together: bool = False) -> None:
        """Copies this machine's ranges, and writes them when the first machine says where. Nothing where it
        saves alone. Waits first for the save in flight."""
        if not together or self._is_out or not self._wait():
            return
        for file, (start, stop) in self._ranges.items():
            for name, staged in self._staging[file].items():
                np.copyto(staged, arrays[name][start:stop])
        self._idle.clear()
        self._moved_at = time.monotonic()
        self._jobs.put(manifest_fields.step)

    def forgo(self, step: int) -> None:
        """The first machine says so."""

    def wait(self) -> list[SaveResult]:
        """Return when the save in flight is done, by all or without this machine."""
        self._wait()
        return []

    def poll(self) -> list[SaveResult]:
        return []

    def close(self) -> None:
        """Ends the thread, unless it hangs. May be called again."""
        if self._wait():
            self._jobs.put(None)
            self._thread.join()

    def _wait(self) -> bool:
        """Whether the thread has nothing to do; one that hangs takes no further part."""
        while not self._idle.wait(min(1.0, self._hung_s)):
            if time.monotonic() - self._moved_at > self._hung_s:
                self._is_out = True
                return False
        return True

    def _help_all(self) -> None:
        while (step := self._jobs.get()) is not None:
            try:
                self._help(step)
            except Exception:  # the first machine hears nothing more, and does without
                self._is_out = True
            finally:
                self._idle.set()

    def _help(self, step: int) -> None:
        """Until the first machine wants nothing for this step any more."""
        while self._wire.is_up(0) and time.monotonic() - self._moved_at < self._hung_s:
            match self._next():
                case ["begin", int(at), bytes(place)] if at <= step:
                    folder = Path(os.fsdecode(place))
                    if at == step:
                        self._write(folder)
                    else:
                        self._refuse(folder, "is past that step")
                case ["begin", _, _] as words:
                    self._unread = words
                    return
                case ["end", int(at)] if at >= step:
                    return
                case ["out"]:
                    self._is_out = True
                    return

    def _next(self) -> list[Any] | None:
        if self._unread is not None:
            words, self._unread = self._unread, None
            return words
        come = self._wire.receive(_LOOK_S)
        return None if come is None else come[1]

    def _write(self, folder: Path) -> None:
        self._wait_for(folder)
        for file, (start, stop) in self._ranges.items():
            chunks = self._seen_to_move(shard_chunks(self._staging[file], 0, stop - start))
            try:
                with spare.lent():
                    size, sha256 = write_file(self._fs, folder / shard_name(file, self._count), chunks)
            except OSError as error:
                self._refuse(folder, error.strerror or str(error))
                return
            self._wire.send(0, ["part", folder.name, file, size, sha256])

    def _seen_to_move(self, chunks: Iterable[memoryview]) -> Iterator[memoryview]:
        for chunk in chunks:
            self._moved_at = time.monotonic()
            yield chunk

    def _wait_for(self, folder: Path) -> None:
        late = time.monotonic() + _SEEN_LATE_S
        while time.monotonic() < late and self._wire.is_up(0):
            with contextlib.suppress(OSError):
                if folder.is_dir():
                    return
            time.sleep(_LOOK_S)

    def _refuse(self, folder: Path, reason: str) -> None:
        self._wire.send(0, ["failed", folder.name, reason])
