"""A real run from outside: who can reach it, who can read it, who is kept out, and that it can always end."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, Feste, Place

LIMIT_S = 120.0
LISTENING = "0A"


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def family(pid: int) -> list[int]:
    """The process and all below it."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, task.read_text().split())
    return found


def sockets(pids: list[int]) -> set[str]:
    inodes = set()
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                target = str(entry.readlink())
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
    return inodes


@pytest.fixture(scope="module")
def going(
    place: Place, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A run that goes on for as long as the tests need it; it saves every step and keeps one checkpoint."""
    run = tmp_path_factory.mktemp("going") / "run"
    command = [*COMMAND, "launch", "--config", str(place.config), "--out", str(run), "--quiet"]
    for setting in ("train.steps=1000000", "checkpoint.every=1", "checkpoint.keep=1", "eval.every=0"):
        command += ["--set", setting]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        wait_until(
            lambda: (run / "checkpoints/latest").is_symlink() or process.poll() is not None, "no checkpoint"
        )
        assert process.poll() is None, process.communicate()
        yield process, run
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 143
    finally:
        process.kill()
        process.communicate()


def test_no_process_of_a_run_listens_on_the_network(going: tuple[subprocess.Popen[bytes], Path]) -> None:
    pids = family(going[0].pid)
    assert len(pids) >= 3  # the coordinator and two workers
    ours = sockets(pids)
    assert ours
    for table in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6"):
        path = Path("/proc/net") / table
        lines = path.read_text().splitlines()[1:] if path.exists() else []
        assert not [line for line in lines if line.split()[9] in ours], table


def test_its_sockets_have_no_name_that_another_process_could_connect_to(
    going: tuple[subprocess.Popen[bytes], Path],
) -> None:
    ours = sockets(family(going[0].pid))
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[6] in ours and len(fields) > 7:
            assert not fields[7].startswith("@"), "an abstract name has no permissions"
            assert not Path(fields[7]).exists(), fields[7]


@pytest.mark.parametrize("command", ["resume {run}", "launch --config {config} --out {run}"])
def test_a_second_writer_is_refused_while_the_first_goes_on(
    command: str, going: tuple[subprocess.Popen[bytes], Path], place: Place, feste: Feste
) -> None:
    process, run = going
    config = (run / "config.yaml").read_bytes()
    result = feste(*command.format(run=run, config=place.config).split())
    assert result.status == 2 and result.err.count("\n") == 1
    assert (f"is in use by process {process.pid}" in result.err) or "is not empty" in result.err
    assert (run / "config.yaml").read_bytes() == config and process.poll() is None


def test_a_run_can_be_read_while_it_goes_on_though_it_removes_what_is_read(
    going: tuple[subprocess.Popen[bytes], Path], feste: Feste
) -> None:
    process, run = going
    for _ in range(5):
        result = feste("generate", run, "--prompt", "KING.", "--tokens", "3")
        assert (result.status, result.err) == (0, "")
    result = feste("evaluate", run, "--workers", "1")
    assert result.status == 0, result.err
    assert feste("checkpoint", "list", run).status == 0
    assert process.poll() is None


@pytest.mark.parametrize("length", [88, 160])
def test_a_temporary_directory_too_long_for_a_socket_is_no_trouble(
    place: Place, tmp_path: Path, length: int
) -> None:
    base = Path("/tmp") / f"fdp-{os.getpid()}"
    long = Path(f"{base}-{'x' * (length - len(str(base)) - 1)}")
    long.mkdir()
    try:
        command = [
            *COMMAND,
            "launch",
            "--config",
            str(place.config),
            "--out",
            str(tmp_path / "run"),
            "--workers",
            "1",
            "--quiet",
        ]
        done = subprocess.run(
            [*command, "--set", "train.steps=1", "--set", "sample.every=0", "--set", "eval.every=0"],
            capture_output=True,
            text=True,
            env=os.environ | {"TMPDIR": str(long)},
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert list(long.iterdir()) == []
    finally:
        long.rmdir()


def test_a_run_whose_workers_have_all_been_stopped_can_still_be_ended(place: Place, tmp_path: Path) -> None:
    """Orders that no worker takes wait in the sockets: with a linger they would hold the exit up for ever."""
    run = tmp_path / "run"
    command = [*COMMAND, "launch", "--config", str(place.config), "--out", str(run), "--quiet"]
    with subprocess.Popen([*command, "--set", "train.steps=1000000"], stderr=subprocess.PIPE) as process:
        wait_until(lambda: (run / "checkpoints/latest").is_symlink(), "no checkpoint")
        workers = family(process.pid)[1:]
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        # the coordinator waits for them
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        status = process.wait(LIMIT_S)
        # the second may come when the interpreter is past all handlers, and ends it as it ends any program
        assert status in (130, 143, -signal.SIGINT)
    for pid in workers:
        assert not Path(f"/proc/{pid}").exists()
