"""The directory of one run: made whole or not at all, opened by one writer at a time, with its log.

Knows the names of what lies in it, not what is written there.
"""

import contextlib
import fcntl
import itertools
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from feste_dp.errors import UsageError
from feste_dp.files.growing import append_line
from feste_dp.files.writing import write_whole

STAMP = "%Y%m%dT%H%M%SZ"
_NAME_END = re.compile(r"-(\d{8}T\d{6}Z)(?:-(\d+))?$")
_REQUIRED = ("config.yaml", "tokenizer.json", "checkpoints")
_LOCK_TRIES, _LOCK_PAUSE_S = 5, 0.01
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


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
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def write_config(self, text: str) -> None:
        """Replaces config.yaml; OSError leaves the old one."""
        write_whole(self.config, text.encode())


def create_run_directory(
    parent: Path, name: str, now: datetime, *, config: str, tokenizer: bytes | Path
) -> RunDirectory:
    """A new directory `<parent>/<name>-<UTC time>` (then -2, -3 .. within one second) with config.yaml,
    tokenizer.json and checkpoints/. UsageError leaves nothing behind."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise UsageError(f"run name {name!r}: use letters, digits, '.', '_' and '-' only")
    check_can_create(parent)
    stem = f"{name}-{now.astimezone(UTC).strftime(STAMP)}"
    for number in itertools.count(1):
        path = parent / (stem if number == 1 else f"{stem}-{number}")
        if not os.path.lexists(path):
            with contextlib.suppress(FileExistsError):  # another run was faster
                return _create(path, config, tokenizer)
    raise AssertionError("unreachable")


def create_run_directory_at(path: Path, *, config: str, tokenizer: bytes | Path) -> RunDirectory:
    """As create_run_directory, in exactly `path`, which must be empty or not exist."""
    check_can_create_at(path)
    try:
        return _create(path, config, tokenizer, existing=path.is_dir())
    except FileExistsError as error:
        raise UsageError(f"{path} has just been made by another process") from error


def check_can_create_at(path: Path) -> None:
    """UsageError unless `path` can become a run directory: empty or absent, in a place we may write."""
    check_can_create(path)
    try:
        is_empty = not path.is_dir() or not any(path.iterdir())
    except OSError as error:
        raise UsageError(f"cannot read {path}: {_reason(error)}") from error
    if not is_empty:
        hint = f"; to continue its run: feste-dp resume {path}" if is_run(path) else ""
        raise UsageError(f"{path} is not empty: give --out a new or empty directory{hint}")


def check_can_create(path: Path) -> None:
    """UsageError unless `path` is a directory, or can become one, in which we may write."""
    try:
        nearest = path.absolute()
        while not os.path.lexists(nearest):
            nearest = nearest.parent
        if not nearest.is_dir():
            raise UsageError(f"{nearest} is not a directory: choose another place for the run")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise UsageError(f"cannot write in {nearest}: choose another place for the run")
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot use {path} for the run: {_reason(error)}") from error


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
        if not path.is_dir():
            raise UsageError(f"{path} is a file: give the directory of a run")
        runs = [entry for entry in path.iterdir() if is_run(entry)]
        if runs:
            raise UsageError(
                f"{path} holds runs but is none itself: give one of them, the newest is {max(runs, key=_age)}"
            )
    except OSError as error:
        raise UsageError(f"cannot read {path}: {_reason(error)}") from error
    raise UsageError(f"{path} is not a run: it has no {', no '.join(missing)}")


class RunLock:
    """Holds a run for this process until closed; the kernel lets go when the process ends, however it ends.

    UsageError, naming the holder, when another process has it. Processes started with exec do not hold it.
    """

    def __init__(self, run: RunDirectory, now: datetime) -> None:
        self._fd = -1
        try:
            fd = os.open(run.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise UsageError(f"cannot write in the run {run.path}: {_reason(error)}") from error
        try:
            _lock(fd)
        except BlockingIOError:
            holder = os.pread(fd, 100, 0).decode(errors="replace").split()
            os.close(fd)
            who = f"process {holder[0]} (started {holder[1]})" if len(holder) == 2 else "another process"
            raise UsageError(f"run {run.path} is in use by {who}") from None
        except OSError as error:
            os.close(fd)
            raise UsageError(
                f"cannot lock the run {run.path}: {_reason(error)}; use a file system with flock"
            ) from error
        self._fd = fd
        with contextlib.suppress(OSError):  # a full disk: the lock holds without its text
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()} {_time_text(now)}\n".encode(), 0)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> "RunLock":
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def _lock(fd: int) -> None:
    """Asks a few times: who looks whether the run is alive holds a shared lock for some microseconds."""
    for _ in range(_LOCK_TRIES):
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE_S)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_locked(run: RunDirectory) -> bool:
    """Whether a process trains in the run now."""
    try:
        fd = os.open(run.path / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return False


class RunLog:
    """Appends lines with their UTC time to a log file. A line that cannot be written is dropped and counted:
    a full disk must not stop the run."""

    def __init__(self, path: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.dropped = 0
        self._path = path
        self._now = now

    def info(self, line: str) -> None:
        self._append("info", line)

    def warning(self, line: str) -> None:
        self._append("warning", line)

    def _append(self, kind: str, line: str) -> None:
        shown = _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), line)
        try:
            append_line(self._path, f"{_time_text(self._now())} {kind}: {shown}")
        except OSError:
            self.dropped += 1


def _create(path: Path, config: str, tokenizer: bytes | Path, existing: bool = False) -> RunDirectory:
    """Makes `path` unless it is `existing` and empty, and fills it. FileExistsError when it is there after
    all, UsageError when it cannot be made; either leaves what was there before."""
    run = RunDirectory(path)
    made: list[Path] = []
    claimed = False
    try:
        content = tokenizer if isinstance(tokenizer, bytes) else tokenizer.read_bytes()
        for outer in reversed([each for each in path.parents if not each.is_dir()]):
            outer.mkdir(exist_ok=True)
            made.append(outer)
        if not existing:
            path.mkdir()
            made.append(path)
        run.checkpoints.mkdir()  # first: of two runs that want the same empty directory, one gets no further
        claimed = True
        run.write_config(config)
        write_whole(run.tokenizer, content)
        return run
    except BaseException as error:
        if path in made:
            shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):
            if existing and claimed:
                run.config.unlink(missing_ok=True)
                run.tokenizer.unlink(missing_ok=True)
                run.checkpoints.rmdir()
            for directory in reversed(made):  # stops where another run is in it by now
                if directory != path:
                    directory.rmdir()
        if isinstance(error, FileExistsError) and os.path.lexists(path):
            raise
        if isinstance(error, OSError | ValueError):
            raise UsageError(f"cannot make the run directory {path}: {_reason(error)}") from error
        raise


def is_run(path: Path) -> bool:
    """Whether a directory holds what every run has."""
    return all((path / name).exists() for name in _REQUIRED)


def _age(run: Path) -> tuple[str, int]:
    """Sorts runs by their start: the time in the name, else when the config was written."""
    if found := _NAME_END.search(run.name):
        return found[1], int(found[2] or 1)
    written = (run / "config.yaml").stat().st_mtime
    return datetime.fromtimestamp(written, UTC).strftime(STAMP), 1


def _time_text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _reason(error: BaseException) -> str:
    """What the system says, without the errno and the path that str() adds."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
