import pytest

from feste_dp.machine.cgroup import UNLIMITED, cpu_quota, groups, memory_left, oom_kills, processes_left
from tests.machines import fake_root

V1_HUGE = "9223372036854771712\n"  # what version 1 says for no limit


def v2(limit: str, used: int, droppable: int = 0) -> dict[str, str]:
    return {
        "memory.max": f"{limit}\n",
        "memory.current": f"{used}\n",
        "memory.stat": f"anon 1\ninactive_file {droppable}\n",
    }


def v1(limit: str, used: int, droppable: int = 0) -> dict[str, str]:
    return {
        "memory.limit_in_bytes": f"{limit}\n",
        "memory.usage_in_bytes": f"{used}\n",
        "memory.stat": f"cache 1\ninactive_file 7\ntotal_inactive_file {droppable}\n",
    }


@pytest.mark.parametrize(
    ("own", "limits", "left"),
    [
        ("0::/a\n", {"/a": v2("max", 5)}, UNLIMITED),
        ("0::/a\n", {"/a": v2("1000000", 300_000)}, 700_000),
        ("0::/a\n", {"/a": v2("1000000", 900_000, droppable=250_000)}, 350_000),
        (
            "0::/a/b/c\n",
            {"/a/b/c": v2("max", 1), "/a/b": v2("500000", 100_000), "/a": v2("900000", 600_000)},
            300_000,
        ),
        ("0::/\n", {"/": v2("1000", 2000)}, 0),
        ("0::/gone/outside\n", {"/": v2("1000", 400)}, 600),
        ("4:memory:/a\n0::/\n", {"memory/a": v1("1000000", 300_000)}, 700_000),
        ("4:memory:/a\n", {"memory/a": v1("1000000", 900_000, droppable=250_000)}, 350_000),
        ("4:memory:/a\n", {"memory/a": v1(V1_HUGE, 1), "memory": v1("900", 100)}, 800),
        ("4:memory:/a\n", {"memory/a": v1(V1_HUGE, 1)}, UNLIMITED),
        ("4:memory:/docker/abc\n", {"memory": v1("900", 100)}, 800),
        ("3:cpu:/a\n", {"memory/a": v1("1000000", 300_000)}, UNLIMITED),
        ("nonsense\n\n1:\n", {"/": v2("1000", 400)}, UNLIMITED),
    ],
)
def test_the_tightest_memory_limit_above_the_process_counts_in_both_versions(tmp_path, own, limits, left):
    assert memory_left(fake_root(tmp_path, own, limits)) == left


@pytest.mark.parametrize("damage", ["memory.max", "memory.current", "memory.stat"])
def test_an_unreadable_file_is_no_limit(tmp_path, damage):
    root = fake_root(tmp_path, "0::/a\n", {"/a": v2("1000", 10) | {damage: "non sense s"}})
    assert memory_left(root) == UNLIMITED


@pytest.mark.parametrize(
    ("own", "limits", "whole_cpus"),
    [
        ("/a", {"/a": "200000 100000\n"}, 2),
        ("/a", {"/a": "150000 100000\n"}, 2),
        ("/a", {"/a": "50000 100000\n"}, 1),
        ("/a", {"/a": "max 100000\n"}, UNLIMITED),
        ("/a/b", {"/a/b": "max 100000\n", "/a": "300000 100000\n"}, 3),
        ("/a/b", {"/a/b": "400000 100000\n", "/a": "300000 100000\n", "/": "800000 100000\n"}, 3),
        ("/", {"/": "100000 100000\n"}, 1),
        ("/a", {"/a": "nonsense\n"}, UNLIMITED),
        ("/a", {"/a": "100000 0\n"}, UNLIMITED),
        ("/a", {"/a": "100000 0 9\n"}, UNLIMITED),
        ("/gone", {}, UNLIMITED),
    ],
)
def test_the_tightest_quota_above_the_process_is_rounded_up(tmp_path, own, limits, whole_cpus):
    files = {path: {"cpu.max": text} for path, text in limits.items()}
    assert cpu_quota(fake_root(tmp_path, f"3:cpu:/elsewhere\n0::{own}\n", files)) == whole_cpus


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
@pytest.mark.parametrize(("quota", "whole_cpus"), [("250000", 3), ("100000", 1), ("-1", UNLIMITED)])
def test_a_quota_of_version_1_counts_too(tmp_path, mount, quota, whole_cpus):
    files = {"cpu.cfs_quota_us": f"{quota}\n", "cpu.cfs_period_us": "100000\n"}
    own = "5:cpu,cpuacct:/a/b\n0::/\n"
    assert cpu_quota(fake_root(tmp_path, own, {f"{mount}/a": files})) == whole_cpus


@pytest.mark.parametrize("own", ["0::/a\n", "8:pids:/a\n"])
def test_the_limit_of_processes_counts_those_that_are_there(tmp_path, own):
    files = {"pids.max": "100\n", "pids.current": "30\n"}
    directory = "/a" if own.startswith("0") else "pids/a"
    assert processes_left(fake_root(tmp_path / "full", own, {directory: files})) == 70
    assert (
        processes_left(fake_root(tmp_path / "max", own, {directory: files | {"pids.max": "max"}}))
        == UNLIMITED
    )


def test_processes_killed_for_memory_are_counted_in_the_own_group(tmp_path):
    events = "low 0\nhigh 0\nmax 12\noom 3\noom_kill {}\n"
    root = fake_root(
        tmp_path,
        "0::/a/b\n",
        {"/a/b": {"memory.events": events.format(2)}, "/a": {"memory.events": events.format(9)}},
    )
    assert oom_kills(root) == 2
    old = {"memory/a": {"memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"}}
    assert oom_kills(fake_root(tmp_path / "v1", "4:memory:/a\n", old)) == 4
    assert oom_kills(fake_root(tmp_path / "none", "0::/a\n", {})) is None


def test_a_machine_without_control_groups_limits_nothing(tmp_path):
    assert list(groups("memory", tmp_path)) == []
    assert memory_left(tmp_path) == cpu_quota(tmp_path) == processes_left(tmp_path) == UNLIMITED
    assert oom_kills(tmp_path) is None
