import shutil

import pytest

import feste_dp.checkpoint.listing as listing
from feste_dp.checkpoint.listing import list_checkpoints, newest_whole
from feste_dp.checkpoint.pointers import BEST, LATEST, point
from feste_dp.checkpoint.saving import write_checkpoint
from feste_dp.errors import UsageError

P = 1000


@pytest.fixture
def three_checkpoints(tmp_path, make_fields, make_arrays):
    paths = [write_checkpoint(tmp_path, make_fields(s, P), make_arrays(s, P)) for s in (50, 100, 150)]
    point(tmp_path, LATEST, paths[2])
    point(tmp_path, BEST, paths[0])
    (tmp_path / ".tmp-step-00000200-1.ab").mkdir()
    (tmp_path / "step-00000300").write_text("not a directory")
    return paths


def damage(path):
    (path / "shard-02-of-08.safetensors").write_bytes(b"")


def test_checkpoints_are_listed_with_size_and_pointers(tmp_path, three_checkpoints):
    infos = list_checkpoints(tmp_path)
    assert [info.path for info in infos] == three_checkpoints
    assert [info.step for info in infos] == [50, 100, 150]
    assert [info.is_best for info in infos] == [True, False, False]
    assert [info.is_latest for info in infos] == [False, False, True]
    assert {info.whole for info in infos} == {None}
    assert infos[0].size_bytes == sum(file.stat().st_size for file in three_checkpoints[0].iterdir())


def test_a_verified_list_tells_the_damaged_from_the_whole(tmp_path, three_checkpoints):
    damage(three_checkpoints[1])
    infos = list_checkpoints(tmp_path, verify=True)
    assert [info.whole for info in infos] == [True, False, True]
    assert infos[1].problems is not None and "shard-02-of-08.safetensors" in infos[1].problems[0]


def test_the_newest_whole_checkpoint_is_found_over_damaged_ones(tmp_path, three_checkpoints):
    assert newest_whole(tmp_path) == (three_checkpoints[2], [])
    damage(three_checkpoints[2])
    (three_checkpoints[1] / "manifest.json").unlink()
    path, damages = newest_whole(tmp_path)
    assert path == three_checkpoints[0]
    assert len(damages) == 2
    assert "step-00000150/shard-02" in damages[0] and "step-00000100/manifest.json" in damages[1]


NAMES = ["manifest.json", *(f"shard-{i:02d}-of-08.safetensors" for i in range(8))]


@pytest.mark.parametrize("name", NAMES)
def test_any_bit_flipped_or_byte_cut_in_any_file_leads_to_the_checkpoint_before(
    tmp_path, three_checkpoints, name
):
    file = three_checkpoints[2] / name
    content = file.read_bytes()
    flips = [
        content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]
        for at, bit in [(0, 0), (7, 7), (8, 3), (len(content) // 2, 5), (len(content) - 1, 1)]
    ]
    for damaged in [*flips, *(content[:size] for size in (0, 1, 8, len(content) - 1)), content + b"\0"]:
        file.write_bytes(damaged)
        path, damages = newest_whole(tmp_path)
        assert path == three_checkpoints[1]
        assert len(damages) == 1 and damages[0].isprintable() and f"step-00000150/{name}" in damages[0]
    file.unlink()
    assert newest_whole(tmp_path)[0] == three_checkpoints[1]


@pytest.fixture
def a_run_that_keeps_one(tmp_path, make_fields, make_arrays, monkeypatch):
    """Three times, while a checkpoint is being read, the run saves the next and removes that one."""
    write_checkpoint(tmp_path, make_fields(10, P), make_arrays(10, P))
    verify = listing.verify_checkpoint

    def while_the_run_goes_on(path):
        step = int(path.name.removeprefix("step-"))
        if step < 13:
            write_checkpoint(tmp_path, make_fields(step + 1, P), make_arrays(step + 1, P))
            shutil.rmtree(path)
        return verify(path)

    monkeypatch.setattr(listing, "verify_checkpoint", while_the_run_goes_on)


def test_a_checkpoint_that_the_run_removes_while_it_is_read_is_not_damaged(tmp_path, a_run_that_keeps_one):
    newest, damages = newest_whole(tmp_path)
    assert (newest.name, damages) == ("step-00000013", [])


def test_a_checkpoint_that_the_run_removes_while_it_is_verified_is_not_listed(tmp_path, a_run_that_keeps_one):
    assert list_checkpoints(tmp_path, verify=True) == []
    assert [info.step for info in list_checkpoints(tmp_path)] == [11]


def test_no_whole_checkpoint_is_one_clear_error(tmp_path, three_checkpoints):
    for path in three_checkpoints:
        damage(path)
    with pytest.raises(UsageError, match=r"every checkpoint is damaged: .*step-00000150.*step-00000050"):
        newest_whole(tmp_path)
    for nothing in (tmp_path / "nowhere", tmp_path / "step-00000050"):
        assert list_checkpoints(nothing) == []
        with pytest.raises(UsageError, match="there is no checkpoint"):
            newest_whole(nothing)
