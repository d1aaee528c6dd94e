"""What lies under a file's name is read only where it is a file, and nothing makes a reader wait."""

import os
import socket
from pathlib import Path

import pytest

from feste_dp.files.reading import NotPlainFileError, open_plain, read_plain

LIMIT = 100


def place(kind: str, path: Path) -> None:
    """Something that is no regular file, at `path`."""
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "socket":
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.close()
    elif kind == "symbolic link":
        path.with_name("target").write_text("target")
        path.symlink_to("target")
    else:
        raise AssertionError(kind)


@pytest.mark.parametrize("kind", ["FIFO", "directory", "socket", "symbolic link"])
@pytest.mark.parametrize("read", [lambda path: read_plain(path, LIMIT), open_plain])
def test_what_is_no_file_is_refused_by_its_kind(tmp_path, monkeypatch, kind, read) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's name must be short
    place(kind, Path("thing"))
    with pytest.raises(NotPlainFileError) as caught:
        read(Path("thing"))
    assert caught.value.strerror == f"it is a {kind}, not a regular file"


def test_a_link_is_followed_where_that_is_asked_for_but_not_to_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_plain(tmp_path / "link", LIMIT, follow_links=True) == b"content"
    for name, target in (("zero", "/dev/zero"), ("fifo", tmp_path / "pipe"), ("folder", tmp_path)):
        if name == "fifo":
            os.mkfifo(target)
        (tmp_path / name).symlink_to(target)
        with pytest.raises(NotPlainFileError):
            read_plain(tmp_path / name, LIMIT, follow_links=True)


def test_a_link_in_a_circle_and_a_missing_file_keep_the_words_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(OSError, match="symbolic link"):
        open_plain(tmp_path / "circle", follow_links=True)
    with pytest.raises(FileNotFoundError):
        open_plain(tmp_path / "missing")


def test_a_file_up_to_the_limit_is_read_and_a_larger_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(LIMIT))
    assert read_plain(path, LIMIT) == bytes(LIMIT)
    path.write_bytes(bytes(LIMIT + 1))
    with pytest.raises(NotPlainFileError, match="101 bytes, more than the 100"):
        read_plain(path, LIMIT)


def test_a_file_without_a_size_is_limited_too() -> None:
    assert read_plain(Path("/proc/self/comm"), LIMIT)
    with pytest.raises(NotPlainFileError, match="more than the 3"):
        read_plain(Path("/proc/self/comm"), 3)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(bytes(LIMIT + 1))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for name in ("pipe", "large", "missing"):
        with pytest.raises(OSError):
            read_plain(tmp_path / name, LIMIT)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
