"""Where caches live."""

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from feste_dp.cache import private_directory
from feste_dp.runtime.warmup import remove_old_caches


def test_a_private_directory_is_for_its_owner_alone(tmp_path: Path) -> None:
    directory = private_directory(tmp_path / "a" / "b")
    assert directory == tmp_path / "a" / "b"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_directory_open_to_others_is_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    assert stat.S_IMODE(private_directory(tmp_path / "open").stat().st_mode) == 0o700


def test_a_file_in_the_way_leads_to_a_fresh_private_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    directory = private_directory(tmp_path / "file" / "below")
    assert directory.parent == tmp_path and directory.name.startswith("feste-dp-")
    assert (tmp_path / "file").read_text() == "in the way"


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
from feste_dp.cache import cache_root, private_directory
os.setgid(4242)
os.setuid(4242)
place = private_directory(cache_root(os.environ) / "compiled" / "0123456789abcdef")
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
