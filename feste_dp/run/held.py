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
from feste_dp.errors import UsageError
from feste_dp.files.descriptors import spare
from feste_dp.files.writing import sync_directory, write_whole
from feste_dp.run.directory import RunDirectory, reason
from feste_dp.run.history import History
from feste_dp.run.lock import RunLock
from feste_dp.run.metrics import MetricsWriter

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
        self._kept: tuple[tuple[str, Callable[[], bool], Callable[[], None]], ...] = ()
        self._told: set[str] = set()
        self._follow: Callable[[RunDirectory], None] = lambda run: None

    def keep(
        self,
        config: bytes,
        tokenizer: bytes,
        metrics: MetricsWriter,
        history: History,
        lock: RunLock,
    ) -> None:
        """What is to be put back where it goes missing."""

        def there(name: str) -> Callable[[], bool]:
            return lambda: os.path.lexists(self.inside.path / name)

        def write(name: str, content: bytes) -> Callable[[], None]:
            return lambda: write_whole(self.inside.path / name, content)

        self._kept = (
            # first, for without it another process may write beside this one
            ("lock", lambda: lock.is_at(self.inside.lock), lambda: lock.put_back(self.inside)),
            ("checkpoints", self._has_checkpoints, self._make_checkpoints),
            ("config.yaml", there("config.yaml"), write("config.yaml", config)),
            ("tokenizer.json", there("tokenizer.json"), write("tokenizer.json", tokenizer)),
            (
                "metrics.csv",
                lambda: metrics.is_at(self.inside.metrics),
                lambda: _restore(self.inside.metrics, metrics),
            ),
            (
                "events.jsonl",
                lambda: history.is_at(self.inside.events),
                lambda: _restore(self.inside.events, history),
            ),
        )

    def follow(self, follow: Callable[[RunDirectory], None]) -> None:
        """Call this whenever `inside` is another, and now."""
        self._follow = follow
        follow(self.inside)

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
        if self.inside.path != place and not self._is_ours(self.inside.path):
            lines.append("/proc is gone: the run would not be followed if it were moved from now on")
            self.inside = RunDirectory(place)
            self._follow(self.inside)
        elif self.inside.path != place and not self._is_ours(place) and "" not in self._told:
            self._told.add("")
            lines.append(
                f"{self.path} is covered, by what was mounted there while the run trains: what is saved lies "
                "below it"
            )
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
        for name, is_there, put_back in self._kept:
            if is_there():
                continue
            line = f"{self.path / name} was removed while the run trains"
            try:
                with spare.lent():
                    put_back()
                lines.append(f"{line}: it is put back{', empty' if name == 'checkpoints' else ''}")
            except (OSError, UsageError) as error:
                why = reason(error) if isinstance(error, OSError) else self.shown(str(error))
                if name not in self._told:
                    lines.append(f"{line}, and cannot be put back: {why}")
                self._told.add(name)
        return lines

    def _has_checkpoints(self) -> bool:
        """A link stays, and no save follows it."""
        folder = self.inside.checkpoints
        return folder.is_dir() or folder.is_symlink()

    def _make_checkpoints(self) -> None:
        _put_aside(self.inside.checkpoints)
        self.inside.checkpoints.mkdir()
        sync_directory(self.inside.path)


def _restore(path: Path, written: MetricsWriter | History) -> None:
    _put_aside(path)
    written.put_back(path)


def _put_aside(path: Path) -> None:
    """What lies in the place of what is put back: whose it is, only its owner knows."""
    with contextlib.suppress(FileNotFoundError):
        path.rename(path.with_name(f"{path.name}.replaced"))
