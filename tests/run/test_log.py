"""Lines with their time, one by one."""

import resource
from datetime import UTC, datetime
from pathlib import Path

from feste_dp.run.creation import (
    create_run_directory,
)
from feste_dp.run.directory import RunDirectory
from feste_dp.run.log import RunLog

NOW = datetime(2026, 11, 23, 12, 30, 15, 999_999, tzinfo=UTC)


def create(parent: Path, name: str = "tiny", now: datetime = NOW) -> RunDirectory:
    return create_run_directory(parent, name, now, config="a: 1\n", tokenizer=b"{}")


def tree(path: Path) -> list[str]:
    return sorted(str(each.relative_to(path)) for each in path.rglob("*"))


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
