import os
import socket

import pytest

from feste_dp.errors import UsageError
from feste_dp.report.page import page
from feste_dp.report.target import check_target, page_mark

MINE = page_mark(["b", "a"])


def test_a_page_about_the_same_runs_is_replaced_and_a_new_name_taken(tmp_path):
    path = tmp_path / "x.html"
    check_target(path, MINE)
    path.write_text(page("title", [], about=page_mark(["a", "b"])))
    check_target(path, MINE)
    check_target(path, None)
    path.write_text("")
    check_target(path, MINE)


def test_a_page_about_other_runs_and_any_other_file_are_left_alone(tmp_path):
    path = tmp_path / "x.html"
    path.write_text(page("title", [], about=page_mark(["c"])))
    with pytest.raises(UsageError, match=r"x\.html is a page about other runs: remove it, or choose another"):
        check_target(path, MINE)
    check_target(path, None)  # in the folder of the run, whatever that was called
    path.write_text("<!doctype html>\nmy own page")
    for mark in (MINE, None):
        with pytest.raises(UsageError, match=r"x\.html is there and no page of feste-dp: remove it, or"):
            check_target(path, mark)


def test_what_is_no_file_is_named_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    (tmp_path / "page.html").write_text(page("title", [], about=MINE))
    (tmp_path / "link").symlink_to("page.html")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("socket")
    for name, what in (
        ("pipe", "it is a FIFO"),
        ("link", "it is a symbolic link"),
        ("socket", "it is a socket"),
        ("/dev/null", "it is a device"),
        (".", "it is a directory"),
        ("x" * 300, "File name too long"),
        ("page.html/below", "Not a directory"),
    ):
        with pytest.raises(UsageError, match=f"cannot write .*{what}.*; choose another file"):
            check_target(tmp_path / name, MINE)
    listener.close()
