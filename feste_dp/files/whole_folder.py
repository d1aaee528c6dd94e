"""Puts a new folder on the disk whole or not at all: made beside its place, then renamed to it."""

import os
import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from feste_dp.errors import UsageError
from feste_dp.files.temporary import is_alive
from feste_dp.files.writing import sync_directory


def check_is_new(folder: Path) -> None:
    """UsageError unless nothing is there, or an empty folder. Raises OSError."""
    if folder.is_symlink() or (folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))):
        raise UsageError(f"output folder {folder} exists and is not empty: name a new one")


def put_folder(target: Path, fill: Callable[[Path], None]) -> bool:
    """Makes a folder, has it filled and synced, and gives it its name. False, and nothing left behind, when
    the name was taken meanwhile. Raises OSError and what `fill` raises."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_dead_siblings(target)
    beside = sibling(target)
    try:
        beside.mkdir()
        fill(beside)
        sync_directory(beside)
        try:
            beside.rename(target)
        except OSError:
            if target.is_dir() and any(target.iterdir()):
                return False
            raise
        sync_directory(target.parent)
        return True
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def sibling(path: Path) -> Path:
    """A name beside it that nobody else uses."""
    return path.with_name(f".{path.name[:100]}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def _remove_dead_siblings(path: Path) -> None:
    """Remove what this user's killed processes left beside it."""
    name = re.compile(re.escape(f".{path.name[:100]}.") + r"(\d+)-[0-9a-f]{8}\.tmp")
    for each in list(path.parent.iterdir()):
        process = name.fullmatch(each.name)
        if process is not None and not is_alive(int(process[1])) and each.lstat().st_uid == os.geteuid():
            shutil.rmtree(each, ignore_errors=True)
