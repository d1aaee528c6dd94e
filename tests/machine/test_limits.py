import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from feste_dp.machine import limits
from feste_dp.machine.cgroup import UNLIMITED
from feste_dp.machine.limits import available_memory, free_disk, measure_limits
from tests.machines import fake_root


def group(limit: int, used: int) -> dict[str, str]:
    return {"memory.max": f"{limit}\n", "memory.current": f"{used}\n", "memory.stat": "inactive_file 0\n"}


def test_available_memory_is_what_the_kernel_says_or_what_a_limit_leaves(tmp_path):
    roomy = fake_root(tmp_path / "a", "0::/a\n", {"/a": group(10**9, 0)}, available_kib=2048)
    tight = fake_root(tmp_path / "b", "0::/a\n", {"/a": group(10**6, 400_000)}, available_kib=2048)
    assert available_memory(roomy) == 2048 * 1024
    assert available_memory(tight) == 600_000


def test_a_machine_that_says_nothing_has_no_limit(tmp_path):
    assert available_memory(tmp_path) == UNLIMITED
    assert available_memory(fake_root(tmp_path / "b", "0::/gone\n", {})) == UNLIMITED
    (tmp_path / "b/proc/meminfo").write_text("MemAvailable: much kB\n")
    assert available_memory(tmp_path / "b") == UNLIMITED


def test_the_disk_is_that_of_the_nearest_directory_that_exists(tmp_path):
    assert free_disk(tmp_path / "to" / "be" / "made") == free_disk(tmp_path)
    assert free_disk(Path("/proc/self/nothing")) == UNLIMITED  # of no size


def test_checkpoints_that_are_there_will_make_room_for_those_to_come(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "free_disk", lambda path: 1000)
    assert measure_limits(tmp_path).disk == 1000
    for step, size in (("step-00000004", 20), ("step-00000008", 30), ("other", 7)):
        (tmp_path / step).mkdir()
        (tmp_path / step / "file").write_bytes(b"x" * size)
    (tmp_path / "latest").symlink_to("step-00000008")
    assert measure_limits(tmp_path).disk == 1050


def test_what_saves_nothing_needs_no_disk():
    assert measure_limits(None).disk == UNLIMITED


def test_the_limits_of_a_process_are_those_that_its_shell_set():
    program = (
        "import resource; from feste_dp.machine.limits import measure_limits\n"
        "resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (123, 123))\n"
        "found = measure_limits(None); print(found.descriptors, found.address_space < 8 << 30)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "123 True\n"


def test_the_processes_of_the_user_count_against_the_limit_of_the_user(tmp_path, monkeypatch):
    root = fake_root(tmp_path, "0::/a\n", {"/a": {"pids.max": "50\n", "pids.current": "1\n"}})
    for process, threads in (("100", 3), ("101", 4)):
        for thread in range(threads):
            (root / "proc" / process / "task" / str(thread)).mkdir(parents=True)
    owner = (root / "proc/100").stat().st_uid
    monkeypatch.setattr(os, "getuid", lambda: owner or 7)
    monkeypatch.setattr(limits, "soft_limit", lambda kind: 20 if kind == resource.RLIMIT_NPROC else UNLIMITED)
    counted = 7 if owner else 0  # the superuser's files are not those of user 7
    assert measure_limits(None, root).processes == 20 - counted
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert measure_limits(None, root).processes == 49


@pytest.mark.skipif(os.getuid() != 0, reason="only the superuser can become somebody else")
def test_threads_are_counted_by_their_owner():
    code = (
        "import os, time, threading\nos.setuid(4242)\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\nprint('up', flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        assert limits._threads_of(4242, Path("/")) == 2
        process.kill()
