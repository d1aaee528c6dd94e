"""Whether a worker that was killed was killed for memory, in words that say what to change.

The kernel kills with signal 9 and tells only a counter: compare it with what it was at the start of the run.
"""

import signal
from dataclasses import dataclass
from pathlib import Path

from feste_dp.machine.cgroup import oom_kills
from feste_dp.machine.proc import counters

_ROOT = Path("/")


@dataclass(frozen=True)
class KillCount:
    """Processes killed for memory so far, in this control group or, where nothing counts there, on this
    machine; None where the kernel does not tell."""

    killed: int | None

    @classmethod
    def now(cls, root: Path = _ROOT) -> "KillCount":
        own = oom_kills(root)
        return cls(_of_the_machine(root) if own is None else own)

    def risen_to(self, later: "KillCount") -> int:
        """How many were killed in between; 0 where the kernel does not tell."""
        if self.killed is None or later.killed is None:
            return 0
        return max(0, later.killed - self.killed)


def explain_end(exit_code: int, killed_for_memory: int, workers: int) -> str:
    """How a worker ended, to go after its name. exit_code is as subprocess has it, negative for a signal;
    killed_for_memory is the rise of the count since the start of the run."""
    if exit_code >= 0:
        return f"exited with status {exit_code}"
    number = -exit_code
    ended = f"was killed by signal {number} ({_signal_name(number)})"
    if number == signal.SIGXCPU:
        return f"{ended}: the limit of CPU time of a process (ulimit -t)"
    if number != signal.SIGKILL or killed_for_memory == 0:
        return ended
    fewer = f"use fewer workers (run.workers {workers - 1})" if workers > 1 else "set the model smaller"
    return (
        f"{ended}; the kernel has killed {killed_for_memory} process{'es' if killed_for_memory > 1 else ''} "
        f"for memory since the start (oom_kill): {fewer}, or raise the memory limit"
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"


def _of_the_machine(root: Path) -> int | None:
    return (counters(root / "proc/vmstat") or {}).get("oom_kill")
