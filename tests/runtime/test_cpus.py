import os
from pathlib import Path

import pytest

from feste_dp.errors import UsageError
from feste_dp.runtime import cpus
from feste_dp.runtime.cpus import default_workers, pin_plan, usable_cpus

NO_QUOTA = 1 << 16


@pytest.fixture
def four_cpus(monkeypatch):
    """CPUs 2, 3, 6 and 7: two cores (2, 6) and (3, 7) of two hardware threads each."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {7, 2, 3, 6})
    monkeypatch.setattr(cpus, "_core_of", lambda cpu: f"{cpu % 4},{cpu % 4 + 4}")
    monkeypatch.setattr(cpus, "_quota", lambda: NO_QUOTA)


def cgroup_root(root: Path, own: str, limits: dict[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(f"3:cpu:/elsewhere\n0::{own}\n")
    for path, content in limits.items():
        directory = root / "sys/fs/cgroup" / path.lstrip("/")
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "cpu.max").write_text(content)
    return root


@pytest.mark.parametrize(
    ("own", "limits", "whole_cpus"),
    [
        ("/a", {"/a": "200000 100000\n"}, 2),
        ("/a", {"/a": "150000 100000\n"}, 2),
        ("/a", {"/a": "50000 100000\n"}, 1),
        ("/a", {"/a": "max 100000\n"}, NO_QUOTA),
        ("/a/b", {"/a/b": "max 100000\n", "/a": "300000 100000\n"}, 3),
        ("/a/b", {"/a/b": "400000 100000\n", "/a": "300000 100000\n", "/": "800000 100000\n"}, 3),
        ("/", {"/": "100000 100000\n"}, 1),
        ("/a", {"/a": "nonsense\n"}, NO_QUOTA),
        ("/a", {"/a": "100000 0 9\n"}, NO_QUOTA),
        ("/gone", {}, NO_QUOTA),
    ],
)
def test_the_tightest_quota_above_the_process_is_rounded_up(tmp_path, own, limits, whole_cpus):
    assert cpus._quota(cgroup_root(tmp_path, own, limits)) == whole_cpus


def test_a_machine_without_cgroups_has_no_quota(tmp_path):
    assert cpus._quota(tmp_path) == NO_QUOTA


def test_usable_cpus_are_the_affinity_mask_or_the_quota_if_that_is_less(four_cpus, monkeypatch):
    assert usable_cpus() == 4
    monkeypatch.setattr(cpus, "_quota", lambda: 3)
    assert usable_cpus() == 3


def test_there_is_one_worker_a_usable_cpu_and_at_most_one_a_shard(four_cpus):
    assert [default_workers(shards) for shards in (1, 2, 4, 8)] == [1, 2, 4, 4]


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


@pytest.mark.parametrize(("pin", "named"), [([2], 1), ([2, 2], 1), ([3, 2, 3], 2)])
def test_too_few_or_repeated_cpus_are_refused(four_cpus, pin, named):
    with pytest.raises(UsageError, match=f"run.pin: 2 workers need 2 different CPUs, {named} named"):
        pin_plan(pin, 2)


def test_the_cpus_of_this_machine_can_be_pinned():
    allowed = os.sched_getaffinity(0)
    assert set(pin_plan("auto", len(allowed))) == allowed


def test_the_cpu_is_named_as_it_names_itself(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("processor : 0\nmodel name\t: A CPU @ 3 GHz\nmodel name\t: another\n")
    assert cpus.cpu_name(path) == "A CPU @ 3 GHz"
    assert cpus.cpu_name(tmp_path / "missing") == "unknown CPU"
