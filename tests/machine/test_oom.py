import signal
import subprocess
import sys

import pytest

from feste_dp.machine.oom import KillCount, explain_end
from tests.machines import fake_root

EVENTS = "low 0\nhigh 0\nmax 7\noom 2\noom_kill {}\noom_group_kill 0\n"


def test_a_kill_that_the_control_group_counted_names_signal_count_and_fewer_workers(tmp_path):
    root = fake_root(tmp_path, "0::/a\n", {"/a": {"memory.events": EVENTS.format(3)}})
    before = KillCount.now(root)
    (root / "sys/fs/cgroup/a/memory.events").write_text(EVENTS.format(5))
    words = explain_end(-signal.SIGKILL, before.risen_to(KillCount.now(root)), workers=4)
    assert words == (
        "was killed by signal 9 (SIGKILL); the kernel has killed 2 processes for memory since the start "
        "(oom_kill): use fewer workers (run.workers 3), or raise the memory limit"
    )
    assert "killed 1 process for" in explain_end(-signal.SIGKILL, 1, workers=4)


def test_a_single_worker_is_told_to_have_a_smaller_model():
    assert "set the model smaller" in explain_end(-signal.SIGKILL, 1, workers=1)


def test_a_kill_that_nothing_counted_is_not_blamed_on_memory(tmp_path):
    root = fake_root(tmp_path, "0::/a\n", {"/a": {"memory.events": EVENTS.format(3)}})
    count = KillCount.now(root)
    assert count == KillCount(3) and count.risen_to(KillCount.now(root)) == 0
    assert explain_end(-signal.SIGKILL, 0, workers=4) == "was killed by signal 9 (SIGKILL)"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "exited with status 0"),
        (3, "exited with status 3"),
        (-signal.SIGSEGV, "was killed by signal 11 (SIGSEGV)"),
        (-signal.SIGTERM, "was killed by signal 15 (SIGTERM)"),
        (-(signal.SIGRTMIN + 3), f"was killed by signal {signal.SIGRTMIN + 3} (SIGRTMIN+3)"),
    ],
)
def test_other_ends_are_said_as_they_are_though_memory_was_short(code, words):
    assert explain_end(code, 5, workers=4) == words


def test_version_1_and_the_machine_as_a_whole_are_read_too(tmp_path):
    old = {"memory/a": {"memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"}}
    assert KillCount.now(fake_root(tmp_path / "old", "4:memory:/a\n", old)) == KillCount(4)
    bare = fake_root(tmp_path / "bare", "0::/\n", {})
    assert KillCount.now(bare) == KillCount(None)
    (bare / "proc/vmstat").write_text("nr_free_pages 12\noom_kill 6\n")
    assert KillCount.now(bare) == KillCount(6)


@pytest.mark.parametrize(("before", "later"), [(None, 3), (3, None), (3, 2)])
def test_a_count_that_cannot_be_compared_says_nothing(before, later):
    assert KillCount(before).risen_to(KillCount(later)) == 0


def test_the_exit_code_is_the_one_that_a_killed_process_has():
    process = subprocess.Popen([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
    assert explain_end(process.wait(), 0, workers=1) == "was killed by signal 9 (SIGKILL)"
