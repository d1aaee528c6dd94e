import pytest

from feste_dp.checkpoint.filesystem import SaveError
from feste_dp.checkpoint.pointers import BEST, LATEST, point, pointed_step


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
    (tmp_path / "latest").mkdir()
    with pytest.raises(SaveError, match="'latest' does not point at it: Is a directory"):
        point(tmp_path, LATEST, tmp_path / "step-00000100")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-00000100"]
