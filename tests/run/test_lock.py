"""One writer a run, and none where the run's files lead elsewhere."""

import os
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from feste_dp.errors import UsageError
from feste_dp.files.locks import open_lock, try_lock
from feste_dp.files.writing import beside_name
from feste_dp.run.creation import (
    create_run_directory,
)
from feste_dp.run.directory import RunDirectory
from feste_dp.run.lock import RunLock, is_locked

NOW = datetime(2026, 11, 23, 12, 30, 15, 999_999, tzinfo=UTC)


def create(parent: Path, name: str = "tiny", now: datetime = NOW) -> RunDirectory:
    return create_run_directory(parent, name, now, config="a: 1\n", tokenizer=b"{}")


def tree(path: Path) -> list[str]:
    return sorted(str(each.relative_to(path)) for each in path.rglob("*"))


def test_a_second_opener_is_told_who_holds_the_run_and_since_when(tmp_path: Path) -> None:
    run = create(tmp_path)
    message = re.escape(f"run {run.path} is in use by process {os.getpid()} (started 2026-11-23T12:30:15Z)")
    with RunLock(run, NOW), pytest.raises(UsageError, match=message):
        RunLock(run, NOW)
    with RunLock(run, NOW):
        pass


def test_a_killed_holder_lets_go_though_its_child_lives(tmp_path: Path) -> None:
    run = create(tmp_path)
    script = """
import subprocess, sys
from datetime import UTC, datetime
from pathlib import Path
from feste_dp.run.directory import RunDirectory
from feste_dp.run.lock import RunLock, is_locked
lock = RunLock(RunDirectory(Path(sys.argv[1])), datetime.now(UTC))
child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
child.wait()
"""
    command = [sys.executable, "-c", script, str(run.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            with pytest.raises(UsageError, match=f"in use by process {process.pid} "):
                RunLock(run, NOW)
            process.send_signal(signal.SIGKILL)
            process.wait()
            RunLock(run, NOW).close()
        finally:
            os.kill(child, signal.SIGKILL)


def test_the_lock_is_private_whatever_the_umask(tmp_path: Path) -> None:
    run = create(tmp_path)
    run.lock.chmod(0o666)
    RunLock(run, NOW).close()
    assert run.lock.stat().st_mode & 0o777 == 0o600


def test_a_lock_that_is_removed_while_it_is_held_is_not_held_by_two(tmp_path: Path) -> None:
    run = create(tmp_path)
    fd = open_lock(run.lock)  # opened before the removal, locked after it
    run.lock.unlink()
    assert try_lock(fd)
    with RunLock(run, NOW), pytest.raises(UsageError, match="in use"):
        RunLock(run, NOW)
    os.close(fd)


@pytest.mark.parametrize(
    "name",
    [
        "lock",
        "config.yaml",
        "log.txt",
        "events.jsonl",
        "metrics.csv",
        "finished",
        "checkpoints",
        "tensorboard",
    ],
)
def test_a_run_whose_files_lead_elsewhere_is_not_written_to(tmp_path: Path, name: str) -> None:
    run = create(tmp_path)
    victim = tmp_path / "victim"
    if name in ("checkpoints", "tensorboard"):
        victim.mkdir()
        (victim / "step-00000001").mkdir()
    else:
        victim.write_text("precious, and without an end")
    before = (tree(tmp_path), victim.read_bytes() if victim.is_file() else b"")
    place = run.path / name
    if name == "checkpoints":
        place.rmdir()
    place.unlink(missing_ok=True)
    place.symlink_to(victim)
    with pytest.raises(UsageError, match=f"{name} is a symbolic link, and nothing in a run is written to"):
        RunLock(run, NOW)
    place.unlink()
    os.mkfifo(place)
    with pytest.raises(UsageError, match=f"{name} is a FIFO"):
        RunLock(run, NOW)
    assert not is_locked(run)
    place.unlink()
    assert victim.is_dir() or victim.read_bytes() == before[1]


def test_a_run_that_is_given_by_a_link_is_locked_as_any_other(tmp_path: Path) -> None:
    run = create(tmp_path)
    (tmp_path / "current").symlink_to(run.path)
    with RunLock(RunDirectory(tmp_path / "current"), NOW):
        assert is_locked(run)


def test_what_dead_writers_left_beside_goes_with_the_next_lock(tmp_path: Path) -> None:
    run = create(tmp_path)
    beside_name(run.config).write_text("half a con")
    other = beside_name(run.path / "report.html")
    other.write_text("somebody may be writing this")
    RunLock(run, NOW).close()
    assert tree(run.path) == sorted([other.name, "checkpoints", "config.yaml", "lock", "tokenizer.json"])
