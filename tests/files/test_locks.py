"""A lock is held by one process of one user, and is private from its first moment."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from feste_dp.files import locks
from feste_dp.files.locks import NoLocksError, check_locks, lock_if_possible, open_lock, try_lock
from feste_dp.files.writing import beside_name


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_lock_is_held_once(tmp_path: Path) -> None:
    first, second = open_lock(tmp_path / "lock"), open_lock(tmp_path / "lock")
    assert try_lock(first) and not try_lock(second)
    os.close(first)
    assert try_lock(second)
    os.close(second)


def test_a_new_lock_is_private_and_a_wider_one_is_tightened(tmp_path: Path) -> None:
    wide = tmp_path / "wide"
    wide.touch()
    wide.chmod(0o666)
    old = os.umask(0)
    try:
        for path in (tmp_path / "new", wide):
            os.close(open_lock(path))
            assert mode_of(path) == 0o600
    finally:
        os.umask(old)


def test_a_wide_lock_of_another_user_is_refused_by_name(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "lock"
    path.touch()
    path.chmod(0o666)

    def refuse(fd: int, mode: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(locks.os, "fchmod", refuse)
    os.close(open_lock(path))  # ours: a file system without modes
    monkeypatch.setattr(locks.os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(PermissionError) as caught:
        open_lock(path)
    assert caught.value.strerror == "it belongs to another user, who could hold it for ever"


def test_a_link_in_the_place_of_a_lock_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to("victim")
    with pytest.raises(OSError, match="symbolic link"):
        open_lock(tmp_path / "lock")
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_from_a_lock_that_is_held(tmp_path, monkeypatch, code) -> None:
    def refuse(fd: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    check_locks(tmp_path)
    monkeypatch.setattr(fcntl, "flock", refuse)
    fd = open_lock(tmp_path / "lock")
    with pytest.raises(NoLocksError, match="has no locks"):
        try_lock(fd)
    os.close(fd)
    with pytest.raises(NoLocksError):
        check_locks(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["lock"]
    with lock_if_possible(tmp_path / "lock", wait=pytest.fail) as held:
        assert not held


@pytest.mark.parametrize("flag", [os.O_TMPFILE, 0])
def test_a_look_whether_there_are_locks_leaves_nothing_also_where_files_must_have_names(
    tmp_path: Path, monkeypatch, flag: int
) -> None:
    monkeypatch.setattr(locks.os, "O_TMPFILE", flag)
    left = beside_name(tmp_path / "lock")  # by one that was killed
    left.touch()
    os.utime(left, (0, 0))
    made: list[bool] = []
    monkeypatch.setattr(locks, "try_lock", lambda fd: made.append(os.fstat(fd).st_nlink == 0))
    check_locks(tmp_path)
    assert made == [True]
    assert [each.name for each in tmp_path.iterdir()] == ([left.name] if flag else [])


def test_waiting_for_a_lock_ends_when_it_is_free(tmp_path: Path) -> None:
    fd = open_lock(tmp_path / "lock")
    assert try_lock(fd)
    waits: list[int] = []

    def wait() -> None:
        waits.append(1)
        if len(waits) == 3:
            os.close(fd)

    with lock_if_possible(tmp_path / "lock", wait) as held:
        assert held and len(waits) == 3


def test_a_lock_that_cannot_be_opened_is_gone_without(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with lock_if_possible(tmp_path / "lock", wait=pytest.fail) as held:
        assert not held
