"""Where caches live."""

import os
import pwd
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from feste_dp.cache import Place, _temporary_root, cache_root, locate, make_private
from feste_dp.runtime.warmup import remove_old_caches


def test_a_private_directory_is_for_its_owner_alone(tmp_path: Path) -> None:
    make_private(tmp_path / "a" / "b")
    assert [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a", tmp_path / "a" / "b")] == [
        0o700
    ] * 2


def test_a_directory_open_to_others_is_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    make_private(tmp_path / "open")
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o700


def test_the_cache_is_where_the_environment_says(tmp_path: Path) -> None:
    home, xdg, own = (str(tmp_path / name) for name in ("home", "xdg", "own"))
    Path(home).mkdir()
    assert cache_root({"HOME": home}) == Path(home, ".cache", "feste-dp")
    assert cache_root({"HOME": home, "XDG_CACHE_HOME": xdg}) == Path(xdg, "feste-dp")
    assert cache_root({"HOME": home, "XDG_CACHE_HOME": xdg, "FESTE_DP_CACHE": own}) == Path(own)
    assert list(tmp_path.iterdir()) == [Path(home)]


@pytest.fixture
def tmp(tmp_path: Path) -> Iterator[Path]:
    """A folder for temporary files, of which nothing else is known."""
    _temporary_root.cache_clear()
    (tmp_path / "tmp").mkdir()
    yield tmp_path / "tmp"
    _temporary_root.cache_clear()


def usual(tmp: Path) -> Path:
    return tmp / f"feste-dp-{os.getuid()}"


@pytest.mark.parametrize("variable", ["HOME", "XDG_CACHE_HOME", "FESTE_DP_CACHE"])
def test_a_file_in_the_way_leads_to_one_private_temporary_folder_and_a_reason(
    tmp: Path, variable: str
) -> None:
    (tmp.parent / "file").write_text("in the way")
    environ = {"HOME": str(tmp.parent), variable: str(tmp.parent / "file"), "TMPDIR": str(tmp)}
    place = locate(environ, "compiled", "0123")
    assert place.path == usual(tmp) / "compiled" / "0123" and cache_root(environ) == usual(tmp)
    reason = "there is no home folder" if variable == "HOME" else f"{tmp.parent / 'file'} is not a folder"
    assert str(place.warning).startswith(reason) and "FESTE_DP_CACHE" in str(place.warning)
    assert list(tmp.iterdir()) == []  # looking makes nothing


def test_a_home_that_is_not_there_is_not_made(tmp: Path) -> None:
    environ = {"HOME": str(tmp / "nonexistent"), "TMPDIR": str(tmp)}
    assert cache_root(environ) == usual(tmp)


def test_without_the_variable_home_is_that_of_the_password_file(
    tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def home(path: str) -> Callable[[int], tuple[str, ...]]:
        return lambda uid: pwd.struct_passwd(("somebody", "x", uid, uid, "", path, ""))

    monkeypatch.setattr(pwd, "getpwuid", home(str(tmp)))
    assert locate({}) == Place(tmp / ".cache" / "feste-dp")
    monkeypatch.setattr(pwd, "getpwuid", home("/nonexistent"))
    assert cache_root({"TMPDIR": str(tmp)}) == usual(tmp)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {}[uid])  # a container's user has no name
    assert cache_root({"TMPDIR": str(tmp)}) == usual(tmp)


def test_where_the_temporary_name_is_taken_the_user_still_has_one_other(tmp: Path) -> None:
    usual(tmp).mkdir()
    usual(tmp).chmod(0o777)  # others could have put something there
    environ = {"HOME": str(tmp / "none"), "TMPDIR": str(tmp)}
    other = cache_root(environ)
    assert other.parent == tmp and other != usual(tmp)
    make_private(other)
    other.chmod(0o755)  # as mkdir makes it: others may read, but have put nothing there
    _temporary_root.cache_clear()
    assert cache_root(environ) == other


@pytest.mark.skipif(os.getuid() != 0, reason="only the superuser can give files away")
@pytest.mark.parametrize("theirs", [".", "compiled", "compiled/0123"])
def test_a_cache_of_somebody_else_is_not_written_to(tmp: Path, theirs: str) -> None:
    root = tmp.parent / "cache"
    (root / "compiled" / "0123").mkdir(parents=True)
    os.chown(root / theirs, 4242, 4242)
    place = locate({"FESTE_DP_CACHE": str(root), "TMPDIR": str(tmp)}, "compiled", "0123")
    assert place.path == usual(tmp) / "compiled" / "0123"
    assert str(place.warning).startswith(f"{root / theirs} belongs to another user")


def test_only_the_newest_caches_of_other_sources_are_kept(tmp_path: Path) -> None:
    caches = [tmp_path / "compiled" / f"{age:016x}" for age in range(8)]
    for age, cache in enumerate(caches):
        cache.mkdir(parents=True)
        os.utime(cache, (1000 - age, 1000 - age))
    remove_old_caches(caches[7])
    assert sorted((tmp_path / "compiled").iterdir()) == [*caches[:4], caches[7]]


def test_what_is_no_cache_of_ours_is_never_removed(tmp_path: Path) -> None:
    def fill(parent: Path, name: str) -> set[Path]:
        for number in range(8):
            (parent / name.format(number)).mkdir(parents=True)
        return set(parent.iterdir())

    compiled = fill(tmp_path / "compiled", "somebody-else-{}")
    remove_old_caches(tmp_path / "compiled" / f"{0:016x}")
    assert set((tmp_path / "compiled").iterdir()) == compiled
    temporary = fill(tmp_path / "tmp", "{:016x}")
    remove_old_caches(tmp_path / "tmp" / "feste-dp-abcdefgh")  # the cache of a run that had nowhere else
    assert set((tmp_path / "tmp").iterdir()) == temporary


# Becomes somebody else and asks where its compiled code goes: the folder, its permissions and its owner.
SOMEBODY_ELSE = """
import os, stat, tempfile
from feste_dp.cache import locate, make_private
os.setgid(4242)
os.setuid(4242)
place = locate(os.environ, "compiled", "0123456789abcdef").path
make_private(place)
print(place, oct(stat.S_IMODE(place.stat().st_mode)), place.stat().st_uid)
"""


@pytest.mark.parametrize("variable", ["HOME", "XDG_CACHE_HOME", "FESTE_DP_CACHE"])
@pytest.mark.skipif(os.getuid() != 0, reason="only the superuser can become somebody else")
def test_a_home_or_cache_of_somebody_else_leads_to_a_private_temporary_folder(variable: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        (root / "theirs").mkdir(mode=0o755)
        (root / "tmp").mkdir()
        (root / "tmp").chmod(0o1777)
        names = ("HOME", "XDG_CACHE_HOME", "FESTE_DP_CACHE")
        environ = {name: value for name, value in os.environ.items() if name not in names}
        environ |= {variable: str(root / "theirs"), "TMPDIR": str(root / "tmp")}
        done = subprocess.run(
            [sys.executable, "-c", SOMEBODY_ELSE], env=environ, capture_output=True, text=True
        )
        assert done.stderr == ""
        place, mode, owner = done.stdout.split()
        assert Path(place).is_relative_to(root / "tmp") and (mode, owner) == ("0o700", "4242")
        assert list((root / "theirs").iterdir()) == []
