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
from feste_dp.runtime.arena import Arena, arena_sizes, create_arena
from feste_dp.runtime.letterbox import BOX_BYTES


@given(st.integers(1, 10**9), st.sampled_from([1, 2, 8, 256]))
def test_every_array_starts_on_a_page_and_none_overlaps_the_next(parameters, shards):
    sizes = arena_sizes(parameters, shards)
    assert all(offset % mmap.PAGESIZE == 0 for offset in sizes)
    boxes = shards * BOX_BYTES
    bytes_of = (4 * parameters, 4 * parameters, 8 * -(-parameters // NORM_CHUNK), boxes, boxes)
    bytes_of += (4 * shards * parameters,)
    for start, size, stop in zip(sizes[:-1], bytes_of, sizes[1:], strict=True):
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


def test_slots_that_are_not_in_use_take_no_memory_and_more_can_be_had_later():
    arena = create_arena(50_000, shards=64, slots=2)
    sizes = arena_sizes(50_000, 64)
    assert arena.reserved_bytes == sizes.reserved(50_000, 2) < sizes.total / 10
    arena.slots[:2] = 7
    arena.reserve_slots(8)
    assert arena.reserved_bytes == sizes.reserved(50_000, 8)
    assert (arena.slots[:2] == 7).all() and not arena.slots[2:8].any()
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
