"""A file is on the disk whole or not at all, and a folder that cannot be synced stops nothing."""

import errno
import os
import resource
from pathlib import Path

import pytest

from feste_dp.files import writing
from feste_dp.files.writing import beside_name, is_leftover, sync_directory, write_whole


def names(path: Path) -> list[str]:
    return sorted(each.name for each in path.iterdir())


def test_a_write_replaces_the_file_or_leaves_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, old[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_whole(path, bytes(20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "link").symlink_to("victim")
    write_whole(tmp_path / "link", b"ours")
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert (tmp_path / "link").read_bytes() == b"ours" and not (tmp_path / "link").is_symlink()


def test_permissions_follow_the_umask_and_the_mode(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        write_whole(tmp_path / "shared", b"")
        write_whole(tmp_path / "private", b"", 0o600)
    finally:
        os.umask(old)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("shared", "private")] == [0o644, 0o600]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.ENOSYS, errno.EIO])
def test_only_a_lost_write_of_a_folder_is_an_error(tmp_path: Path, monkeypatch, code: int) -> None:
    def refuse(fd: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(writing.os, "fsync", refuse)
    before = len(list(Path("/proc/self/fd").iterdir()))
    if code == errno.EIO:
        with pytest.raises(OSError):
            sync_directory(tmp_path)
    else:
        sync_directory(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("name", ["meta.json", "🙂" * 60, "a\nb", "\udce9" * 200])
def test_the_name_beside_fits_every_file_system_and_is_known_again(tmp_path: Path, name: str) -> None:
    beside = beside_name(tmp_path / name)
    beside.touch()
    assert is_leftover(beside.name)
    assert not is_leftover(name)


def test_what_a_killed_writer_left_goes_with_a_later_write_and_what_is_being_written_does_not(
    tmp_path: Path,
) -> None:
    dead, alive, other = (beside_name(tmp_path / name) for name in ("page", "page", "another"))
    for path in (dead, alive, other):
        path.touch()
    for path in (dead, other):
        os.utime(path, (0, 0))
    write_whole(tmp_path / "page", b"")
    assert names(tmp_path) == sorted([alive.name, other.name, "page"])
