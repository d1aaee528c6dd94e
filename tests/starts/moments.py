"""Signals at any moment of a command, also two within a millisecond and to process 1 of a container."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.starts.stage import GONE_S, LIMIT_S

ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR2, signal.SIGUSR1)
WRONG_WORDS = ("Traceback", "Exception ignored", "Fatal Python error", "Exception in")
TWICE_S = 0.0005
AS_PROCESS_ONE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]


@dataclass(frozen=True)
class End:
    """How a command ended that got signals."""

    status: int
    said: str
    had_begun: bool
    """Whether the program's first line had run: before it, the kernel's or Python's own way holds."""
    was_over: bool = False
    """The command had ended before a signal came."""

    def __str__(self) -> str:
        before = " before the first line" if not self.had_begun else " too late" if self.was_over else ""
        return f"{self.status}{before}"

    @property
    def is_quiet(self) -> bool:
        return not any(words in self.said for words in WRONG_WORDS)


def process_one_can_be_had() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*AS_PROCESS_ONE, "true"], capture_output=True).returncode == 0


def signalled(
    command: Sequence[str],
    environ: Mapping[str, str],
    after_s: float,
    signals: Sequence[int],
    as_process_one: bool = False,
) -> End:
    """Run a command and send it the signals, so many seconds after its start. AssertionError where
    processes of it are left."""
    prefix = AS_PROCESS_ONE if as_process_one else []
    process = subprocess.Popen(
        [*prefix, *command],
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        began = time.monotonic()
        target = _child_of(process) if as_process_one else process.pid
        time.sleep(max(0.0, after_s - (time.monotonic() - began)))
        was_over = process.poll() is not None or not target
        had_begun = was_over or _handles_signals(target)
        for signum in signals:
            if process.poll() is None and target:
                with contextlib.suppress(ProcessLookupError):  # it has ended by the first
                    os.kill(target, signum)
                time.sleep(TWICE_S)
        said, _ = process.communicate(timeout=LIMIT_S)
        _check_that_processes_are_gone(process.pid)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return End(process.returncode, said.decode(errors="replace"), had_begun, was_over)


def allowed(signals: Sequence[int], end: End) -> set[int]:
    """The exit statuses that are right; SIGUSR1 ends nothing."""
    ending = [signum for signum in signals if signum != signal.SIGUSR1]
    statuses = {128 + signum for signum in ending} | {0}
    return statuses if end.had_begun else statuses | {-signum for signum in signals}


def _child_of(process: "subprocess.Popen[bytes]") -> int:
    """The process 1 of unshare; 0 where it has ended."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None:
        found = children.read_text().split()
        if found:
            return int(found[0])
        time.sleep(0.001)
    return 0


def _handles_signals(pid: int) -> bool:
    """Whether SIGTERM has a handler: the first thing that the program does."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def _check_that_processes_are_gone(session: int) -> None:
    deadline = time.monotonic() + GONE_S
    while left := _of_session(session):
        assert time.monotonic() < deadline, f"processes are left: {left}"
        time.sleep(0.02)


def _of_session(session: int) -> list[str]:
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            fields = (each / "stat").read_text().rpartition(")")[2].split()
            if fields[0] != "Z" and int(fields[3]) == session:
                found.append(f"{each.name} {(each / 'cmdline').read_text()}")
        except (OSError, ValueError):
            continue
    return found
