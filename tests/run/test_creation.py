"""Run directories are made whole, or so that the next start takes the place."""

import errno
import fcntl
import os
import resource
import signal
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from feste_dp.errors import UsageError
from feste_dp.interruption import Interrupted
from feste_dp.run import creation as run_creation
from feste_dp.run.creation import (
    check_can_create,
    check_can_create_at,
    check_can_lock,
    create_run_directory,
    create_run_directory_at,
)
from feste_dp.run.directory import RunDirectory, is_run, open_run_directory
from feste_dp.run.lock import RunLock
from feste_dp.train.signals import StopSignals

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
    assert tree(run.path) == ["checkpoints", "config.yaml", "lock", "tokenizer.json"]
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
    with pytest.raises(UsageError, match=r"is not empty: give a new or empty directory$"):
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
        run_creation, "check_can_create_at", lambda path: None
    )  # both looked while it was empty
    first = create_run_directory_at(place, config="first\n", tokenizer=b"first")
    with pytest.raises(UsageError, match="has just been made by another process"):
        create_run_directory_at(place, config="second\n", tokenizer=b"second")
    assert first.config.read_text() == "first\n" and first.tokenizer.read_bytes() == b"first"


def test_checking_a_place_makes_nothing(tmp_path: Path) -> None:
    check_can_create(tmp_path / "a" / "b")
    check_can_create_at(tmp_path / "a" / "b")
    assert tree(tmp_path) == []


class Killed(BaseException):
    """Stands for kill -9: nothing of the program runs after it."""


def kill_at(monkeypatch: pytest.MonkeyPatch, number: int) -> list[str]:
    """Ends the process, as it were, at the number-th change on disk; the changes so far."""
    seen: list[str] = []
    for module, name in (
        *((Path, name) for name in ("mkdir", "replace", "unlink", "rmdir")),
        *((os, name) for name in ("open", "write", "pwrite", "fsync")),
        (run_creation.shutil, "rmtree"),
    ):
        real = getattr(module, name)

        def counted(*args, _real=real, _name=name, **options):
            if len(seen) >= number:  # and from then on: the dead put nothing right
                raise Killed
            if _name != "open" or args[1] & os.O_CREAT:
                seen.append(_name)
            return _real(*args, **options)

        monkeypatch.setattr(module, name, counted)
    return seen


@pytest.mark.parametrize("existing", [False, True])
def test_a_kill_at_any_moment_leaves_a_run_or_a_place_for_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool
) -> None:
    for number in range(100):
        place = tmp_path / str(number) / "run"
        place.mkdir(parents=True) if existing else place.parent.mkdir()
        with monkeypatch.context() as patch:
            changes = kill_at(patch, number)
            try:
                create_run_directory_at(place, config="a: 1\n", tokenizer=b"{}")
                break
            except Killed:
                pass
        if not is_run(place):
            if place.is_dir() and any(place.iterdir()):
                with pytest.raises(UsageError, match=r"its start was interrupted .* start it again"):
                    open_run_directory(place)
            check_can_create_at(place)
            create_run_directory_at(place, config="b: 2\n", tokenizer=b"{}")
            assert tree(place) == ["checkpoints", "config.yaml", "lock", "tokenizer.json"]
        run = open_run_directory(place)
        with RunLock(run, NOW):
            assert run.config.read_text() in ("a: 1\n", "b: 2\n") and run.tokenizer.read_bytes() == b"{}"
    assert number > 10 and changes.count("fsync") >= 4


def test_the_next_run_of_the_name_clears_what_interrupted_starts_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        kill_at(patch, 8)
        with pytest.raises(Killed):
            create(tmp_path)
    old = tmp_path / "tiny-20200101T000000Z"
    fresh = tmp_path / "tiny-20200101T000001Z"
    for path in (old, fresh):
        path.mkdir()
    os.utime(old, (0, 0))
    kept = tmp_path / "tiny-20200101T000002Z"
    kept.mkdir()
    (kept / "notes.txt").write_text("mine")
    being_made = tmp_path / "tiny-20200101T000003Z"
    being_made.mkdir()
    with RunLock(RunDirectory(being_made), NOW):
        run = create(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [fresh.name, kept.name, being_made.name, run.path.name]


def test_a_place_with_anything_that_is_not_ours_is_not_taken(tmp_path: Path) -> None:
    for name, lock in (("config.yml", "1 2026-11-23T12:30:15Z\n"), ("tokenizer.json", "by hand\n")):
        place = tmp_path / name
        place.mkdir()
        (place / name).write_text("mine")
        (place / "lock").write_text(lock)
        with pytest.raises(UsageError, match="is not empty"):
            create_run_directory_at(place, config="", tokenizer=b"")
        assert (place / name).read_text() == "mine" and (place / "lock").read_text() == lock


def test_a_place_that_is_being_made_a_run_is_refused_before_the_slow_parts(tmp_path: Path) -> None:
    with RunLock(RunDirectory(tmp_path), NOW), pytest.raises(UsageError, match="by another process"):
        check_can_create_at(tmp_path)
    check_can_create_at(tmp_path)


def test_a_file_system_without_locks_is_refused_with_nothing_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    check_can_lock(tmp_path / "new" / "run")
    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(UsageError, match="cannot be locked: the file system has no locks"):
        check_can_lock(tmp_path / "new" / "run")
    assert tree(tmp_path) == []


@pytest.mark.parametrize("at", ["RunLock", "is_half_made", "write_whole", "sync_directory"])
def test_a_signal_while_a_run_is_made_leaves_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    original = getattr(run_creation, at)

    def interrupted(*arguments: object) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    monkeypatch.setattr(run_creation, at, interrupted)
    with StopSignals(lambda text: None), pytest.raises(Interrupted):
        create(tmp_path / "data" / "runs")
    assert tree(tmp_path) == []
