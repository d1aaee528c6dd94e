"""Which checkpoints a run has, and which of them is the newest whole one. Changes nothing on disk."""

from dataclasses import dataclass
from pathlib import Path

from feste_dp.checkpoint.format import step_of
from feste_dp.checkpoint.loading import verify_checkpoint
from feste_dp.checkpoint.pointers import LATEST, best_step, pointed_step
from feste_dp.errors import UsageError

ATTEMPTS = 20
"""How often a reader looks for another checkpoint where a live run removes the one that it reads."""


@dataclass(frozen=True)
class CheckpointInfo:
    """One checkpoint directory. `problems` is None where nobody asked for verification, empty when whole."""

    step: int
    path: Path
    size_bytes: int
    is_best: bool
    is_latest: bool
    problems: tuple[str, ...] | None

    @property
    def whole(self) -> bool | None:
        return None if self.problems is None else not self.problems


def list_checkpoints(checkpoints_dir: Path, *, verify: bool = False) -> list[CheckpointInfo]:
    """The checkpoints in order of their steps, oldest first; none when the directory does not exist."""
    found = step_directories(checkpoints_dir)
    steps = [step for step, _ in found]
    best, latest = best_step(checkpoints_dir, steps), pointed_step(checkpoints_dir, LATEST)
    latest = max(steps, default=None) if latest is None else latest
    infos = []
    for step, path in found:
        try:
            size_bytes = sum(file.lstat().st_size for file in path.iterdir())
        except FileNotFoundError:  # retention of a live run has just removed it
            continue
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
        problems = tuple(verify_checkpoint(path)) if verify else None
        if problems and not path.exists():
            continue
        infos.append(CheckpointInfo(step, path, size_bytes, step == best, step == latest, problems))
    return infos


def newest_whole(checkpoints_dir: Path) -> tuple[Path, list[str]]:
    """The newest checkpoint without damage, and one line per damaged file of those newer than it.

    UsageError when no checkpoint is whole. One that a live run removes while it is read is not damaged: the
    run has a newer one by then, which is looked for.
    """
    for _ in range(ATTEMPTS):
        damages: list[str] = []
        removed = False
        for _, path in reversed(step_directories(checkpoints_dir)):
            problems = verify_checkpoint(path)
            if not problems:
                return path, damages
            if path.exists():
                damages += problems
            else:
                removed = True
        if not removed:
            break
    if damages:
        raise UsageError(f"{checkpoints_dir}: every checkpoint is damaged: {'; '.join(damages)}")
    raise UsageError(f"{checkpoints_dir}: there is no checkpoint")


def step_directories(checkpoints_dir: Path) -> list[tuple[int, Path]]:
    """(step, path) of every directory with a checkpoint's final name, in order of the steps."""
    if not checkpoints_dir.is_dir():
        return []
    try:
        found = [(step_of(path.name), path) for path in checkpoints_dir.iterdir() if path.is_dir()]
    except OSError as error:
        raise UsageError(f"{checkpoints_dir}: cannot be read: {error.strerror}") from None
    return sorted((step, path) for step, path in found if step is not None)
