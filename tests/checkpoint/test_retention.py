import pytest
from hypothesis import given
from hypothesis import strategies as st

from feste_dp.checkpoint.filesystem import Filesystem, SaveError
from feste_dp.checkpoint.pointers import BEST, LATEST, point
from feste_dp.checkpoint.retention import retain


def make(directory, steps):
    for step in steps:
        (directory / f"step-{step:08d}").mkdir(parents=True)
        (directory / f"step-{step:08d}" / "manifest.json").write_text("{}")


def steps_in(directory):
    return [int(path.name[5:]) for path in sorted(directory.glob("step-*"))]


def test_the_newest_the_best_and_the_protected_stay(tmp_path):
    make(tmp_path, range(50, 501, 50))
    point(tmp_path, BEST, tmp_path / "step-00000150")
    point(tmp_path, LATEST, tmp_path / "step-00000500")
    assert retain(tmp_path, 2, {250, 9999}) == [50, 100, 200, 300, 350, 400]
    assert steps_in(tmp_path) == [150, 250, 450, 500]
    assert sorted(path.name for path in tmp_path.iterdir())[:2] == ["best", "latest"]
    assert retain(tmp_path, 2, {250}) == []


def test_a_checkpoint_beyond_latest_neither_counts_nor_goes(tmp_path):
    make(tmp_path, [50, 100, 150, 300, 350])
    point(tmp_path, LATEST, tmp_path / "step-00000150")
    assert retain(tmp_path, 1) == [50, 100]
    assert steps_in(tmp_path) == [150, 300, 350]


def test_without_pointers_the_newest_stay(tmp_path):
    make(tmp_path, [1, 2, 3])
    assert retain(tmp_path, 5) == []
    assert retain(tmp_path, 1) == [1, 2]


def test_keeping_none_is_a_fault_of_the_caller(tmp_path):
    with pytest.raises(ValueError, match="at least 1"):
        retain(tmp_path, 0)


def test_a_checkpoint_loses_its_name_before_it_loses_a_file(tmp_path):
    make(tmp_path, [1, 2])

    class Stuck(Filesystem):
        def remove(self, path):
            raise OSError(5, "Input/output error")

    with pytest.raises(SaveError, match=r"step-00000001 is no longer needed but .*: Input/output error"):
        retain(tmp_path, 1, filesystem=Stuck())
    assert steps_in(tmp_path) == [2]
    assert [path.name[:21] for path in tmp_path.glob(".trash-*")] == [".trash-step-00000001-"]


@given(st.sets(st.integers(0, 30), min_size=1), st.integers(1, 5), st.sets(st.integers(0, 30)), st.data())
def test_what_stays_is_as_promised(tmp_path_factory, steps, keep, protected, data):
    directory = tmp_path_factory.mktemp("run")
    make(directory, steps)
    best = data.draw(st.sampled_from(sorted(steps)))
    point(directory, BEST, directory / f"step-{best:08d}")
    point(directory, LATEST, directory / f"step-{max(steps):08d}")
    deleted = retain(directory, keep, protected)
    stays = set(sorted(steps)[-keep:]) | {best} | (protected & steps)
    assert set(steps_in(directory)) == stays
    assert deleted == sorted(steps - stays)


def test_one_that_cannot_be_deleted_keeps_none_of_the_others(tmp_path):
    class Resisting(Filesystem):
        def rename(self, old, new):
            if old.name == "step-00000010":
                raise OSError(5, "Input/output error")
            super().rename(old, new)

    make(tmp_path, (10, 20, 30, 40))
    with pytest.raises(SaveError, match=r"step-00000010 .* could not be deleted: Input/output error"):
        retain(tmp_path, 1, filesystem=Resisting())
    assert steps_in(tmp_path) == [10, 40]
