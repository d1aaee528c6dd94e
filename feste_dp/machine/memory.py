"""How much memory a run's processes hold at their peak. Reads /proc; knows nothing of what they compute."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from feste_dp.machine.proc import sizes

COUNTED = (
    "the arena (weights, gradient slots, gradient) once, and of coordinator and workers each the high-water "
    "mark of its resident memory without the arena; libraries count in every process"
)


@dataclass(frozen=True)
class Memory:
    """Peak bytes, counted as COUNTED says, and the proportional set size of all at the end of the steps."""

    total_bytes: int
    arena_bytes: int
    coordinator_bytes: int
    worker_bytes: list[int]
    final_pss_bytes: int


def reset_peak() -> None:
    """Let the high-water mark of this process begin anew, where the kernel allows it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def measure(coordinator_pid: int, worker_pids: Sequence[int], arena_bytes: int) -> Memory:
    own = peak_bytes(coordinator_pid)
    workers = [peak_bytes(pid) for pid in worker_pids]
    return Memory(
        total_bytes=arena_bytes + own + sum(workers),
        arena_bytes=arena_bytes,
        coordinator_bytes=own,
        worker_bytes=workers,
        final_pss_bytes=sum(map(_pss, (coordinator_pid, *worker_pids))),
    )


def peak_bytes(pid: int) -> int:
    """High-water mark of a process's resident memory, less the shared pages it has mapped: the arena, which
    only ever grows."""
    status = sizes(Path(f"/proc/{pid}/status"))
    return status.get("VmHWM", 0) - status.get("RssShmem", 0)


def _pss(pid: int) -> int:
    return sizes(Path(f"/proc/{pid}/smaps_rollup")).get("Pss", 0)
