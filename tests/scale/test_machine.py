"""The machine as /proc and /sys tell it, on made-up ones."""

import os
from pathlib import Path

import pytest

from feste_dp.machine import load
from feste_dp.machine.cgroup import cpu_limit, memory_limit
from feste_dp.machine.load import OtherWork, busy_share
from feste_dp.machine.topology import Cache, physical_cores
from feste_dp.machine.versions import versions
from feste_dp.scale import machine
from feste_dp.scale.machine import read_machine


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two cores of two threads each, two sockets and NUMA nodes, in a group within a limited one."""

    def write(path: str, text: str) -> None:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    for cpu in range(4):
        core = f"sys/devices/system/cpu/cpu{cpu}"
        write(f"{core}/topology/thread_siblings_list", f"{cpu % 2},{cpu % 2 + 2}\n")
        write(f"{core}/topology/physical_package_id", f"{cpu % 2}\n")
        write(f"{core}/cache/index0/level", "1\n")
        write(f"{core}/cache/index0/type", "Data\n")
        write(f"{core}/cache/index0/size", "48K\n")
        write(f"{core}/cache/index0/shared_cpu_list", f"{cpu % 2},{cpu % 2 + 2}\n")
        write(f"{core}/cache/index3/level", "3\n")
        write(f"{core}/cache/index3/type", "Unified\n")
        write(f"{core}/cache/index3/size", "32M\n")
        write(f"{core}/cache/index3/shared_cpu_list", "0-3\n")
    for node in range(2):
        write(f"sys/devices/system/node/node{node}/cpulist", "0\n")
    write("proc/cpuinfo", "model name\t: A CPU\n")
    write("proc/meminfo", "MemTotal:  1024 kB\nMemAvailable: 512 kB\n")
    write("proc/loadavg", "1.50 1.00 0.50 1/100 1234\n")
    write("proc/self/cgroup", "0::/outer/inner\n")
    write("sys/fs/cgroup/outer/cpu.max", "150000 100000\n")
    write("sys/fs/cgroup/outer/memory.max", "max\n")
    write("sys/fs/cgroup/outer/inner/cpu.max", "max 100000\n")
    write("sys/fs/cgroup/outer/inner/memory.max", "1048576\n")
    write("proc/stat", "cpu  1 1 1 1 1 1 1 1 0 0\ncpu0 10 0 0 90 0 0 0 0 0 0\ncpu1 0 0 0 100 0 0 0 0 0 0\n")
    return tmp_path


def test_the_machine_is_read_with_its_cores_caches_and_limits(root, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    monkeypatch.setattr(machine, "usable_cpus", lambda: 4)
    monkeypatch.setattr(machine, "busy_share", lambda cpus, root: 0.0)
    found = read_machine("none", 2, root)
    assert (found.cpu, found.usable_cpus, found.physical_cores) == ("A CPU", 4, 2)
    assert (found.sockets, found.threads_per_core, found.numa_nodes) == (2, 2, 2)
    assert found.caches == [Cache(1, "Data", 48 << 10, 2, 2), Cache(3, "Unified", 32 << 20, 4, 1)]
    assert (found.cgroup_cpus, found.cgroup_memory_bytes, found.memory_bytes) == (1.5, 1 << 20, 1 << 20)
    assert (found.load_before, found.busy_before, found.pinned_cpus) == (1.5, 0.0, [None, None])


def test_siblings_are_one_core_and_a_machine_that_tells_nothing_has_a_core_a_cpu(root, tmp_path):
    assert physical_cores([0, 2], root) == 1 and physical_cores([0, 1, 2], root) == 2
    assert physical_cores([0, 1, 2], tmp_path / "empty") == 3
    assert cpu_limit(tmp_path / "empty") is None and memory_limit(tmp_path / "empty") is None


def test_a_busy_cpu_is_seen_and_one_that_is_not_ours_does_not_count(root, monkeypatch):
    later = "cpu0 10 0 0 170 0 0 0 20 0 0\ncpu1 100 0 0 100 0 0 0 0 0 0\n"
    monkeypatch.setattr(load.time, "sleep", lambda seconds: (root / "proc/stat").write_text(later))
    assert busy_share([0], root) == pytest.approx(0.2)  # taken by the hypervisor
    (root / "proc/stat").write_text("cpu0 10 0 0 90 0 0 0 0 0 0\ncpu1 0 0 0 100 0 0 0 0 0 0\n")
    assert busy_share([0, 1], root) == pytest.approx(0.6, abs=0.07)


def test_what_this_process_takes_itself_is_not_taken_by_others(root, monkeypatch):
    monkeypatch.setattr(load, "_own_ticks", lambda: 100.0)
    others = OtherWork([0, 1], root)
    assert others.share() == 0.0
    # 100 ticks passed on each, all of one and a tenth of the other busy, 80 of these our own
    (root / "proc/stat").write_text("cpu0 110 0 0 90 0 0 0 0 0 0\ncpu1 10 0 0 190 0 0 0 0 0 0\n")
    monkeypatch.setattr(load, "_own_ticks", lambda: 180.0)
    assert others.share() == pytest.approx(30 / 200)


def test_this_machine_can_be_read():
    found = read_machine("auto", 1)
    assert 1 <= found.physical_cores <= found.usable_cpus and found.memory_bytes > 1 << 28
    assert 0 <= found.busy_before <= 1
    assert {"feste-dp", "python", "numpy", "numba", "linux"} <= set(versions(also=("torch",)))
