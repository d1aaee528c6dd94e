"""`~` in every kind of path: expanded, or refused in one line, and never the name of a folder."""

import os
import pwd

import click
import pytest

from feste_dp.cache import cache_root
from feste_dp.cli.arguments import PathType
from feste_dp.config.loading import config_from_text
from feste_dp.errors import UsageError
from feste_dp.files.home import expand_home

NOBODY = "no-such-user-here"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_tilde_is_expanded_as_a_shell_does(home):
    user = pwd.getpwuid(os.getuid())
    assert expand_home("~") == str(home)
    assert expand_home("~/runs/") == f"{home}/runs/"
    assert expand_home(f"~{user.pw_name}/x") == f"{user.pw_dir.rstrip('/')}/x"
    for plain in ("./~", "a~b", "runs/~", "", "/~"):
        assert expand_home(plain) == plain


@pytest.mark.parametrize("path", [f"~{NOBODY}", f"~{NOBODY}/x"])
def test_the_home_of_nobody_is_refused_with_the_way_to_write_such_a_name(home, path):
    with pytest.raises(UsageError, match=f"there is no user '{NOBODY}'; .* give ./{path}$"):
        expand_home(path)


@pytest.mark.parametrize("value", ["", "here", "~"])
def test_a_home_that_is_no_place_is_refused(home, monkeypatch, value):
    monkeypatch.setenv("HOME", value)
    with pytest.raises(UsageError, match="HOME is not the path of a directory"):
        expand_home("~/x")
    assert not cache_root({"HOME": value, "TMPDIR": "/tmp"}).is_relative_to(home)


def test_paths_of_a_config_and_of_set_are_expanded(home):
    text = "data: {corpus: [~/a.txt, b.txt, ./~/c]}\nrun: {dir: ~/runs}"
    config = config_from_text(text, "x.yaml")
    assert config.data.corpus == [f"{home}/a.txt", "b.txt", "./~/c"]
    assert config.run.dir == f"{home}/runs"
    config = config_from_text(text, "x.yaml", ["run.dir=~/other", "data.corpus=~/texts"])
    assert (config.run.dir, config.data.corpus) == (f"{home}/other", f"{home}/texts")
    for override in (f"run.dir=~{NOBODY}/x", f"data.corpus=[a, ~{NOBODY}]"):
        with pytest.raises(UsageError, match=f"^override {override[:8]}.*: ~{NOBODY} cannot be expanded"):
            config_from_text(text, "x.yaml", [override.replace("'", "")])


def test_paths_of_the_command_line_and_the_caches_place_are_expanded(home):
    kind = PathType()
    assert kind.convert("~/x", None, None) == home / "x"
    with pytest.raises(click.BadParameter, match="cannot be expanded"):
        kind.convert(f"~{NOBODY}/x", None, None)
    assert cache_root({"FESTE_DP_CACHE": "~/c"}) == home / "c"
    assert cache_root({"XDG_CACHE_HOME": "~/c"}) == home / "c/feste-dp"
    assert NOBODY not in str(cache_root({"FESTE_DP_CACHE": f"~{NOBODY}/c", "TMPDIR": str(home)}))
    assert not [path for path in home.rglob("*") if "~" in path.name]
