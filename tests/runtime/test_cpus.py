import os

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
    monkeypatch.setattr(cpus, "cpu_quota", lambda: NO_QUOTA)


def test_usable_cpus_are_the_affinity_mask_or_the_quota_if_that_is_less(four_cpus, monkeypatch):
    assert usable_cpus() == 4
    monkeypatch.setattr(cpus, "cpu_quota", lambda: 3)
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
