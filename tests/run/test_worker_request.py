"""What is asked of a run by a file in it: a number is taken once, and anything else is nobody's request."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from feste_dp.config.dumping import dump_config
from feste_dp.config.schema import Config
from feste_dp.errors import UsageError
from feste_dp.run.creation import create_run_directory_at
from feste_dp.run.directory import RunDirectory
from feste_dp.run.lock import RunLock
from feste_dp.run.worker_request import request_workers, take_request


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return create_run_directory_at(tmp_path / "run", config=dump_config(Config()), tokenizer=b"{}")


def test_a_number_is_taken_once(run: RunDirectory) -> None:
    (run.path / "workers.request").write_text("3\n")
    assert take_request(run) == 3
    assert take_request(run) is None


@pytest.mark.parametrize("kind", ["FIFO", "link", "directory", "words", "too long"])
def test_what_is_no_request_is_dropped_and_waited_for_by_nobody(run: RunDirectory, kind: str) -> None:
    place, victim = run.path / "workers.request", run.path.parent / "victim"
    victim.write_text("2\n")
    if kind == "FIFO":
        os.mkfifo(place)
    elif kind == "link":
        place.symlink_to(victim)
    elif kind == "directory":
        place.mkdir()
    else:
        place.write_text("many\n" if kind == "words" else "2" * 100)
    assert take_request(run) is None
    assert victim.read_text() == "2\n"
    assert os.path.lexists(place) == (kind == "directory")


def test_a_request_that_cannot_be_written_is_one_line(run: RunDirectory) -> None:
    (run.path / "workers.request" / "full").mkdir(parents=True)
    with RunLock(run, datetime.now(UTC)), pytest.raises(UsageError, match=r"cannot write .*workers\.request"):
        request_workers(run.path, 2)
