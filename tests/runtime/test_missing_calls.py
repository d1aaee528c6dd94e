"""System calls that old kernels lack and profiles of containers forbid: others take their place."""

import errno
import fcntl
import mmap
import os
import select
from pathlib import Path

import pytest

from feste_dp.machine.oom import explain_end
from feste_dp.runtime import shared_memory, worker
from feste_dp.runtime.shared_memory import reserve_shared_memory
from feste_dp.runtime.worker_process import start_worker

SIZE = (1 << 20) + 4096


def missing(number):
    def call(*_):
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_without_pidfd_the_end_of_a_worker_is_seen_all_the_same(monkeypatch, number, open_files):
    monkeypatch.setattr(os, "pidfd_open", missing(number))
    before = open_files()
    worker = start_worker(0, [], os.environ)
    assert not select.select([worker.ended], [], [], 0.05)[0]
    worker.kill()
    assert select.select([worker.ended], [], [], 20)[0]
    worker.close()
    assert open_files() == before


@pytest.mark.parametrize("call", ["memfd_create", "posix_fallocate"])
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_shared_memory_has_no_name_and_is_all_there_without(monkeypatch, call, number):
    before = set(Path("/dev/shm").iterdir())
    monkeypatch.setattr(os, call, missing(number))
    fd = reserve_shared_memory(SIZE)
    status = os.fstat(fd)
    assert status.st_size == SIZE and status.st_blocks * 512 >= SIZE
    with mmap.mmap(fd, SIZE) as memory:
        assert memory[:] == bytes(SIZE)
    os.close(fd)
    assert set(Path("/dev/shm").iterdir()) == before


def test_a_seal_that_is_refused_is_no_trouble(monkeypatch):
    monkeypatch.setattr(fcntl, "fcntl", missing(errno.EINVAL))
    os.close(reserve_shared_memory(SIZE))


def test_where_nothing_is_left_the_last_reason_is_given(monkeypatch):
    monkeypatch.setattr(os, "memfd_create", missing(errno.ENOSYS))
    monkeypatch.setattr(shared_memory, "reserve", missing(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        reserve_shared_memory(SIZE)


def test_a_worker_yields_to_the_coordinator_where_it_may_and_keeps_a_policy_that_the_user_chose(monkeypatch):
    asked = []

    def refuse(pid, policy, param):
        asked.append(policy)
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    for policy in (os.SCHED_OTHER, os.SCHED_IDLE, os.SCHED_BATCH):
        monkeypatch.setattr(os, "sched_getscheduler", lambda pid, policy=policy: policy)
        worker._yield_to_coordinator()
    assert asked == [os.SCHED_BATCH]


def test_a_worker_at_its_limit_of_cpu_time_is_named_as_such():
    assert "SIGXCPU): the limit of CPU time" in explain_end(-24, 0, 2)
