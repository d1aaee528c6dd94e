"""A file of lines: whole lines or none, whatever ends the writer."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feste_dp.files.growing import LineFile, append_line, append_whole


def write(path: Path, *lines: str) -> None:
    file = LineFile(path)
    for line in lines:
        file.append(line)
    file.close()


def test_lines_are_appended_after_those_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    write(path, "one", "two")
    write(path, "three")
    assert path.read_text() == "one\ntwo\nthree\n"


@given(whole=st.lists(st.text("ab", max_size=3), max_size=4), partial=st.text("ab", max_size=200_000))
def test_a_partial_last_line_is_cut_before_the_next(
    tmp_path_factory: pytest.TempPathFactory, whole: list[str], partial: str
) -> None:
    path = tmp_path_factory.mktemp("lines") / "lines"
    text = "".join(f"{line}\n" for line in whole)
    path.write_text(text + partial)
    write(path, "next")
    assert path.read_text() == f"{text}next\n"


def test_a_partial_line_longer_than_a_block_is_cut_too(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_text("one\n" + "x" * 200_000)
    write(path, "two")
    assert path.read_text() == "one\ntwo\n"


def test_text_that_is_no_unicode_is_escaped(tmp_path: Path) -> None:
    write(tmp_path / "lines", "a\ud800b")
    assert (tmp_path / "lines").read_bytes() == b"a\\ud800b\n"


def test_a_full_disk_leaves_whole_lines_and_a_later_one_may_be_tried(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    file = LineFile(path)
    file.append("first")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, old[1]))
        with pytest.raises(OSError):
            file.append("a line that is longer than twenty bytes")
        assert path.read_text() == "first\n"
        file.append("short")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
        file.close()
    assert path.read_text() == "first\nshort\n"


def test_a_killed_writer_leaves_at_most_one_partial_last_line(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    code = (
        "import sys, pathlib\n"
        "from feste_dp.files.growing import LineFile\n"
        "file = LineFile(pathlib.Path(sys.argv[1]))\n"
        "while True: file.append('x' * 99); print(flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(200):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    *whole, last = path.read_text().split("\n")
    assert len(whole) >= 200 and set(whole) == {"x" * 99}
    assert len(last) < 99


def test_an_append_goes_where_it_is_told(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    try:
        assert append_whole(fd, 0, b"abc") == 3
        assert append_whole(fd, 3, b"de") == 5
    finally:
        os.close(fd)
    assert (tmp_path / "file").read_bytes() == b"abcde"


def test_what_is_no_file_is_neither_made_nor_written(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious, and without an end")
    (tmp_path / "link").symlink_to("victim")
    (tmp_path / "dangling").symlink_to("elsewhere")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "dangling", "pipe"):
        for attempt in (LineFile, lambda path: append_line(path, "text")):
            with pytest.raises(OSError, match="not a regular file"):
                attempt(tmp_path / name)
    assert (tmp_path / "victim").read_text() == "precious, and without an end"
    assert not (tmp_path / "elsewhere").exists()
