"""The directory of a run while it trains, held by descriptor: moved, it is written to where it is now.

Notices what others do to it, tells each thing once, and puts back what is missing and still known. Never
makes the directory anew: what lay there is gone, and one without its config and tokenizer is no run.
"""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from feste_dp.checkpoint.format import step_directory_name
from feste_dp.files.writing import sync_directory, write_whole
from feste_dp.train.metrics import MetricsWriter
from feste_dp.train.run_directory import RunDirectory, reason

LOOK_EVERY_S = 1.0
_DESCRIPTORS = Path("/proc/self/fd")


class HeldRun:
    """Use as a context manager. `inside` is the run as the files in it are opened, `path` where people find
    it, `is_gone` whether there is no such directory any more."""

    def __init__(self, run: RunDirectory, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._looked_at = clock, clock()
        self.path, self.is_gone = run.path, False
        self._place = run.path.absolute()
        self._fd = os.open(self._place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        inside = _DESCRIPTORS / str(self._fd)
        self.inside = RunDirectory(inside if self._is_ours(inside) else self._place)
        self._config = self._tokenizer = b""
        self._metrics: MetricsWriter | None = None
        self._told: set[str] = set()

    def keep(self, config: bytes, tokenizer: bytes, metrics: MetricsWriter) -> None:
        """What is to be put back where it goes missing."""
        self._config, self._tokenizer, self._metrics = config, tokenizer, metrics

    def look(self, *, at_once: bool = False) -> list[str]:
        """What has happened to the directory since, a line each. Once a second, unless at_once."""
        now = self._clock()
        if self._fd < 0 or self.is_gone or (not at_once and now - self._looked_at < LOOK_EVERY_S):
            return []
        self._looked_at = now
        place = self._place_now()
        if place is None:
            self.is_gone = True
            return [
                f"{self.path} was removed while the run trains (process {os.getpid()}): what was saved is "
                "lost, and nothing more can be saved"
            ]
        lines = []
        if place != self._place:
            lines.append(f"{self.path} was moved while the run trains: the run goes on in {place}")
            self.path = self._place = place
        return lines + self._put_back()

    def holds(self, step: int) -> bool:
        """Whether there is a checkpoint of this step."""
        return (self.inside.checkpoints / step_directory_name(step)).is_dir()

    def shown(self, line: str) -> str:
        """The line with the run's path as people know it."""
        return line.replace(str(self.inside.path), str(self.path))

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def __enter__(self) -> "HeldRun":
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _place_now(self) -> Path | None:
        """Where the directory is; None where it is nowhere, the old place where nobody can tell."""
        if self._is_ours(self._place):
            return self._place
        if os.fstat(self._fd).st_nlink == 0:
            return None
        with contextlib.suppress(OSError):
            name = Path((_DESCRIPTORS / str(self._fd)).readlink())
            if self._is_ours(name):
                return name
        return self._place

    def _is_ours(self, path: Path) -> bool:
        try:
            return os.path.samestat(path.stat(), os.fstat(self._fd))
        except OSError:
            return False

    def _put_back(self) -> list[str]:
        lines = []
        run = self.inside
        for name, path, put in (
            ("checkpoints", run.checkpoints, self._make_checkpoints),
            ("config.yaml", run.config, lambda: write_whole(run.config, self._config)),
            ("tokenizer.json", run.tokenizer, lambda: write_whole(run.tokenizer, self._tokenizer)),
            ("metrics.csv", run.metrics, self._restore_metrics),
        ):
            if self._metrics is None or (
                self._metrics.is_at(path) if path == run.metrics else os.path.lexists(path)
            ):
                continue
            line = f"{self.path / name} was removed while the run trains"
            try:
                put()
                lines.append(f"{line}: it is put back{', empty' if path == run.checkpoints else ''}")
            except OSError as error:
                if name not in self._told:
                    lines.append(f"{line}, and cannot be put back: {reason(error)}")
                self._told.add(name)
        return lines

    def _make_checkpoints(self) -> None:
        self.inside.checkpoints.mkdir()
        sync_directory(self.inside.path)

    def _restore_metrics(self) -> None:
        assert self._metrics is not None
        path = self.inside.metrics
        with contextlib.suppress(FileNotFoundError):
            path.rename(path.with_name(f"{path.name}.replaced"))  # another file: whose, only its owner knows
        self._metrics.put_back(path)
