"""Commands whose product is what they print: they wait for their reader, but not when told to stop."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, Place

LIMIT_S = 60


@pytest.fixture
def full_pipe() -> tuple[int, int]:
    """A reader that has taken nothing, and a writer without room."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x")
    os.set_blocking(writer, True)
    return reader, writer


def wait_until_it_waits(process: subprocess.Popen[bytes]) -> None:
    """In write(1, ...), the system call 1 of x86-64 and 64 of arm64."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        call = Path(f"/proc/{process.pid}/syscall").read_text().split()
        if call[:2] in (["1", "0x1"], ["64", "0x1"]):
            return
        assert process.poll() is None and time.monotonic() < deadline, call
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("command", "signum"),
    [
        (["checkpoint", "list"], signal.SIGINT),
        (["generate", "--prompt", "A", "--tokens", "3"], signal.SIGTERM),
        (["report"], signal.SIGHUP),
        pytest.param(["evaluate"], signal.SIGTERM, marks=pytest.mark.long),
        pytest.param(["replay", "--step", "2", "--json"], signal.SIGINT, marks=pytest.mark.long),
        pytest.param(["runs"], signal.SIGTERM, marks=pytest.mark.long),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_a_command_that_waits_for_its_reader_ends_at_once_when_told_to(
    command: list[str], signum: signal.Signals, own_run: Path, full_pipe: tuple[int, int]
) -> None:
    reader, writer = full_pipe
    name, *options = command
    arguments = [name, str(own_run), *options]
    if name == "checkpoint":
        arguments = [*command, str(own_run)]
    # what is in Python's buffer when the signal comes must not be waited for either
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=writer, stderr=subprocess.PIPE, env=environ
    ) as process:
        try:
            os.close(writer)
            wait_until_it_waits(process)
            process.send_signal(signum)
            assert process.wait(20) == 128 + signum
            assert process.stderr is not None
            said = process.stderr.read().decode()
            assert said.endswith("stopped\n") and "Traceback" not in said
        finally:
            process.kill()
            os.close(reader)


def test_a_result_loses_nothing_on_its_way_to_a_slow_reader(place: Place) -> None:
    command = [*COMMAND, "checkpoint", "list", str(place.run), "--json"]
    whole = subprocess.run(command, capture_output=True, check=True).stdout
    slow = subprocess.run(
        ["sh", "-c", '"$@" | (sleep 3; cat)', "sh", *command], capture_output=True, check=True
    ).stdout
    assert slow == whole


@pytest.mark.parametrize(
    "command",
    [
        ["checkpoint", "list", "--json"],
        ["runs", "--json"],
        pytest.param(["evaluate", "--json"], marks=pytest.mark.long),
        pytest.param(["replay", "--step", "2"], marks=pytest.mark.long),
    ],
    ids=lambda command: command[0],
)
def test_a_reader_that_has_enough_is_no_error(command: list[str], place: Place) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    at = 2 if command[0] == "checkpoint" else 1
    try:
        done = subprocess.run(
            [*COMMAND, *command[:at], str(place.run), *command[at:]], stdout=writer, stderr=subprocess.PIPE
        )
    finally:
        os.close(writer)
    assert done.returncode == 141 and b"Traceback" not in done.stderr and b"error" not in done.stderr
