"""Starts `feste-dp bench` as so many nodes, by a launcher such as mpirun, and takes in what it measured."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from feste_dp.bench.step_report import StepReport
from feste_dp.errors import RunError, UsageError
from feste_dp.files.untrusted_json import first_problem
from feste_dp.wording import command, counted

NODES = "{nodes}"
"""Stands for their number in a launcher's command."""
_MPIRUN = ("--bind-to", "none", "-n", NODES)
_END_S = 10.0

_REPORT = TypeAdapter(StepReport)


@dataclass(frozen=True)
class Launcher:
    """The words of a launcher's command before those of the program."""

    words: tuple[str, ...]

    def command(self, nodes: int, program: Sequence[str]) -> list[str]:
        return [*(word.replace(NODES, str(nodes)) for word in self.words), *program]


def find_launcher(given: str | None, path: str | None = None) -> Launcher:
    """As typed; else the mpirun beside this Python, or on the PATH. Raises UsageError."""
    if given is None:
        beside = Path(sys.executable).with_name("mpirun")
        found = str(beside) if beside.exists() else shutil.which("mpirun", path=path)
        if found is None:
            raise UsageError(
                "no mpirun beside this Python or on the PATH: pip install 'feste-dp[mpi]', or name another "
                f"command, such as 'srun --mpi=pmix -N {NODES} -n {NODES}'",
                about="launcher",
            )
        return Launcher((found, *_MPIRUN))
    try:
        words = tuple(shlex.split(given))
    except ValueError as error:
        raise UsageError(f"not a command line ({error})", about="launcher") from None
    if not any(NODES in word for word in words):
        raise UsageError(
            f"lacks {NODES}, which stands for the number of nodes, as in 'mpirun --bind-to none -n {NODES}'",
            about="launcher",
        )
    if shutil.which(words[0], path=path) is None:
        raise UsageError(f"there is no {words[0]}: give its path, or install it", about="launcher")
    return Launcher(words)


def bench_on_nodes(
    launcher: Launcher, nodes: int, arguments: Sequence[str], environ: Mapping[str, str]
) -> StepReport:
    """What `feste-dp bench` with these arguments measured on so many nodes. Raises RunError."""
    program = [sys.executable, "-m", "feste_dp", "bench", *arguments, "--json"]
    words = launcher.command(nodes, program)
    process = subprocess.Popen(
        words,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,  # Ctrl-C is for this process, which ends the other
    )
    try:
        out, err = process.communicate()
    except BaseException:
        _end(process)
        raise
    if process.returncode:
        raise RunError(f"bench on {counted(nodes, 'node')} failed: {_reason(err, process.returncode)}")
    try:
        report = _REPORT.validate_python(json.loads(out[out.find("{") :]))
    except (ValueError, RecursionError) as error:
        problem = first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise RunError(f"bench on {counted(nodes, 'node')} printed no report: {problem}") from None
    if nodes != max(1, len(report.nodes)):
        raise RunError(
            f"{words[0]} was to start {nodes} nodes and started {max(1, len(report.nodes))}: "
            f"try it by {command('bench')}"
        )
    return report


def _end(process: "subprocess.Popen[str]") -> None:
    """Launchers pass SIGTERM on to what they started; in the end the group is killed."""
    process.terminate()
    try:
        process.communicate(timeout=_END_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _reason(err: str, status: int) -> str:
    """The line of what was said that tells most: ours, else the launcher's first."""
    lines = [line.strip() for line in err.splitlines() if line.strip(" -")]
    ours = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (ours or lines or [f"exit status {status}"])[0]
