"""Saves in a thread of their own, so that a step waits for a copy in memory and not for the disk."""

import contextlib
import copy
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feste_dp.checkpoint.filesystem import Filesystem, SaveError
from feste_dp.checkpoint.format import (
    PARAMS,
    Arrays,
    Manifest,
    ManifestFields,
    check_arrays,
    step_directory_name,
)
from feste_dp.checkpoint.joint_saving import Helpers
from feste_dp.checkpoint.pointers import BEST, LATEST, point
from feste_dp.checkpoint.retention import retain
from feste_dp.checkpoint.saving import remove_leftovers, write_checkpoint
from feste_dp.errors import UsageError
from feste_dp.files.descriptors import spare


@dataclass(frozen=True)
class SaveResult:
    """How a save ended. Warnings are of what is only convenient, pointers, deletions and help: each once a
    run."""

    step: int
    path: Path | None
    error: SaveError | None
    deleted_steps: tuple[int, ...]
    seconds: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Job:
    step: int
    fields: ManifestFields | None
    """None: there is nothing to save."""
    together: bool


class BackgroundWriter:
    """One writer thread and one staging copy of all arrays; one save in flight.

    After a commit the thread lets `latest` (and `best`, when the manifest's best step is this step) point at
    the new checkpoint and applies retention. All methods belong to one thread, that of the training loop.
    """

    def __init__(
        self,
        checkpoints_dir: Path,
        parameter_count: int,
        tensors: Sequence[str],
        *,
        keep: int,
        filesystem: Filesystem | None = None,
    ) -> None:
        """tensors are the names of the arrays that submit() will give, PARAMS first."""
        self._unsaid: list[str] = []
        self._said: set[str] = set()
        with self._convenience("leftovers"):
            remove_leftovers(checkpoints_dir, filesystem)
        self.checkpoints_dir = checkpoints_dir
        self._keep = keep
        self._filesystem = filesystem
        self._staging = {name: np.empty(parameter_count, np.float32) for name in tensors}
        self.helpers: Helpers | None = None
        """Other machines that write some of the files of what is saved together; set before any save."""
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._finished: deque[SaveResult | BaseException] = deque()
        self._idle = threading.Event()
        self._abandoned = False
        # A daemon: a run that stops at once must not wait for the disk, and a torn save is never committed.
        self._thread = threading.Thread(target=self._write_all, name="checkpoint-writer", daemon=True)
        self._thread.start()

    def catch_up(self, newest: Path, manifest: Manifest) -> None:
        """Do what a process that was killed right after its last commit had still to do. Before any save."""
        self._idle.wait()
        self._follow(newest, manifest.step, manifest.train.best_step)

    def submit(self, manifest_fields: ManifestFields, arrays: Arrays, *, together: bool = False) -> None:
        """Copies the arrays, which the caller may change again at once, and starts the save; together with
        the helpers, where they save the same.

        Waits first for the save in flight, if there is one.
        """
        if not self._thread.is_alive():
            raise ValueError("the checkpoint writer is closed")
        check_arrays(arrays)
        given, expected = arrays[PARAMS].size, self._staging[PARAMS].size
        if given != expected:
            raise ValueError(f"{given} parameters given where {expected} are expected")
        if tuple(arrays) != tuple(self._staging):
            raise ValueError(f"{tuple(arrays)} given where {tuple(self._staging)} are expected")
        self._idle.wait()
        for name, staged in self._staging.items():
            np.copyto(staged, arrays[name])
        self._idle.clear()
        self._jobs.put(_Job(manifest_fields.step, copy.deepcopy(manifest_fields), together))

    def forgo(self, step: int) -> None:
        """Nothing is to be saved of this step, whatever the helpers believe."""
        self._jobs.put(_Job(step, None, together=True))

    def poll(self) -> list[SaveResult]:
        """The saves that ended since the last call, without waiting; a fault of the program is raised."""
        results = []
        while self._finished:
            result = self._finished.popleft()
            if isinstance(result, BaseException):
                raise result
            results.append(result)
        return results

    def wait(self) -> list[SaveResult]:
        """As `poll`, after the save in flight has ended."""
        self._idle.wait()
        return self.poll()

    def abandon(self) -> None:
        """From now on `close` waits for nothing: the save in flight ends with the process, uncommitted unless
        it is done by then. What it leaves goes with the next save."""
        self._abandoned = True

    def close(self) -> list[SaveResult]:
        """As `wait`, and ends the thread. May be called again."""
        if self._abandoned:
            return []
        self._idle.wait()
        self._jobs.put(None)
        self._thread.join()
        return self.poll()

    def _write_all(self) -> None:
        for array in self._staging.values():
            array.fill(0)  # touches the pages, so that the first submit takes no longer than the others
        self._idle.set()
        while (job := self._jobs.get()) is not None:
            helpers = self.helpers if job.together else None
            try:
                if job.fields is not None:
                    with spare.lent():
                        self._finished.append(self._save(job.fields, helpers))
            except (
                BaseException
            ) as error:  # raised again by poll, in the thread that can do something about it
                self._finished.append(error)
            finally:
                if helpers is not None:
                    helpers.end(job.step)
                self._idle.set()

    def _save(self, fields: ManifestFields, helpers: Helpers | None) -> SaveResult:
        began = time.perf_counter()
        path: Path | None = None
        error: SaveError | None = None
        deleted: list[int] = []
        try:
            path = write_checkpoint(
                self.checkpoints_dir,
                fields,
                self._staging,
                filesystem=self._filesystem,
                helpers=helpers,
            )
        except SaveError as failure:
            error = failure
        except (OSError, MemoryError) as failure:  # a UsageError: it is not what a checkpoint can hold
            error = SaveError(
                f"checkpoint of step {fields.step} was not saved: {failure or type(failure).__name__}"
            )
        else:
            deleted = self._follow(path, fields.step, fields.train.best_step)
        for what, line in () if helpers is None else helpers.take_warnings():
            self._warn_once(what, line)
        warnings, self._unsaid = tuple(self._unsaid), []
        return SaveResult(fields.step, path, error, tuple(deleted), time.perf_counter() - began, warnings)

    def _follow(self, newest: Path, step: int, best_step: int | None) -> list[int]:
        """Let pointers and retention follow a commit; the steps that were deleted."""
        deleted: list[int] = []
        protected = () if best_step is None else (best_step,)
        with self._convenience("pointers"):
            point(self.checkpoints_dir, LATEST, newest, self._filesystem)
            if best_step is not None:
                best = self.checkpoints_dir / step_directory_name(best_step)
                if best.is_dir():
                    point(self.checkpoints_dir, BEST, best, self._filesystem)
        with self._convenience("deletions"):
            deleted = retain(
                self.checkpoints_dir, self._keep, protected, newest=step, filesystem=self._filesystem
            )
        return deleted

    @contextlib.contextmanager
    def _convenience(self, what: str) -> Iterator[None]:
        """Whatever fails in here is told of once, and nothing else fails for it."""
        try:
            yield
        except (SaveError, OSError, UsageError, MemoryError) as failure:
            self._warn_once(what, str(failure) or type(failure).__name__)

    def _warn_once(self, what: str, line: str) -> None:
        if what not in self._said:
            self._unsaid.append(line)
        if what:
            self._said.add(what)
