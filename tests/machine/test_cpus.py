import os
import subprocess
import sys

import pytest

from feste_dp.errors import UsageError
from feste_dp.machine import cpus
from feste_dp.machine.cpus import cpu_features, crowding, default_workers, pin_plan, usable_cores, usable_cpus

NO_QUOTA = 1 << 16


@pytest.fixture
def four_cpus(monkeypatch):
    """CPUs 2, 3, 6 and 7: two cores (2, 6) and (3, 7) of two hardware threads each."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {7, 2, 3, 6})
    monkeypatch.setattr(cpus, "core_of", lambda cpu: f"{cpu % 4},{cpu % 4 + 4}")
    monkeypatch.setattr(cpus, "cpu_quota", lambda: NO_QUOTA)


def test_usable_cpus_are_the_affinity_mask_or_the_quota_if_that_is_less(four_cpus, monkeypatch):
    assert usable_cpus() == 4
    monkeypatch.setattr(cpus, "cpu_quota", lambda: 3)
    assert usable_cpus() == 3


def test_there_is_one_worker_a_physical_core_and_at_most_one_a_shard(four_cpus, monkeypatch):
    assert usable_cores() == 2
    assert [default_workers(shards) for shards in (1, 2, 4, 8)] == [1, 2, 2, 2]
    monkeypatch.setattr(cpus, "core_of", str)
    assert [default_workers(shards) for shards in (1, 2, 4, 8)] == [1, 2, 4, 4]
    monkeypatch.setattr(cpus, "cpu_quota", lambda: 3)
    assert [default_workers(shards) for shards in (1, 2, 4, 8)] == [1, 2, 3, 3]


def test_a_quota_below_one_cpu_leaves_one_worker(four_cpus, monkeypatch):
    monkeypatch.setattr(cpus, "cpu_quota", lambda: 1)
    assert default_workers(8) == 1


def test_more_workers_than_cores_or_cpus_are_worth_a_warning(four_cpus, monkeypatch):
    assert crowding(1) is None and crowding(2) is None
    assert crowding(3) == ("3 workers share 2 physical cores: 2 take less memory and are hardly slower")
    assert "5 workers share 4 usable CPUs: 2 take less memory" in str(crowding(5))
    monkeypatch.setattr(cpus, "cpu_quota", lambda: 1)
    assert "2 workers share 1 usable CPU (the quota of the control group): 1 worker takes" in str(crowding(2))


def test_the_affinity_mask_that_taskset_sets_is_the_default_worker_count():
    cpu = str(min(os.sched_getaffinity(0)))
    program = (
        "from feste_dp.machine.cpus import *; print(usable_cpus(), default_workers(8), pin_plan('auto', 1))"
    )
    done = subprocess.run(
        ["taskset", "-c", cpu, sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"1 1 [{cpu}]\n"


def test_unpinned_workers_are_bound_to_no_cpu(four_cpus):
    assert pin_plan("none", 3) == [None, None, None]


def test_automatic_pinning_takes_each_physical_core_before_its_sibling(four_cpus):
    assert pin_plan("auto", 4) == [2, 3, 6, 7]
    assert pin_plan("auto", 1) == [2]


def test_automatic_pinning_leaves_workers_beyond_the_cpus_unbound(four_cpus):
    assert pin_plan("auto", 6) == [2, 3, 6, 7, None, None]


def test_a_list_of_cpus_is_used_in_its_order(four_cpus):
    assert pin_plan([7, 2, 3], 2) == [7, 2]
    assert pin_plan([7, 2, 3], 3) == [7, 2, 3]


def test_a_cpu_outside_the_affinity_mask_is_named(four_cpus):
    with pytest.raises(UsageError, match=r"run\.pin: CPU 0 is not among the usable ones, \[2, 3, 6, 7\]"):
        pin_plan([2, 0], 2)


def test_too_few_or_repeated_cpus_are_refused(four_cpus):
    with pytest.raises(UsageError, match=r"run.pin: 2 workers need 2 CPUs, 1 named: .* set run.workers to 1"):
        pin_plan([2], 2)
    for pin in ([2, 2], [7, 2, 3, 2]):
        with pytest.raises(UsageError, match=r"run\.pin: CPU 2 is named twice: name it once"):
            pin_plan(pin, 2)


def test_the_cpus_of_this_machine_can_be_pinned():
    allowed = os.sched_getaffinity(0)
    assert set(pin_plan("auto", len(allowed))) == allowed


def test_the_cpu_is_named_as_it_names_itself(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("processor : 0\nmodel name\t: A CPU @ 3 GHz\nmodel name\t: another\n")
    assert cpus.cpu_name(path) == "A CPU @ 3 GHz"
    assert cpus.cpu_name(tmp_path / "missing") == "unknown CPU"


def test_the_features_that_matter_are_told_as_the_kernel_names_them(tmp_path):
    (tmp_path / "cpuinfo").write_text(
        "processor : 0\nflags\t\t: fpu avx512f vme avx avx2 fma\nflags : none\n"
    )
    assert cpu_features(tmp_path / "cpuinfo") == ["avx", "avx2", "fma", "avx512f"]
    (tmp_path / "arm").write_text("processor\t: 0\nFeatures\t: fp asimd sve\n")
    assert cpu_features(tmp_path / "arm") == ["asimd", "sve"]
    assert cpu_features(tmp_path / "none") == []
