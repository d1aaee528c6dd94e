"""`latest` and `best`: relative links to checkpoints, replaced in one step so that they never dangle.

Where links cannot be made (FAT, many shares) a pointer is a file that holds the name. In a run that was
copied by what follows links it is a folder, which says itself what it copies; by what leaves them out, it is
missing, and the manifests say what it was. All of them are read, and the next pointer takes their place.
"""

import contextlib
import re
import stat
from pathlib import Path

from feste_dp.checkpoint.filesystem import TEMPORARY, TRASH, Filesystem, saving_errors, unique_path
from feste_dp.checkpoint.format import MANIFEST_NAME, step_directory_name, step_of
from feste_dp.checkpoint.loading import read_manifest
from feste_dp.errors import UsageError
from feste_dp.files.reading import read_plain

LATEST = "latest"
BEST = "best"
_NAME_BYTES = 64
_OF_A_CHECKPOINT = re.compile(rf"{re.escape(MANIFEST_NAME)}|shard-\d\d-of-\d\d\.safetensors")


def point(checkpoints_dir: Path, name: str, checkpoint: Path, filesystem: Filesystem | None = None) -> None:
    """Lets `name` point at the committed `checkpoint`. SaveError when it cannot; the old one stands then."""
    fs = filesystem or Filesystem()
    with saving_errors(f"checkpoint {checkpoint} is saved, but {name!r} does not point at it"):
        step = step_of(checkpoint.name)
        if step is not None and step == pointed_step(checkpoints_dir, name):
            return
        temporary, place = unique_path(checkpoints_dir, TEMPORARY, name), checkpoints_dir / name
        try:
            try:
                fs.symlink(checkpoint.name, temporary)
            except OSError:
                temporary.unlink(missing_ok=True)
                _write_name(fs, temporary, checkpoint.name)
            copy = unique_path(checkpoints_dir, TRASH, name) if _is_copy(place) else None
            if copy is not None:
                fs.rename(place, copy)
            fs.rename(temporary, place)
            if copy is not None:
                with contextlib.suppress(OSError):  # what cannot be removed now goes with the next save
                    fs.remove(copy)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        fs.sync_directory(checkpoints_dir)


def pointed_step(checkpoints_dir: Path, name: str) -> int | None:
    """The step of the checkpoint that `name` points at; None when there is no such pointer or checkpoint."""
    target = _target(checkpoints_dir / name)
    step = step_of(target)
    return step if step is not None and (checkpoints_dir / target).is_dir() else None


def best_step(checkpoints_dir: Path, steps: list[int]) -> int | None:
    """The step that `best` points at; without a pointer, what the newest of the checkpoints `steps` says."""
    step = pointed_step(checkpoints_dir, BEST)
    if step is not None:
        return step
    for newest in reversed(steps):
        try:
            step = read_manifest(checkpoints_dir / step_directory_name(newest)).train.best_step
        except UsageError:
            continue
        return step if step in steps else None
    return None


def _target(place: Path) -> str:
    """The name of the checkpoint that a link, a file or a folder stands for, else empty."""
    try:
        mode = place.lstat().st_mode
        if stat.S_ISLNK(mode):
            return str(place.readlink())
        if stat.S_ISDIR(mode):
            return step_directory_name(read_manifest(place).step)
        return read_plain(place, _NAME_BYTES).decode("ascii").strip()
    except (OSError, ValueError, UsageError):
        return ""


def _is_copy(place: Path) -> bool:
    """Whether a folder lies there that holds a checkpoint's files and nothing else: no more than a copy."""
    if place.is_symlink() or not place.is_dir():
        return False
    return all(_OF_A_CHECKPOINT.fullmatch(entry.name) for entry in place.iterdir())


def _write_name(fs: Filesystem, path: Path, name: str) -> None:
    descriptor = fs.create(path)
    try:
        fs.write(descriptor, memoryview(f"{name}\n".encode()))
        fs.sync(descriptor)
    finally:
        fs.close(descriptor)
