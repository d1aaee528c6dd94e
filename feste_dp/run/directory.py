"""The directory of one run: the names of what lies in it, and whether it is one.

Knows nothing of what is written there. A run may come from elsewhere: what lies under its names is believed
to be a file only when it is one.
"""

import os
import re
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from feste_dp.errors import UsageError
from feste_dp.files.locks import is_held
from feste_dp.files.reading import kind_of, read_plain
from feste_dp.files.writing import is_leftover, write_whole

STAMP = "%Y%m%dT%H%M%SZ"
NAME_END = re.compile(r"-(\d{8}T\d{6}Z)(?:-(\d+))?$")
_REQUIRED = ("config.yaml", "tokenizer.json", "checkpoints")
_OWN_FILES = ("lock", "config.yaml", "log.txt", "events.jsonl", "metrics.csv", "finished")
_OWN_FOLDERS = ("checkpoints", "tensorboard", "wandb")
LOCK_TEXT = re.compile(r"([0-9]{1,10}) ([0-9TZ:-]{20})\n")
"""Process number and time of the holder."""


@dataclass(frozen=True)
class RunDirectory:
    """Where the files of a run are."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def finished(self) -> Path:
        """There where training has done all it was to do: for scripts, as the exit status of what started it
        may say little."""
        return self.path / "finished"

    @property
    def is_finished(self) -> bool:
        return self.finished.is_file() and not self.finished.is_symlink()

    def write_config(self, text: str) -> None:
        """Replaces config.yaml; OSError leaves the old one."""
        write_whole(self.config, text.encode())

    def write_finished(self, step: int, moment: datetime) -> None:
        """Raises OSError."""
        write_whole(self.finished, f"step {step} {time_text(moment)}\n".encode())


def open_run_directory(path: Path) -> RunDirectory:
    """The run in `path`; UsageError says what is missing, or which run is meant."""
    try:
        if not path.exists():
            raise UsageError(f"no run at {path}: there is no such directory")
        missing = [name for name in _REQUIRED if not (path / name).exists()]
        if not missing:
            return RunDirectory(path)
        for outer in list(path.absolute().parents)[:3]:
            if is_run(outer):
                raise UsageError(f"{path} is inside a run, not a run: give {outer}")
        if path.is_dir() and is_half_made(path):
            if is_held(RunDirectory(path).lock):
                raise UsageError(f"{path} is only being made by another process: wait a moment")
            raise UsageError(
                f"{path} is no run yet, for its start was interrupted before the first step: start it again "
                "in this directory"
            )
        if not path.is_dir():
            raise UsageError(f"{path} is a file: give the directory of a run")
        runs = [entry for entry in path.iterdir() if is_run(entry)]
        if runs:
            raise UsageError(
                f"{path} holds runs but is none itself: give one of them, the newest is {max(runs, key=_age)}"
            )
    except OSError as error:
        raise UsageError(f"cannot read {path}: {reason(error)}") from error
    raise UsageError(f"{path} is not a run: it has no {', no '.join(missing)}")


def is_run(path: Path) -> bool:
    """Whether a directory holds what every run has."""
    return all(os.access(path / name, os.F_OK) for name in _REQUIRED)  # unlike Path.exists, never raises


def is_half_made(path: Path) -> bool:
    """Whether a directory holds what an interrupted start leaves, and nothing that is anybody else's: a lock
    as ours are, perhaps a tokenizer and an empty checkpoints/, and no config. Raises OSError."""
    names = {entry.name for entry in path.iterdir()}
    run = RunDirectory(path)
    if "lock" not in names or "config.yaml" in names:
        return False
    if not all(is_leftover(name) for name in names - {"lock", "tokenizer.json", "checkpoints"}):
        return False
    try:
        text = read_plain(run.lock, 100).decode()
        empty = "checkpoints" not in names or (
            not run.checkpoints.is_symlink() and not any(run.checkpoints.iterdir())
        )
    except (OSError, UnicodeDecodeError):
        return False
    return empty and (not text or LOCK_TEXT.fullmatch(text) is not None)


def check_own_files(run: RunDirectory) -> None:
    """UsageError where what is written in the run would end up elsewhere: it may come from a stranger, and a
    link in it name any file of the user. A link to the run itself is nobody's but the user's."""
    for names, is_own, what in (
        (_OWN_FILES, stat.S_ISREG, "regular file"),
        (_OWN_FOLDERS, stat.S_ISDIR, "directory"),
    ):
        for name in names:
            try:
                mode = (run.path / name).lstat().st_mode
            except OSError:
                continue
            if not is_own(mode):
                found = kind_of(mode) or "a regular file"
                raise UsageError(
                    f"{run.path / name} is {found}, and nothing in a run is written to but what lies in it: "
                    f"put a {what} in its place"
                )


def _age(run: Path) -> tuple[str, int]:
    """Sorts runs by their start: the time in the name, else when the config was written."""
    if found := NAME_END.search(run.name):
        return found[1], int(found[2] or 1)
    written = (run / "config.yaml").stat().st_mtime
    return datetime.fromtimestamp(written, UTC).strftime(STAMP), 1


def time_text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def reason(error: BaseException) -> str:
    """What the system says, without the errno and the path that str() adds."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
