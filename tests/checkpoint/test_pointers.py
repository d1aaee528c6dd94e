import errno
import os
import shutil

import pytest

from feste_dp.checkpoint.filesystem import Filesystem, SaveError
from feste_dp.checkpoint.pointers import BEST, LATEST, point, pointed_step
from feste_dp.checkpoint.saving import write_checkpoint


def test_a_pointer_is_a_relative_link_that_moves_with_the_run(tmp_path):
    run = tmp_path / "run"
    for name in ("step-00000100", "step-00000200"):
        (run / name).mkdir(parents=True)
    point(run, LATEST, run / "step-00000100")
    point(run, BEST, run / "step-00000100")
    point(run, LATEST, run / "step-00000200")
    moved = run.rename(tmp_path / "moved")
    assert (moved / "latest").readlink().name == str((moved / "latest").readlink()) == "step-00000200"
    assert (pointed_step(moved, LATEST), pointed_step(moved, BEST)) == (200, 100)
    assert len(list(moved.iterdir())) == 4


def test_a_link_to_anything_but_a_checkpoint_beside_it_points_nowhere(tmp_path):
    (tmp_path / "step-00000100").mkdir()
    for target in ("step-00000200", "../step-00000100", "/etc", ".", "step-100"):
        (tmp_path / "latest").unlink(missing_ok=True)
        (tmp_path / "latest").symlink_to(target)
        assert pointed_step(tmp_path, LATEST) is None
    assert pointed_step(tmp_path, BEST) is None


def test_a_directory_in_the_place_of_a_pointer_is_one_clear_error(tmp_path):
    (tmp_path / "step-00000100").mkdir()
    (tmp_path / "latest" / "of the user").mkdir(parents=True)
    with pytest.raises(SaveError, match="'latest' does not point at it: Is a directory"):
        point(tmp_path, LATEST, tmp_path / "step-00000100")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-00000100"]


def test_where_links_cannot_be_made_a_file_holds_the_name(tmp_path):
    class WithoutLinks(Filesystem):
        def symlink(self, target, link):
            raise OSError(errno.EPERM, "Operation not permitted")

    for step in (100, 200):
        (tmp_path / f"step-{step:08d}").mkdir()
        point(tmp_path, LATEST, tmp_path / f"step-{step:08d}", WithoutLinks())
        assert pointed_step(tmp_path, LATEST) == step
    assert (tmp_path / "latest").read_text() == "step-00000200\n"
    point(tmp_path, LATEST, tmp_path / "step-00000100")
    assert (tmp_path / "latest").is_symlink() and pointed_step(tmp_path, LATEST) == 100


def test_a_pointer_that_a_copy_made_a_folder_is_read_and_replaced(tmp_path, make_fields, make_arrays):
    paths = [write_checkpoint(tmp_path, make_fields(step, 100), make_arrays(1, 100)) for step in (50, 60)]
    shutil.copytree(paths[0], tmp_path / "latest")
    assert pointed_step(tmp_path, LATEST) == 50
    point(tmp_path, LATEST, paths[1])
    assert (tmp_path / "latest").is_symlink() and pointed_step(tmp_path, LATEST) == 60


@pytest.mark.parametrize("content", [b"", b"\xff", b"step-00000100" * 99, b"../step-00000100"])
def test_a_file_that_names_no_checkpoint_points_nowhere(tmp_path, content):
    (tmp_path / "step-00000100").mkdir()
    (tmp_path / "latest").write_bytes(content)
    assert pointed_step(tmp_path, LATEST) is None
    (tmp_path / "latest").unlink()
    os.mkfifo(tmp_path / "latest")
    assert pointed_step(tmp_path, LATEST) is None
