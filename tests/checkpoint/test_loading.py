import hashlib
import json
import os
import shutil
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feste_dp.checkpoint.loading import load_checkpoint, read_manifest, verify_checkpoint
from feste_dp.checkpoint.saving import write_checkpoint
from feste_dp.errors import UsageError
from tests.checkpoint.conftest import TENSORS

P = 10_007


@pytest.fixture
def checkpoint(tmp_path, make_fields, make_arrays):
    return write_checkpoint(tmp_path, make_fields(250, P), make_arrays(0, P))


def assert_refused(path, name):
    """Both verify and load name just this file."""
    problems = verify_checkpoint(path)
    assert len(problems) == 1 and problems[0].startswith(f"{path / name}: ") and problems[0].isprintable()
    with pytest.raises(UsageError) as error:
        load_checkpoint(path)
    assert str(error.value) == problems[0]


def forge_manifest(path, forge, change):
    content = json.loads((path / "manifest.json").read_bytes())
    del content["manifest_sha256"]
    change(content)
    (path / "manifest.json").write_bytes(forge(content))


def test_every_byte_of_a_small_checkpoint_is_guarded(tmp_path, make_fields, make_arrays):
    path = write_checkpoint(tmp_path, make_fields(250, 20), make_arrays(0, 20), file_count=2)
    for file in path.iterdir():
        data = bytearray(file.read_bytes())
        with file.open("r+b", buffering=0) as stream:
            for i, byte in enumerate(data):
                os.pwrite(stream.fileno(), bytes([byte ^ (1 << i % 8)]), i)
                problems = verify_checkpoint(path)
                assert len(problems) == 1 and problems[0].startswith(f"{file}: ")
                os.pwrite(stream.fileno(), bytes([byte]), i)
    assert verify_checkpoint(path) == []


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 7), st.integers(0, 10**9), st.integers(1, 255))
def test_a_flipped_byte_anywhere_is_named_and_refused(one_checkpoint, shard, at, flip):
    file = one_checkpoint / f"shard-{shard:02d}-of-08.safetensors"
    data = file.read_bytes()
    damaged = bytearray(data)
    damaged[at % len(data)] ^= flip
    try:
        file.write_bytes(damaged)
        assert_refused(one_checkpoint, file.name)
    finally:
        file.write_bytes(data)


@pytest.fixture(scope="module")
def one_checkpoint(tmp_path_factory, make_fields, make_arrays):
    return write_checkpoint(tmp_path_factory.mktemp("run"), make_fields(250, P), make_arrays(0, P))


def test_truncated_shard_is_named_and_refused(checkpoint):
    file = checkpoint / "shard-05-of-08.safetensors"
    data = file.read_bytes()
    for length in [*range(0, len(data), 499), 1, 7, 8, 9, len(data) - 1]:
        file.write_bytes(data[:length])
        assert_refused(checkpoint, file.name)
    file.write_bytes(data + b"\0")
    assert_refused(checkpoint, file.name)


def test_truncated_manifest_is_named_and_refused(checkpoint):
    file = checkpoint / "manifest.json"
    data = file.read_bytes()
    for length in range(0, len(data), 97):
        file.write_bytes(data[:length])
        assert_refused(checkpoint, file.name)


def test_every_damaged_file_is_named(checkpoint):
    (checkpoint / "shard-01-of-08.safetensors").unlink()
    (checkpoint / "shard-06-of-08.safetensors").write_bytes(b"")
    first, second = verify_checkpoint(checkpoint)
    assert first == f"{checkpoint / 'shard-01-of-08.safetensors'}: is missing"
    assert second.startswith(f"{checkpoint / 'shard-06-of-08.safetensors'}: has 0 bytes")


@pytest.mark.parametrize("name", ["manifest.json", "shard-02-of-08.safetensors"])
@pytest.mark.parametrize("kind", ["missing", "directory", "link", "pipe"])
def test_anything_but_a_plain_file_is_refused_without_waiting(checkpoint, tmp_path, name, kind):
    (checkpoint / name).rename(tmp_path / "moved")
    if kind == "directory":
        (checkpoint / name).mkdir()
    elif kind == "link":
        (checkpoint / name).symlink_to(tmp_path / "moved")
    elif kind == "pipe":
        os.mkfifo(checkpoint / name)
    assert_refused(checkpoint, name)


def test_a_shard_of_another_checkpoint_is_refused(checkpoint, make_fields, make_arrays):
    other = write_checkpoint(checkpoint.parent, make_fields(300, P), make_arrays(1, P))
    shutil.copy(other / "shard-04-of-08.safetensors", checkpoint)
    assert_refused(checkpoint, "shard-04-of-08.safetensors")


def test_a_renamed_checkpoint_is_refused_where_the_name_tells_another_step(checkpoint):
    renamed = checkpoint.rename(checkpoint.with_name("step-00000300"))
    assert_refused(renamed, "manifest.json")
    elsewhere = renamed.rename(renamed.with_name("my-favourite"))
    assert verify_checkpoint(elsewhere) == []


def test_a_path_without_a_checkpoint_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UsageError, match=str(path)):
            load_checkpoint(path)
        assert len(verify_checkpoint(path)) == 1


def test_a_forged_shard_with_right_hashes_is_refused_for_its_header(checkpoint, forge):
    file = checkpoint / "shard-00-of-08.safetensors"
    data = file.read_bytes().replace(b'"F32"', b'"I32"', 1)
    file.write_bytes(data)

    def rehash(content):
        content["files"][0]["sha256"] = hashlib.sha256(data).hexdigest()

    forge_manifest(checkpoint, forge, rehash)
    assert_refused(checkpoint, file.name)
    assert "header.params.dtype" in verify_checkpoint(checkpoint)[0]


def test_a_forged_size_is_refused_before_memory_is_taken(checkpoint, forge):
    huge = 2**39

    def claim(content):
        content["layout"][1]["shape"] = [huge - content["layout"][1]["start"]]
        content["layout"][1]["stop"] = content["files"][7]["stop"] = huge
        content["files"][7]["size"] += (huge - P) * 12

    forge_manifest(checkpoint, forge, claim)
    assert read_manifest(checkpoint).parameter_count == huge
    tracemalloc.start()
    try:
        with pytest.raises(UsageError, match=r"shard-07-of-08\.safetensors: has \d+ bytes where"):
            load_checkpoint(checkpoint)
        assert len(verify_checkpoint(checkpoint)) == 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_a_manifest_of_gigabytes_is_refused_unread(checkpoint):
    os.truncate(checkpoint / "manifest.json", 2**40)
    assert_refused(checkpoint, "manifest.json")


def test_arrays_are_loaded_into_given_buffers(checkpoint, make_arrays):
    buffers = dict(zip(TENSORS, np.zeros((3, P), np.float32), strict=True))
    _, arrays = load_checkpoint(checkpoint, out=buffers)
    assert arrays is buffers
    for name, given_array in make_arrays(0, P).items():
        assert buffers[name].tobytes() == given_array.tobytes()


def test_buffers_of_another_model_are_refused_and_untouched(checkpoint):
    buffers = dict(zip(TENSORS, np.zeros((3, P + 1), np.float32), strict=True))
    with pytest.raises(UsageError, match="holds 10007 parameters where the model has 10008"):
        load_checkpoint(checkpoint, out=buffers)
    assert not buffers["params"].any()


def test_files_that_are_not_part_of_a_checkpoint_are_ignored(checkpoint):
    (checkpoint / ".DS_Store").write_text("x")
    assert verify_checkpoint(checkpoint) == []
