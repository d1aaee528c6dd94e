"""Too small a machine, as a user meets it: one line that says what is missing and what to change, exit status
2, nothing created; and what looks too small but is not."""

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from feste_dp.config.loading import load_config
from feste_dp.plan.needs import needs
from feste_dp.train import launch as launching
from tests.chaos.storm import outcome_of
from tests.cli.conftest import COMMAND, Feste, Place
from tests.seccomp import SUPPORTED, under

Launch = Callable[..., "subprocess.CompletedProcess[str]"]

NAMESPACES = ["unshare", "--user", "--map-root-user", "--mount"]


def can_have_a_namespace() -> bool:
    command = [*NAMESPACES, "true"]
    return bool(shutil.which("unshare")) and subprocess.run(command, capture_output=True).returncode == 0


needs_namespaces = pytest.mark.skipif(not can_have_a_namespace(), reason="no user namespaces here")


@pytest.fixture
def launch(place: Place, tmp_path: Path) -> Launch:
    """Runs a launch after some shell commands, with a namespace of its own where asked."""

    def run(prepare: str, *arguments: str, namespaces: bool = False) -> "subprocess.CompletedProcess[str]":
        command = [*COMMAND, "launch", "--config", str(place.config), "--quiet", *arguments]
        shell = ["bash", "-c", f'set -e; {prepare}\nexec "$@"', "bash", *command]
        return subprocess.run(
            [*NAMESPACES, *shell] if namespaces else shell, cwd=tmp_path, capture_output=True, text=True
        )

    return run


def refused(done: "subprocess.CompletedProcess[str]", words: str) -> None:
    assert done.stderr.count("\n") == 1 and words in done.stderr
    assert (done.returncode, done.stdout) == (2, "")


@needs_namespaces
def test_a_run_does_not_need_room_in_dev_shm(launch: Launch, tmp_path: Path) -> None:
    small = "mount -t tmpfs -o size=64k tmpfs /dev/shm"
    done = launch(small, "--workers", "1", "--set", "model.n_embd=64", "--out", "run", namespaces=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "run/checkpoints/latest").readlink().name == "step-00000012"


@pytest.mark.skipif(not SUPPORTED, reason="calls can be refused on Linux on x86-64 only")
@pytest.mark.parametrize("number", [errno.EPERM, pytest.param(errno.ENOSYS, marks=pytest.mark.long)])
def test_refused_calls_about_cpus_and_priorities_change_nothing_in_any_process(
    place: Place, tmp_path: Path, number: int
) -> None:
    calls = (f"sched_setscheduler:{os.SCHED_BATCH}", "sched_setaffinity", "setpriority", "prctl")
    out = tmp_path / "run"
    command = [*COMMAND, "launch", "--config", str(place.config), "--out", str(out), "--pin", "auto"]
    refused = under([*command, "--workers", "2", "--quiet"], dict.fromkeys(calls, number))
    done = subprocess.run(refused, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert outcome_of(out, 12) == outcome_of(place.run, 12)


@pytest.mark.skipif(not SUPPORTED, reason="calls can be refused on Linux on x86-64 only")
def test_a_refused_call_without_which_a_library_cannot_work_is_one_line(place: Place, tmp_path: Path) -> None:
    command = [*COMMAND, "launch", "--config", str(place.config), "--out", str(tmp_path / "run"), "--quiet"]
    for call, status, words in (
        ("sched_getaffinity", 1, "error: the program cannot be loaded here: "),  # Numba asks at its import
        (
            "sched_setscheduler",
            2,
            "sched_setscheduler is refused (Operation not permitted), which ZeroMQ needs",
        ),
    ):
        done = subprocess.run(under(command, {call: errno.EPERM}), capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (status, "") and words in done.stderr
        assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@needs_namespaces
def test_too_little_memory_is_said_before_the_start(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 200000 kB\nMemAvailable: 90000 kB\n")
    done = launch("mount --bind meminfo /proc/meminfo", "--out", "run", namespaces=True)
    refused(done, "MiB more are needed (worker processes 148 MiB, ")
    assert "88 MiB are available: set run.workers to 1" in done.stderr
    assert not (tmp_path / "run").exists()


@needs_namespaces
def test_too_small_a_disk_for_the_checkpoints_is_said_before_the_start(
    launch: Launch, tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir()
    done = launch(
        "mount -t tmpfs -o size=300k tmpfs disk",
        *("--set", "model.n_embd=64", "--set", "checkpoint.keep=3", "--out", "disk/run"),
        namespaces=True,
    )
    refused(done, "error: disk: 6 checkpoints of 1 MiB need 5 MiB, 0 MiB are free: ")
    assert done.stderr.endswith("or set run.dir to a larger disk\n") or "checkpoint.keep" in done.stderr


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ("ulimit -n 43", "open files: 2 workers need 44, the limit is 43: raise it with `ulimit -n 44`"),
        ("ulimit -v 600000", "address space: a process needs"),
    ],
)
def test_a_limit_of_the_shell_is_named_with_the_command_that_raises_it(
    limit: str, words: str, launch: Launch, tmp_path: Path
) -> None:
    done = launch(limit, "--out", "run")
    refused(done, words)
    assert "ulimit" in done.stderr and not (tmp_path / "run").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="about the superuser")
def test_the_superuser_is_not_held_to_a_limit_of_processes(launch: Launch) -> None:
    done = launch("ulimit -u 3", "--workers", "1", "--out", "run")
    assert (done.returncode, done.stderr) == (0, "")


def test_exactly_as_many_descriptors_as_are_asked_for_suffice(launch: Launch) -> None:
    done = launch("ulimit -n 44", "--out", "run")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def memory_group() -> Iterator[Callable[[int], Path]]:
    """Makes a memory control group with a limit in bytes, where this process may."""
    made: list[Path] = []

    def make(limit: int) -> Path:
        for top, file in (
            (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
            (Path("/sys/fs/cgroup"), "memory.max"),
        ):
            group = top / f"feste-dp-test-{os.getpid()}"
            try:
                group.mkdir()
                made.append(group)
                (group / file).write_text(str(limit))
                (group / "cgroup.procs").open("a").close()
            except OSError:
                continue
            return group
        pytest.skip("no control groups can be made here")

    yield make
    for group in made:
        group.rmdir()


def test_a_run_that_does_not_fit_into_its_control_group_is_refused_and_not_killed(
    launch: Launch, tmp_path: Path, memory_group: Callable[[int], Path]
) -> None:
    group = memory_group(180 * 2**20)
    done = launch(f"echo $$ > {group}/cgroup.procs", "--out", "run")
    refused(done, "MiB more are needed (worker processes 148 MiB, ")
    assert not (tmp_path / "run").exists()


def test_a_run_that_fits_into_its_control_group_is_not_killed(
    launch: Launch, tmp_path: Path, memory_group: Callable[[int], Path]
) -> None:
    group = memory_group(400 * 2**20)
    done = launch(f"echo $$ > {group}/cgroup.procs", "--out", "run")
    assert (done.returncode, done.stderr) == (0, "")
    kills = next(group / name for name in ("memory.oom_control", "memory.events") if (group / name).exists())
    assert "oom_kill 0" in kills.read_text()


def kib(pid: str, file: str, name: str) -> int:
    lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


def is_worker(pid: str) -> bool:
    """Not so of a child that has the memory of its parent still, before it is a program of its own."""
    return b"worker_boot" in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_what_is_said_to_be_needed_is_what_a_run_takes(place: Place, tmp_path: Path) -> None:
    need = needs(load_config(place.config), 2)
    command = [*COMMAND, "launch", "--config", str(place.config), "--out", str(tmp_path / "run"), "--quiet"]
    memory, private, descriptors, threads = 0, 0, 0, 0
    with subprocess.Popen([*command, "--set", "train.steps=150"], stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            try:
                children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
                pids = [str(process.pid), *children]
                workers = [str(process.pid), *filter(is_worker, children)]
                memory = max(memory, 1024 * sum(kib(pid, "status", "RssAnon") for pid in workers))
                for pid in pids:
                    descriptors = max(descriptors, len(list(Path(f"/proc/{pid}/fd").iterdir())))
                for worker in filter(is_worker, children):
                    private = max(private, 1024 * kib(worker, "status", "RssAnon"))
                threads = max(threads, sum(len(list(Path(f"/proc/{p}/task").iterdir())) for p in pids))
            except OSError:  # a process has ended between two looks at it
                continue
            time.sleep(0.01)
    assert process.returncode == 0
    assert private == pytest.approx(need.memory.worker + need.memory.activations, rel=0.1)
    own = need.memory.total - need.memory.arena - need.memory.libraries
    assert memory == pytest.approx(own, rel=0.1)
    assert 16 < descriptors <= need.descriptors < 3 * descriptors
    assert 8 < threads <= need.processes < 4 * threads


def test_memory_that_runs_out_all_the_same_is_one_line(
    place: Place, feste: Feste, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_memory(*arguments: object) -> int:
        raise MemoryError

    monkeypatch.setattr(launching, "launch", no_memory)
    result = feste("launch", "--config", place.config, "--out", tmp_path / "run")
    assert (result.status, result.out) == (1, "")
    assert result.err == "error: out of memory: set the model, train.micro_batch or run.workers smaller\n"
