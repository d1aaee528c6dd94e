"""Makes the directory of a run, so that a kill at any moment leaves nothing in the way of the next start.

The order is the promise: the directory, its lock, what it holds, and config.yaml last, in one step. Without
config.yaml it is no run; with a lock that nobody holds and no file that is not ours it is what an interrupted
start left, and the next one takes the place.
"""

import contextlib
import itertools
import os
import re
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

from feste_dp.errors import UsageError
from feste_dp.files.locks import NoLocksError, check_locks, is_held
from feste_dp.files.writing import is_leftover, sync_directory, write_whole
from feste_dp.interruption import held
from feste_dp.run.directory import NAME_END, STAMP, RunDirectory, is_half_made, is_run, reason
from feste_dp.run.lock import RunLock
from feste_dp.wording import command

_ABANDONED_S = 60.0
"""After this long nobody is between making a directory and its lock."""


def create_run_directory(
    parent: Path, name: str, now: datetime, *, config: str, tokenizer: bytes | Path
) -> RunDirectory:
    """A new directory `<parent>/<name>-<UTC time>` (then -2, -3 .. within one second) with config.yaml,
    tokenizer.json and checkpoints/. UsageError leaves nothing behind."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UsageError(f"run name {name!r}: use letters, digits, '.', '_' and '-' only")
    check_can_create(parent)
    _remove_half_made(parent, name)
    stem = f"{name}-{now.astimezone(UTC).strftime(STAMP)}"
    for number in itertools.count(1):
        path = parent / (stem if number == 1 else f"{stem}-{number}")
        if not os.path.lexists(path):
            with contextlib.suppress(FileExistsError):  # another run was faster
                return _create(path, config, tokenizer, now)
    raise AssertionError("unreachable")


def create_run_directory_at(
    path: Path, *, config: str, tokenizer: bytes | Path, now: datetime | None = None
) -> RunDirectory:
    """As create_run_directory, in exactly `path`, which must be empty, not exist, or hold what an interrupted
    start left."""
    check_can_create_at(path)
    try:
        return _create(path, config, tokenizer, now or datetime.now(UTC), existing=path.is_dir())
    except FileExistsError as error:
        raise UsageError(f"{path} has just been made by another process") from error


def check_can_create_at(path: Path) -> None:
    """UsageError unless `path` can become a run directory: empty or absent, in a place we may write."""
    check_can_create(path)
    try:
        is_free = not path.is_dir() or not any(path.iterdir()) or is_half_made(path)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {reason(error)}") from error
    if not is_free:
        hint = f"; to continue its run: {command('resume', path)}" if is_run(path) else ""
        raise UsageError(f"{path} is not empty: give a new or empty directory{hint}")
    if is_held(RunDirectory(path).lock):
        raise UsageError(f"{path} is being made a run by another process: give another directory")


def check_can_create(path: Path) -> None:
    """UsageError unless `path` is a directory, or can become one, in which we may write."""
    try:
        nearest = _nearest(path)
        if not nearest.is_dir():
            raise UsageError(f"{nearest} is not a directory: choose another place for the run")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise UsageError(f"cannot write in {nearest}: choose another place for the run")
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot use {path} for the run: {reason(error)}") from error


def check_can_lock(path: Path) -> None:
    """UsageError where a run in `path` could not be held by one process alone. Leaves nothing there."""
    try:
        check_locks(_nearest(path))
    except NoLocksError as error:
        raise UsageError(
            f"a run in {path} cannot be locked: {error.strerror}; choose a place on another file system"
        ) from error


def _nearest(path: Path) -> Path:
    nearest = path.absolute()
    while not os.path.lexists(nearest):
        nearest = nearest.parent
    return nearest


def _create(
    path: Path, config: str, tokenizer: bytes | Path, now: datetime, existing: bool = False
) -> RunDirectory:
    """Makes `path` unless it is `existing`, and fills it. FileExistsError when it is there after all,
    UsageError when it cannot be made; either leaves what was there before."""
    run = RunDirectory(path)
    made: list[Path] = []
    claimed = False
    try:
        with held:  # a signal comes when it is known what there is to remove
            content = tokenizer if isinstance(tokenizer, bytes) else tokenizer.read_bytes()
            for outer in reversed([each for each in path.parents if not each.is_dir()]):
                outer.mkdir(exist_ok=True)
                made.append(outer)
            if not existing:
                path.mkdir()
                made.append(path)
            with RunLock(run, now):  # of two that want the same directory, one gets no further
                if not is_half_made(path):
                    raise FileExistsError
                claimed = True
                _clear(run)
                run.checkpoints.mkdir()
                write_whole(run.tokenizer, content)
                for directory in (*made, *path.parents[: len(made)]):
                    sync_directory(directory)
                run.write_config(config)
        return run
    except BaseException as error:
        if path in made and claimed:
            shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):
            if existing and claimed:
                _clear(run)
                run.lock.unlink(missing_ok=True)
            for directory in reversed(made):  # stops where another run is in it by now
                if directory != path:
                    directory.rmdir()
        if isinstance(error, FileExistsError) and os.path.lexists(path):
            raise
        if isinstance(error, OSError | ValueError):
            raise UsageError(f"cannot make the run directory {path}: {reason(error)}") from error
        raise


def _clear(run: RunDirectory) -> None:
    """Removes what was made so far of a run that is none yet, but for its lock."""
    run.tokenizer.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        run.checkpoints.rmdir()
    for path in run.path.iterdir():
        if is_leftover(path.name):
            path.unlink()


def _remove_half_made(parent: Path, name: str) -> None:
    """Clears what interrupted starts of runs of this name left. Never what somebody is making now."""
    with contextlib.suppress(OSError):
        for path in list(parent.iterdir()):
            stamp = NAME_END.search(path.name)
            if stamp is None or path.name[: stamp.start()] != name or is_run(path):
                continue
            run = RunDirectory(path)
            if not any(path.iterdir()) and time.time() - path.stat().st_mtime > _ABANDONED_S:
                path.rmdir()
            elif not is_half_made(path):
                continue
            with contextlib.suppress(OSError, UsageError), RunLock(run, datetime.now(UTC)):
                if is_half_made(path):
                    _clear(run)
                    run.lock.unlink()
                    path.rmdir()
