import errno
import gc
import mmap
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feste_dp.errors import UsageError
from feste_dp.kernels.reduction import NORM_CHUNK
from feste_dp.runtime import arena as arena_module
from feste_dp.runtime.arena import Arena, arena_sizes, available_memory, create_arena

UNLIMITED = 1 << 62


@given(st.integers(1, 10**9), st.sampled_from([1, 2, 8, 256]))
def test_every_array_starts_on_a_page_and_none_overlaps_the_next(parameters, shards):
    sizes = arena_sizes(parameters, shards)
    assert all(offset % mmap.PAGESIZE == 0 for offset in sizes)
    bytes_of = (4 * parameters, 4 * shards * parameters, 4 * parameters, 8 * -(-parameters // NORM_CHUNK))
    for start, size, stop in zip(sizes, bytes_of, sizes[1:], strict=False):
        assert start + size <= stop < start + size + mmap.PAGESIZE


def test_two_views_of_the_descriptor_see_the_same_numbers():
    first = create_arena(1000, shards=4)
    second = Arena(first.fd, 1000, 4)
    first.params[:], first.grad[:], first.norms[:] = 1, 2, 3
    first.slots[:] = np.arange(4)[:, None]
    assert second.params.shape == (1000,) and second.slots.shape == (4, 1000) and second.norms.shape == (1,)
    assert (second.params == 1).all() and (second.grad == 2).all() and (second.norms == 3).all()
    assert second.slots[:, 7].tolist() == [0, 1, 2, 3]
    assert (second.params.dtype, second.norms.dtype) == (np.float32, np.float64)
    os.close(first.fd)


def test_the_memory_is_reserved_and_its_size_is_sealed():
    arena = create_arena(5000, shards=2)
    total = arena_sizes(5000, 2).total
    status = os.fstat(arena.fd)
    assert status.st_size == total and status.st_blocks * 512 >= total
    for size in (0, total - 1, total + 1):
        with pytest.raises(PermissionError):
            os.ftruncate(arena.fd, size)
    os.close(arena.fd)


def test_the_arena_has_no_name_that_could_be_left_behind(open_files):
    before, files = set(Path("/dev/shm").iterdir()), open_files()
    arena = create_arena(5000, shards=2)
    assert set(Path("/dev/shm").iterdir()) == before
    assert Path(f"/proc/self/fd/{arena.fd}").readlink() == Path("/memfd:feste-dp (deleted)")
    assert not os.get_inheritable(arena.fd)
    os.close(arena.fd)
    del arena
    gc.collect()
    assert open_files() == files


def test_an_arena_larger_than_the_available_memory_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(arena_module, "available_memory", lambda: 100 * 2**20)
    with pytest.raises(UsageError) as caught:
        create_arena(10 * 2**20, shards=8)
    message = str(caught.value)
    assert "8 gradient slots need 400 MiB" in message and "100 MiB are available" in message
    assert "train.shards" in message and "\n" not in message


def test_a_refused_reservation_is_one_line_and_leaves_no_descriptor(monkeypatch, open_files):
    def full(fd, offset, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    files = open_files()
    with pytest.raises(UsageError, match=r"cannot reserve 1 MiB .* \(No space left on device\): set train"):
        create_arena(100_000, shards=1)
    assert open_files() == files


def fake_machine(root: Path, available_kib: int | None, cgroups: dict[str, dict[str, str]], own: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    line = "" if available_kib is None else f"MemAvailable:   {available_kib} kB\n"
    (root / "proc/meminfo").write_text(f"MemTotal:  999999999 kB\n{line}SwapFree:  5 kB\n")
    (root / "proc/self/cgroup").write_text(f"12:cpu:/old\n0::{own}\n")
    for path, files in cgroups.items():
        directory = root / "sys/fs/cgroup" / path.lstrip("/")
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (directory / name).write_text(content)
    return root


def group(limit: str, used: int, droppable: int = 0) -> dict[str, str]:
    return {
        "memory.max": f"{limit}\n",
        "memory.current": f"{used}\n",
        "memory.stat": f"anon 1\ninactive_file {droppable}\n",
    }


def test_without_a_limit_the_available_memory_counts(tmp_path):
    root = fake_machine(tmp_path, 2048, {"/a": group("max", 5)}, "/a")
    assert available_memory(root) == 2048 * 1024


def test_a_cgroup_limit_below_the_available_memory_counts(tmp_path):
    root = fake_machine(tmp_path, 10**6, {"/a": group("1000000", 300_000)}, "/a")
    assert available_memory(root) == 700_000


def test_page_cache_that_can_be_dropped_is_available(tmp_path):
    root = fake_machine(tmp_path, 10**6, {"/a": group("1000000", 900_000, droppable=250_000)}, "/a")
    assert available_memory(root) == 350_000


def test_the_tightest_limit_above_the_process_counts(tmp_path):
    groups = {"/a/b/c": group("max", 1), "/a/b": group("500000", 100_000), "/a": group("900000", 600_000)}
    root = fake_machine(tmp_path, 10**6, groups, "/a/b/c")
    assert available_memory(root) == 300_000


def test_a_cgroup_above_its_limit_leaves_nothing(tmp_path):
    root = fake_machine(tmp_path, 10**6, {"/": group("1000", 2000)}, "/")
    assert available_memory(root) == 0


@pytest.mark.parametrize("damage", ["memory.max", "memory.current", "memory.stat"])
def test_an_unreadable_cgroup_file_is_no_limit(tmp_path, damage):
    root = fake_machine(tmp_path, 2048, {"/a": group("1000", 10) | {damage: "nonsense"}}, "/a")
    assert available_memory(root) == 2048 * 1024


def test_a_machine_that_says_nothing_has_no_limit(tmp_path):
    assert available_memory(tmp_path) == UNLIMITED
    assert available_memory(fake_machine(tmp_path / "b", None, {}, "/gone")) == UNLIMITED
