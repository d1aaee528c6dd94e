"""One line on a run: read from the ends of its files, so that a thousand runs take seconds.

What a run's page says comes from run_data.py, which reads all of it.
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeVar

from feste_dp.checkpoint.listing import step_directories
from feste_dp.checkpoint.loading import read_manifest
from feste_dp.config.loading import load_config
from feste_dp.errors import UsageError
from feste_dp.files.reading import open_plain, read_plain
from feste_dp.report.status import State, status_of
from feste_dp.run.directory import RunDirectory
from feste_dp.run.events import BEGINNINGS, ENDS, Event, decode_event
from feste_dp.run.lock import is_locked
from feste_dp.run.metrics import MetricsRow, read_rows
from feste_dp.run.pace import Pace

T = TypeVar("T")
_TAIL, _HEAD = 1 << 16, 1 << 13
_MOST_CONFIG = 1 << 20
# `steps:` below `train:` as the program itself writes a config; another form is parsed, which takes 30 ms.
_STEPS = re.compile(rb"^train:\n(?:  [^\n]*\n|\n)*?  steps: ([0-9]{1,10})$", re.MULTILINE)
_AT_ROW = re.compile(rb"\n(?=\d+,\d+\.\d{3},)")


@dataclass(frozen=True)
class RunSummary:
    """What `feste-dp runs` says of a run; None where it is not known."""

    name: str
    path: Path
    state: State | Literal["unreadable"]
    step: int | None
    steps: int | None
    best_loss: float | None
    """The lowest validation loss."""
    train_loss: float | None
    tokens_per_second: float | None
    started: datetime | None
    last_sign: datetime | None
    """When its files last changed."""
    problem: str = ""
    """Why it cannot be read, or what about it cannot."""

    def as_json(self) -> dict[str, object]:
        def moment(time: datetime | None) -> str | None:
            return None if time is None else f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"

        return {
            "name": self.name,
            "path": os.fsencode(self.path).decode(errors="backslashreplace"),
            "state": self.state,
            "step": self.step,
            "steps": self.steps,
            "best_loss": self.best_loss,
            "train_loss": self.train_loss,
            "tokens_per_second": self.tokens_per_second,
            "started": moment(self.started),
            "last_sign": moment(self.last_sign),
            "problem": self.problem,
        }


def summaries(runs: dict[str, Path]) -> list[RunSummary]:
    """All of them, the newest first."""
    return newest_first([summarize(name, path) for name, path in runs.items()])


def newest_first(made: Sequence[RunSummary]) -> list[RunSummary]:
    """Those of which it is not known when they began come last."""
    return sorted(made, key=lambda run: (-(run.started.timestamp() if run.started else 0.0), run.name))


def summarize(name: str, path: Path) -> RunSummary:
    """Never raises: a run that cannot be read says so."""
    try:
        return _summarize(name, path)
    except Exception as error:  # whatever a stranger's file holds is the fault of its run alone
        reason = error.strerror if isinstance(error, OSError) else None
        problem = " ".join(str(reason or error).split())[:300] or type(error).__name__
        return RunSummary(name, path, "unreadable", None, None, None, None, None, None, None, problem)


def _summarize(name: str, path: Path) -> RunSummary:
    run = RunDirectory(path)
    locked = is_locked(run)  # first: see status_of
    steps = _steps(run)
    events, first = _events(run.events)
    problems: list[str] = []
    rows: Sequence[MetricsRow] = _optional(lambda: _last_rows(run.metrics), (), "metrics.csv", problems)
    pace = Pace()
    for row in rows:
        pace.add(row)
    last_step = rows[-1].step if rows else 0
    if not any(event.kind in BEGINNINGS | ENDS for event in events) and first is not None:
        events = [first, *events]  # it began further up, and has not ended
    state = status_of(locked, events, last_step, steps, path, run.is_finished).state
    saved = _optional(lambda: _best_saved(run.checkpoints), None, "checkpoints", problems)
    losses = [row.val_loss for row in rows if row.val_loss is not None and row.val_loss == row.val_loss]
    best = min([*losses, *([] if saved is None else [saved])], default=None)
    return RunSummary(
        name=name,
        path=path,
        state=state,
        step=last_step,
        steps=steps,
        best_loss=best,
        train_loss=rows[-1].train_loss if rows else None,
        tokens_per_second=pace.tokens_per_second if rows else None,
        started=first.time if first is not None else _changed([run.config]),
        last_sign=_changed([run.metrics, run.events, run.config]),
        problem="; ".join(problems),
    )


def _optional(read: Callable[[], T], without: T, what: str, problems: list[str]) -> T:
    """What can be missing while the rest is still worth a line."""
    try:
        return read()
    except (OSError, ValueError, UsageError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        problems.append(f"{what}: {' '.join(str(reason or error).split())[:200]}")
        return without


def _steps(run: RunDirectory) -> int:
    found = _STEPS.search(read_plain(run.config, _MOST_CONFIG))
    return int(found[1]) if found else load_config(run.config, from_run=True).train.steps


def _events(path: Path) -> tuple[list[Event], Event | None]:
    """The last events, and the first one; none where the run kept no history."""
    try:
        head, tail = _ends(path)
    except FileNotFoundError:
        return [], None
    first = decode_event(head.split(b"\n", 1)[0])
    return [event for line in tail.split(b"\n") if (event := decode_event(line)) is not None], first


def _last_rows(path: Path) -> Sequence[MetricsRow]:
    """The last rows of metrics.csv, as far as they lie in its end."""
    try:
        _, tail = _ends(path)
    except FileNotFoundError:
        return ()
    if len(tail) < _TAIL:
        return read_rows(tail)[0]
    # a sample may hold what looks like a row: then the quotes do not add up, and a later start is right
    for start in _AT_ROW.finditer(tail):
        try:
            return read_rows(tail[start.end() :])[0]
        except ValueError:
            continue
    return ()


def _best_saved(checkpoints: Path) -> float | None:
    """The best validation loss as of the newest checkpoint: a better one is saved at once."""
    for _, path in reversed(step_directories(checkpoints)):
        return read_manifest(path).train.best_val_loss
    return None


def _ends(path: Path) -> tuple[bytes, bytes]:
    """The first and the last bytes of a regular file."""
    with os.fdopen(open_plain(path), "rb") as file:
        head = file.read(_HEAD)
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - _TAIL))
        return head, file.read(_TAIL)


def _changed(paths: Sequence[Path]) -> datetime | None:
    times = []
    for path in paths:
        try:
            times.append(path.lstat().st_mtime)
        except OSError:
            continue
    return datetime.fromtimestamp(max(times), UTC) if times else None
