import os
import stat
import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import load_file

import feste_dp
from feste_dp.checkpoint.filesystem import Filesystem, SaveError
from feste_dp.checkpoint.format import complete_manifest
from feste_dp.checkpoint.loading import load_checkpoint, read_manifest, verify_checkpoint
from feste_dp.checkpoint.saving import remove_leftovers, write_checkpoint
from feste_dp.errors import RunError, UsageError

P = 10_007


def listing(directory):
    return sorted(path.name for path in directory.iterdir())


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("file_count", [1, 3, 8, 99])
def test_a_checkpoint_comes_back_bit_for_bit(tmp_path, make_fields, make_arrays, file_count):
    arrays = make_arrays(0, P)
    arrays["params"][:6] = np.array([0x7FC00001, 0x7F800000, 0xFF800000, 1, 0x80000000, 0], np.uint32).view(
        np.float32
    )
    fields = make_fields(250, P)
    path = write_checkpoint(tmp_path, fields, arrays, file_count=file_count)
    manifest, found = load_checkpoint(path)
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in arrays.items()
    }
    assert manifest == complete_manifest(fields, feste_dp.__version__, manifest.files, arrays)
    assert len(manifest.files) == file_count
    assert listing(tmp_path) == ["step-00000250"]


def test_the_safetensors_library_reads_every_shard_file(tmp_path, make_fields, make_arrays):
    arrays = make_arrays(0, P)
    path = write_checkpoint(tmp_path, make_fields(250, P), arrays)
    assert listing(path) == ["manifest.json", *(f"shard-{i:02d}-of-08.safetensors" for i in range(8))]
    shards = [load_file(file) for file in sorted(path.glob("*.safetensors"))]
    for name, given in arrays.items():
        np.testing.assert_array_equal(np.concatenate([shard[name] for shard in shards]), given)


def test_fewer_parameters_than_files_leave_no_file_empty(tmp_path, make_fields, make_arrays):
    path = write_checkpoint(tmp_path, make_fields(1, 3), make_arrays(0, 3))
    assert [(file.start, file.stop) for file in read_manifest(path).files] == [(0, 1), (1, 2), (2, 3)]
    assert verify_checkpoint(path) == []


def test_a_missing_folder_of_checkpoints_is_made_but_not_the_run_around_it(
    tmp_path, make_fields, make_arrays
):
    path = write_checkpoint(tmp_path / "checkpoints", make_fields(1, P), make_arrays(0, P))
    assert verify_checkpoint(path) == []
    with pytest.raises(SaveError, match="No such file or directory"):
        write_checkpoint(tmp_path / "run" / "checkpoints", make_fields(1, P), make_arrays(0, P))
    assert not (tmp_path / "run").exists()


def test_permissions_follow_the_umask_and_nothing_is_executable(tmp_path, make_fields, make_arrays):
    before = os.umask(0o027)
    try:
        path = write_checkpoint(tmp_path / "checkpoints", make_fields(1, P), make_arrays(0, P))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(path.parent.stat().st_mode) == 0o750
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()} == {0o640}


class RecordingFilesystem(Filesystem):
    """Writes down the order of what reaches the disk."""

    def __init__(self):
        self.log = []
        self.names = {}

    def create(self, path):
        descriptor = super().create(path)
        self.names[descriptor] = path.name
        return descriptor

    def write(self, descriptor, data):
        self.log.append(("write", self.names[descriptor]))
        return super().write(descriptor, data[:1000])  # the system may take less than it is given

    def sync(self, descriptor):
        self.log.append(("sync", self.names[descriptor]))
        super().sync(descriptor)

    def sync_directory(self, path):
        self.log.append(("sync", path.name.rpartition("-")[0] or path.name))
        super().sync_directory(path)

    def rename(self, old, new):
        self.log.append(("rename", new.name))
        super().rename(old, new)


def test_everything_is_on_disk_before_the_name_is_final(tmp_path, make_fields, make_arrays):
    filesystem = RecordingFilesystem()
    path = write_checkpoint(
        tmp_path, make_fields(250, P), make_arrays(0, P), file_count=2, filesystem=filesystem
    )
    assert verify_checkpoint(path) == []
    order = list(dict.fromkeys(filesystem.log))
    assert order == [
        ("write", "shard-00-of-02.safetensors"),
        ("sync", "shard-00-of-02.safetensors"),
        ("write", "shard-01-of-02.safetensors"),
        ("sync", "shard-01-of-02.safetensors"),
        ("write", "manifest.json"),
        ("sync", "manifest.json"),
        ("sync", ".tmp-step-00000250"),
        ("rename", "step-00000250"),
        ("sync", tmp_path.name.rpartition("-")[0] or tmp_path.name),
    ]


def test_a_save_takes_no_copy_of_the_arrays(tmp_path, make_fields, make_arrays):
    arrays = make_arrays(0, 1_000_000)
    fields = make_fields(1, 1_000_000)
    tracemalloc.start()
    try:
        write_checkpoint(tmp_path, fields, arrays, file_count=2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 500_000


def test_a_whole_checkpoint_of_the_same_content_is_kept(tmp_path, make_fields, make_arrays):
    fields, arrays = make_fields(250, P), make_arrays(0, P)
    path = write_checkpoint(tmp_path, fields, arrays)
    inodes = {file.stat().st_ino for file in path.iterdir()}
    later = fields.model_copy(update={"train": fields.train.model_copy(update={"elapsed_seconds": 99.0})})
    assert write_checkpoint(tmp_path, later, arrays) == path
    assert {file.stat().st_ino for file in path.iterdir()} == inodes


@pytest.mark.parametrize(
    "change", ["number", "state", "file count", "damage", "manifest", "file in its place"]
)
def test_a_damaged_or_different_checkpoint_of_the_same_step_is_replaced(
    tmp_path, make_fields, make_arrays, change
):
    fields, arrays, file_count = make_fields(250, P), make_arrays(0, P), 8
    path = write_checkpoint(tmp_path, fields, arrays)
    if change == "number":
        arrays["v"][-1] += 1
    elif change == "state":
        fields = fields.model_copy(update={"seed": 7})
    elif change == "file count":
        file_count = 2
    elif change == "damage":
        os.truncate(path / "shard-03-of-08.safetensors", 100)
    elif change == "manifest":
        (path / "manifest.json").unlink()
    else:
        path.rename(tmp_path / "elsewhere")
        path.write_text("not a directory")
    assert write_checkpoint(tmp_path, fields, arrays, file_count=file_count) == path
    manifest, found = load_checkpoint(path)
    assert (manifest.seed, len(manifest.files)) == (fields.seed, file_count)
    assert found["v"].tobytes() == arrays["v"].tobytes()
    assert [name for name in listing(tmp_path) if name != "elsewhere"] == ["step-00000250"]


def test_the_same_state_gives_the_same_bytes(tmp_path, make_fields, make_arrays):
    fields, arrays = make_fields(250, P), make_arrays(0, P)
    one = write_checkpoint(tmp_path / "one", fields, arrays)
    two = write_checkpoint(tmp_path / "two", fields, arrays)
    assert contents(one) == contents(two)


def test_too_little_space_is_told_before_anything_is_written(tmp_path, make_fields, make_arrays):
    class SmallDisk(Filesystem):
        def free_bytes(self, path):
            return 4_100_000

    with pytest.raises(SaveError, match=r"needs 4\.3 MB of disk space and 4\.1 MB are free$") as error:
        write_checkpoint(tmp_path, make_fields(250, P), make_arrays(0, P), filesystem=SmallDisk())
    assert isinstance(error.value, RunError)
    assert listing(tmp_path) == []


def test_leftovers_of_dead_saves_go_and_a_replaced_checkpoint_comes_back(tmp_path, make_fields, make_arrays):
    path = write_checkpoint(tmp_path, make_fields(250, P), make_arrays(0, P))
    before = contents(path)
    path.rename(tmp_path / ".old-step-00000250-17.abcd")
    for name in (
        ".old-step-00000100-17.abcd",
        ".old-junk-1",
        ".tmp-step-00000300-17.ef",
        ".trash-step-00000001-1",
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "shard").write_text("x")
    (tmp_path / "step-00000100").mkdir()
    (tmp_path / ".tmp-latest-1").symlink_to("step-00000250")
    (tmp_path / "notes.txt").write_text("the user's own")
    remove_leftovers(tmp_path)
    assert listing(tmp_path) == ["notes.txt", "step-00000100", "step-00000250"]
    assert contents(path) == before
    remove_leftovers(tmp_path / "nowhere")


def test_a_bad_manifest_field_saves_nothing(tmp_path, make_fields, make_arrays):
    with pytest.raises(UsageError, match=r"manifest\.json: config\.lr: is not a finite number"):
        write_checkpoint(tmp_path, make_fields(250, P, config={"lr": float("nan")}), make_arrays(0, P))
    assert listing(tmp_path) == []


def test_arrays_that_are_not_flat_float32_of_one_size_are_a_fault_of_the_caller(
    tmp_path, make_fields, make_arrays
):
    arrays = make_arrays(0, P)
    v, strided = arrays["v"], make_arrays(0, 2 * P)["params"][::2]
    for bad in (v[:-1], v.astype(np.float64), v[None], strided, v.astype(">f4")):
        with pytest.raises(ValueError, match=r"^v "):
            write_checkpoint(tmp_path, make_fields(250, P), arrays | {"v": bad})
    with pytest.raises(ValueError, match="file_count"):
        write_checkpoint(tmp_path, make_fields(250, P), arrays, file_count=100)
    assert listing(tmp_path) == []
