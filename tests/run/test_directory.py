"""What a run directory is, and what is offered where it is none."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from feste_dp.errors import UsageError
from feste_dp.run.creation import (
    create_run_directory,
    create_run_directory_at,
)
from feste_dp.run.directory import RunDirectory, open_run_directory

NOW = datetime(2026, 11, 23, 12, 30, 15, 999_999, tzinfo=UTC)


def create(parent: Path, name: str = "tiny", now: datetime = NOW) -> RunDirectory:
    return create_run_directory(parent, name, now, config="a: 1\n", tokenizer=b"{}")


def tree(path: Path) -> list[str]:
    return sorted(str(each.relative_to(path)) for each in path.rglob("*"))


def test_what_a_directory_lacks_to_be_a_run_is_named(tmp_path: Path) -> None:
    run = create(tmp_path)
    assert open_run_directory(run.path) == run
    run.tokenizer.unlink()
    run.checkpoints.rmdir()
    with pytest.raises(UsageError, match=r"is not a run: it has no tokenizer.json, no checkpoints"):
        open_run_directory(run.path)


def test_the_newest_run_inside_is_offered(tmp_path: Path) -> None:
    create(tmp_path, "zeta")
    create(tmp_path, "alpha", NOW + timedelta(days=1))
    create(tmp_path, "alpha", NOW + timedelta(days=1))
    own = create_run_directory_at(tmp_path / "own", config="", tokenizer=b"")
    os.utime(own.config, (0, 0))
    (tmp_path / "zzz").mkdir()
    with pytest.raises(UsageError, match=r"the newest is .*/alpha-20261124T123015Z-2$"):
        open_run_directory(tmp_path)


def test_a_path_inside_a_run_points_at_the_run(tmp_path: Path) -> None:
    run = create(tmp_path)
    step = run.checkpoints / "step-00000250"
    step.mkdir()
    for path in (step, run.checkpoints, run.config):
        with pytest.raises(UsageError, match=f"is inside a run, not a run: give {run.path}$"):
            open_run_directory(path)


def test_a_path_that_is_nothing_or_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"no run at .*: there is no such directory"):
        open_run_directory(tmp_path / "none")
    with pytest.raises(UsageError, match="is a file: give the directory"):
        open_run_directory(tmp_path / "file")
