"""Run directories: made whole or not at all, found, locked, logged to."""

import os
import re
import resource
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from feste_dp.errors import UsageError
from feste_dp.train import run_directory
from feste_dp.train.run_directory import (
    RunDirectory,
    RunLock,
    RunLog,
    check_can_create,
    check_can_create_at,
    create_run_directory,
    create_run_directory_at,
    open_run_directory,
)

NOW = datetime(2026, 11, 23, 12, 30, 15, 999_999, tzinfo=UTC)


def create(parent: Path, name: str = "tiny", now: datetime = NOW) -> RunDirectory:
    return create_run_directory(parent, name, now, config="a: 1\n", tokenizer=b"{}")


def tree(path: Path) -> list[str]:
    return sorted(str(each.relative_to(path)) for each in path.rglob("*"))


def test_a_new_run_is_named_by_its_utc_time_and_holds_config_tokenizer_and_checkpoints(
    tmp_path: Path,
) -> None:
    run = create(tmp_path / "data" / "runs", now=NOW.astimezone(timezone(timedelta(hours=5))))
    assert run.path == tmp_path / "data" / "runs" / "tiny-20261123T123015Z"
    assert tree(run.path) == ["checkpoints", "config.yaml", "tokenizer.json"]
    assert run.config.read_text() == "a: 1\n"
    assert run.tokenizer.read_bytes() == b"{}"


def test_runs_started_within_a_second_get_names_of_their_own(tmp_path: Path) -> None:
    names = [create(tmp_path).path.name for _ in range(3)]
    assert names == [f"tiny-20261123T123015Z{end}" for end in ("", "-2", "-3")]


def test_the_tokenizer_may_be_given_as_a_file(tmp_path: Path) -> None:
    source = tmp_path / "t.json"
    source.write_bytes(b'{"model": 1}')
    run = create_run_directory(tmp_path, "r", NOW, config="", tokenizer=source)
    assert run.tokenizer.read_bytes() == source.read_bytes()


def test_a_missing_tokenizer_file_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        create_run_directory(tmp_path / "new", "r", NOW, config="", tokenizer=tmp_path / "none.json")
    assert tree(tmp_path) == []


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "-x", "a b", "a\n", "a\0"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="run name"):
        create(tmp_path, name)
    assert tree(tmp_path) == []


def test_a_name_too_long_for_the_file_system_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too long"):
        create(tmp_path / "runs", "x" * 300)
    assert tree(tmp_path) == []


def test_a_parent_that_cannot_be_written_is_named_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UsageError, match=f"cannot write in {tmp_path}: choose another"):
        create(tmp_path / "a" / "b")
    assert tree(tmp_path) == []


def test_a_parent_that_is_a_file_or_a_dead_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for parent in (tmp_path / "file", tmp_path / "file" / "x", tmp_path / "link", tmp_path / "link" / "x"):
        with pytest.raises(UsageError, match="is not a directory"):
            create(parent)
    assert tree(tmp_path) == ["file", "link"]


def test_a_file_system_that_refuses_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    with pytest.raises(UsageError, match="cannot make the run directory /proc/") as caught:
        create(Path("/proc/self/runs"))
    assert "\n" not in str(caught.value)


def test_a_disk_that_fills_up_while_a_run_is_made_leaves_nothing_behind(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, old[1]))
    try:
        with pytest.raises(UsageError, match="File too large"):
            create_run_directory(tmp_path / "p" / "q", "r", NOW, config="", tokenizer=bytes(200))
        with pytest.raises(UsageError, match="File too large"):
            create_run_directory_at(empty, config="", tokenizer=bytes(200))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert tree(tmp_path) == ["empty"]


def test_an_explicit_place_is_used_when_it_is_new_or_empty(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "new" / "deep"):
        check_can_create_at(path)
        assert create_run_directory_at(path, config="", tokenizer=b"") == RunDirectory(path)
        assert open_run_directory(path).path == path


def test_an_explicit_place_that_holds_something_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match=r"is not empty: give --out a new or empty directory$"):
        create_run_directory_at(tmp_path, config="", tokenizer=b"")
    with pytest.raises(UsageError, match="is not a directory"):
        create_run_directory_at(tmp_path / "file", config="", tokenizer=b"")
    assert tree(tmp_path) == ["file"]


def test_an_explicit_place_that_holds_a_run_points_at_resume(tmp_path: Path) -> None:
    run = create(tmp_path)
    with pytest.raises(UsageError, match=f"feste-dp resume {run.path}"):
        check_can_create_at(run.path)


def test_of_two_runs_that_want_the_same_empty_place_one_gets_it_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.setattr(
        run_directory, "check_can_create_at", lambda path: None
    )  # both looked while it was empty
    first = create_run_directory_at(place, config="first\n", tokenizer=b"first")
    with pytest.raises(UsageError, match="has just been made by another process"):
        create_run_directory_at(place, config="second\n", tokenizer=b"second")
    assert first.config.read_text() == "first\n" and first.tokenizer.read_bytes() == b"first"


def test_checking_a_place_makes_nothing(tmp_path: Path) -> None:
    check_can_create(tmp_path / "a" / "b")
    check_can_create_at(tmp_path / "a" / "b")
    assert tree(tmp_path) == []


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
from feste_dp.train.run_directory import RunDirectory, RunLock
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


def test_a_log_line_carries_its_time_and_stays_one_line(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.txt", lambda: NOW)
    log.info("step 1\nforged\r\x1b[2J\udcff end é")
    log.warning("worker 2 is slow")
    assert (tmp_path / "log.txt").read_text() == (
        "2026-11-23T12:30:15Z info: step 1\\nforged\\r\\x1b[2J\\udcff end é\n"
        "2026-11-23T12:30:15Z warning: worker 2 is slow\n"
    )
    assert log.dropped == 0


def test_a_log_goes_on_after_a_line_without_its_end(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("whole\npart")
    RunLog(tmp_path / "log.txt", lambda: NOW).info("next")
    assert (tmp_path / "log.txt").read_text() == "whole\npart\n2026-11-23T12:30:15Z info: next\n"


def test_a_full_disk_costs_log_lines_and_they_are_counted(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.txt", lambda: NOW)
    log.info("first")
    before = (tmp_path / "log.txt").read_bytes()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 5, old[1]))
    try:
        log.info("second")
        log.info("third")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert log.dropped == 2
    assert (tmp_path / "log.txt").read_bytes() == before
    log.info("fourth")
    assert (tmp_path / "log.txt").read_text().endswith("info: first\n2026-11-23T12:30:15Z info: fourth\n")
