"""Asks a run that is training for another number of workers: by a file in its directory, which it looks for
between steps."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from feste_dp.config.loading import load_config
from feste_dp.config.worker_counts import refuse_workers_of_run
from feste_dp.errors import RunError, UsageError
from feste_dp.files.descriptors import spare
from feste_dp.files.reading import read_plain
from feste_dp.files.writing import write_whole
from feste_dp.machine.cpus import crowding
from feste_dp.run.directory import RunDirectory, open_run_directory
from feste_dp.run.lock import is_locked
from feste_dp.wording import command

_REQUEST = "workers.request"
_LOOK_S = 0.05
_MAX_BYTES = 16


def request_workers(path: Path, workers: int, wait: Callable[[float], None] = time.sleep) -> str | None:
    """Returns once the run has taken it; what is worth a warning.

    Raises UsageError where the run cannot take it, RunError where it ended first.
    """
    run = open_run_directory(path)
    train = load_config(run.config, from_run=True).train
    if workers > train.shards:
        raise refuse_workers_of_run(workers, train)
    if not is_locked(run):
        raise UsageError(f"{path} is not training now: {command('resume', path, '--workers', str(workers))}")
    request = _place(run)
    try:
        write_whole(request, b"%d\n" % workers)
    except OSError as error:
        raise UsageError(f"cannot write {request}: {error.strerror}") from error
    while request.exists():
        if not is_locked(run):
            request.unlink(missing_ok=True)
            raise RunError(f"{path} ended before it took the request")
        wait(_LOOK_S)
    return crowding(workers)


def take_request(run: RunDirectory) -> int | None:
    """The number asked for, once; None when nothing is. What is no number is not ours, and is dropped."""
    request = _place(run)
    try:
        number = spare.in_need(lambda: read_plain(request, _MAX_BYTES)).strip()
    except FileNotFoundError:
        return None
    except OSError:
        number = b""
    with contextlib.suppress(OSError):
        request.unlink()
    return int(number) if number.isdigit() else None


def _place(run: RunDirectory) -> Path:
    return run.path / _REQUEST
