"""Compiled code that was removed comes back, where it was or in a second place."""

import pytest

from feste_dp.cache import Place
from feste_dp.kernels.code_cache import is_complete
from feste_dp.runtime import held_code as held_code_module
from feste_dp.runtime.held_code import HeldCode
from feste_dp.runtime.warmup import write_mark


@pytest.fixture
def folder(tmp_path, monkeypatch):
    folder = tmp_path / "cache/compiled/0123456789abcdef"
    for name in ("kernels/a.nbi", "kernels/a.nbc", "model/b.nbc"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    write_mark(folder)
    monkeypatch.setattr(held_code_module, "code_place", lambda: Place(folder))
    monkeypatch.setattr(held_code_module, "temporary_places", lambda: [tmp_path / "t"])
    (tmp_path / "t").mkdir()
    return folder


def spoil(folder):
    (folder / "kernels/a.nbc").write_bytes(b"cut")
    (folder / "kernels/from-elsewhere.nbc").write_bytes(b"")


@pytest.mark.parametrize("how", ["removed", "spoiled"])
def test_code_comes_back_where_it_was(folder, tmp_path, how):
    held = HeldCode()
    spoil(folder) if how == "spoiled" else (folder.parents[1]).rename(tmp_path / "away")
    held.put_back()
    assert held.folder == folder and is_complete(folder)
    assert (folder / "kernels/a.nbc").read_bytes() == b"kernels/a.nbc"


def test_code_that_cannot_be_put_back_is_put_into_a_temporary_folder_for_as_long_as_the_run(folder, tmp_path):
    held = HeldCode()
    folder.parents[1].rename(tmp_path / "away")
    (tmp_path / "cache").write_text("a file in its place")
    held.put_back()
    assert held.folder.parent == tmp_path / "t" and is_complete(held.folder)
    spoil(held.folder)
    held.put_back()
    assert is_complete(held.folder)
    held.close()
    assert list((tmp_path / "t").iterdir()) == []


def test_where_there_is_no_place_at_all_nothing_is_raised(folder, tmp_path):
    held = HeldCode()
    folder.parents[1].rename(tmp_path / "away")
    (tmp_path / "cache").write_text("a file in its place")
    (tmp_path / "t").rmdir()
    held.put_back()
    assert held.folder == folder
    (tmp_path / "t").mkdir()
    held.put_back()
    assert is_complete(held.folder)
    held.close()


def test_code_that_is_not_whole_at_the_start_is_not_held(folder):
    spoil(folder)
    HeldCode().put_back()
    assert not is_complete(folder)
