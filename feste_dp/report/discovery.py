"""Finds runs and scaling studies below a directory, and never leaves it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from feste_dp.errors import UsageError
from feste_dp.run.directory import is_run
from feste_dp.scale.study import FILE_NAME

DEPTH = 4
"""How far below the directory a run may lie."""


@dataclass(frozen=True)
class Found:
    """Where what a page may show lies, by the name that its address has: the path below the directory."""

    runs: dict[str, Path]
    studies: dict[str, Path]


def find(directory: Path) -> Found:
    """What there is now. Links to directories are not followed. UsageError where the directory is missing."""
    if not directory.is_dir():
        raise UsageError(f"{directory}: no such directory: give the one that holds the runs")
    found = Found({}, {})
    for path in _directories(directory, DEPTH):
        name = path.relative_to(directory).as_posix()
        name = directory.absolute().name if name == "." else name
        if is_run(path):
            found.runs[name] = path
        elif os.access(path / FILE_NAME, os.R_OK) and (path / FILE_NAME).is_file():
            found.studies[name] = path
    return found


def _directories(directory: Path, depth: int) -> Iterator[Path]:
    yield directory
    if depth == 0 or is_run(directory):
        return
    try:
        with os.scandir(directory) as entries:
            inside = sorted(Path(entry) for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return
    for path in inside:
        yield from _directories(path, depth - 1)
