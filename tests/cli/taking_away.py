"""A run, as the command line starts it, from which something is taken away in the midst of its training.

`python -m tests.cli.taking_away THING MOMENT LAUNCH...` in a mount namespace of its own. Tells the SHA-256 of
params, m and v after each step by the descriptor REPORT_FD.
"""

import contextlib
import ctypes
import datetime
import errno
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import feste_dp.cli.commands  # noqa: F401
from feste_dp.checkpoint.listing import step_directories
from feste_dp.checkpoint.loading import load_checkpoint
from feste_dp.cli.main import main
from feste_dp.run.metrics import MetricsRow
from feste_dp.run.screen import Progress
from feste_dp.runtime import gathering
from feste_dp.train import open_run
from feste_dp.train.trainer import Trainer

STEPS, TAKEN_AT = 24, 10
REPORT_FD = "TAKING_AWAY_REPORT"
MOMENTS = ("recovery", "save", "resize", "stop", "end")
TEN_MILLION_S = 10**7
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MNT_DETACH = 1, 32, 4096, 2

CURRENT = Path.cwd()
DISK, TEMPORARY, CACHE, TEXT = (CURRENT.parent / name for name in ("disk", "t", "cache", "text.txt"))
RUN = DISK / "run"

trainers: list[Trainer] = []


def cover(place: Path, *, size: str = "1m", read_only: bool = False) -> None:
    """An empty file system over a folder."""
    mount("none", place, "tmpfs", _MS_RDONLY if read_only else 0, f"size={size}")


def make_read_only(place: Path) -> None:
    mount(str(place), place, None, _MS_BIND, None)
    mount("none", place, None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY, None)


def mount(source: str, place: Path, kind: str | None, flags: int, data: str | None) -> None:
    encoded = [None if text is None else text.encode() for text in (source, str(place), kind, data)]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(*encoded[:3], ctypes.c_ulong(flags), encoded[3]):
        raise OSError(ctypes.get_errno(), f"mount on {place}")


def fill(place: Path) -> None:
    for size in (4096, 1):
        try:
            with (place / f"filler{size}").open("wb", buffering=0) as file:
                while True:
                    file.write(b"x" * size)
        except OSError as error:
            assert error.errno == errno.ENOSPC, error


def full_temporary_folder() -> None:
    cover(TEMPORARY, size="64k")
    fill(TEMPORARY)


def no_temporary_folder_at_all() -> None:
    shutil.rmtree(TEMPORARY)
    for place in ("/dev/shm", "/tmp", "/var/tmp"):
        if not CURRENT.is_relative_to(place):
            cover(Path(place), read_only=True)


def cache_gone_for_good() -> None:
    shutil.rmtree(CACHE)
    CACHE.write_text("a file in its place")


def cut_code() -> None:
    for file in CACHE.rglob("*.nb[ci]"):
        os.truncate(file, file.stat().st_size // 2)


def tokens() -> Path:
    (found,) = CACHE.rglob("tokens.bin")
    return found


def other_tokens() -> None:
    content = tokens().read_bytes()
    tokens().unlink()
    other = next(CACHE.rglob("meta.json")).parent / "tokens.bin"
    other.write_bytes(bytes(len(content)))


def no_processes() -> None:
    def refuse(*given: object, **named: object) -> NoReturn:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def no_thread(*given: object, **named: object) -> NoReturn:
        raise RuntimeError("can't start new thread")

    subprocess.Popen = refuse  # type: ignore[misc,assignment]
    threading.Thread.start = no_thread  # type: ignore[method-assign]


def no_descriptors() -> None:
    """As many may be open as are, those included that a run keeps for its saves; none is under way."""
    trainers[0]._saves.wait()
    limit(resource.RLIMIT_NOFILE, 1 + max(int(entry.name) for entry in Path("/proc/self/fd").iterdir()))
    with contextlib.suppress(OSError):
        while True:
            os.dup(0)


def limit(kind: int, soft: int) -> None:
    resource.setrlimit(kind, (soft, resource.getrlimit(kind)[1]))


def no_address_space() -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    limit(resource.RLIMIT_AS, size)


def set_clock(seconds: float) -> Callable[[], None]:
    def change() -> None:
        class Shifted(datetime.datetime):
            @classmethod
            def now(cls, tz: datetime.tzinfo | None = None) -> Any:
                return datetime.datetime.now(tz) + datetime.timedelta(seconds=seconds)

        real = time.time
        time.time = lambda: real() + seconds
        for name, module in list(sys.modules.items()):
            if name.startswith("feste_dp") and getattr(module, "datetime", None) is datetime.datetime:
                module.datetime = Shifted  # type: ignore[attr-defined]

    return change


THINGS: dict[str, Callable[[], object]] = {
    "nothing": lambda: None,
    "tmpdir removed": lambda: shutil.rmtree(TEMPORARY),
    "tmpdir full": full_temporary_folder,
    "tmpdir closed": lambda: TEMPORARY.chmod(0),
    "all temporary folders": no_temporary_folder_at_all,
    "run moved": lambda: RUN.rename(RUN.with_name("elsewhere")),
    "run removed": lambda: shutil.rmtree(RUN),
    "run not writable": lambda: RUN.chmod(0o555),
    "checkpoints not writable": lambda: (RUN / "checkpoints").chmod(0o555),
    "disk full": lambda: fill(DISK),
    "run covered": lambda: cover(RUN, read_only=True),
    "run read-only": lambda: make_read_only(RUN),
    "checkpoints removed": lambda: shutil.rmtree(RUN / "checkpoints"),
    "checkpoints a file": lambda: (shutil.rmtree(RUN / "checkpoints"), (RUN / "checkpoints").touch()),
    "metrics removed": lambda: (RUN / "metrics.csv").unlink(),
    "log removed": lambda: (RUN / "log.txt").unlink(),
    "events removed": lambda: (RUN / "events.jsonl").unlink(),
    "config removed": lambda: (RUN / "config.yaml").unlink(),
    "cache removed": lambda: shutil.rmtree(CACHE),
    "cache gone for good": cache_gone_for_good,
    "cache read-only": lambda: make_read_only(CACHE),
    "code removed, cache read-only": lambda: (shutil.rmtree(CACHE / "compiled"), make_read_only(CACHE)),
    "code cut": cut_code,
    "code cut, cache read-only": lambda: (cut_code(), make_read_only(CACHE)),
    "tokens removed": lambda: tokens().unlink(),
    "tokens replaced": other_tokens,
    "tokens cut": lambda: os.truncate(tokens(), tokens().stat().st_size // 2),
    "tokens emptied": lambda: os.truncate(tokens(), 0),
    "tokens overwritten": lambda: tokens().write_bytes(bytes(tokens().stat().st_size)),
    "text removed": lambda: TEXT.unlink(),
    "current folder removed": lambda: CURRENT.rmdir(),
    "proc hidden": lambda: cover(Path("/proc")),
    "no processes": no_processes,
    "no descriptors": no_descriptors,
    "ten descriptors": lambda: limit(resource.RLIMIT_NOFILE, 10),
    "no file sizes": lambda: limit(resource.RLIMIT_FSIZE, 0),
    "no address space": no_address_space,
    "no environment": lambda: os.environ.clear(),
    "clock forward": set_clock(TEN_MILLION_S),
    "clock back": set_clock(-TEN_MILLION_S),
}


def lose_the_worker() -> None:
    (pid,) = trainers[0]._workforce.worker_pids()
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def wait_for_more_workers() -> None:
    coordinator, deadline = trainers[0]._workforce, time.monotonic() + 20
    while coordinator._crew.starting() and time.monotonic() < deadline:
        coordinator.tend()
        time.sleep(0.01)


def act(moment: str) -> None:
    match moment:
        case "recovery":
            lose_the_worker()
        case "save":
            os.kill(os.getpid(), signal.SIGUSR1)
        case "resize":
            requests = [2]
            open_run.take_request = lambda run: requests.pop() if requests else None  # type: ignore[assignment]
        case "stop":
            os.kill(os.getpid(), signal.SIGTERM)


def state_of(*arrays: Any) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array)
    return digest.hexdigest()


def follow(thing: str, moment: str, report: int) -> None:
    """Has it taken away after a step, and tells of every step."""
    taken_at = STEPS - 1 if moment == "end" else TAKEN_AT
    real = Trainer.__init__

    def remember(self: Trainer, *given: Any, **named: Any) -> None:
        trainers.append(self)
        real(self, *given, **named)

    def step(self: Progress, row: MetricsRow, total_steps: int, best: bool = False) -> None:
        try:
            trainer = trainers[0]
            state = state_of(*trainer.restore_into().values())
            os.write(report, f"{row.step} {state}\n".encode())
            if row.step == taken_at:
                THINGS[thing]()
                act(moment)
            if row.step == taken_at + 1 and moment == "resize":
                wait_for_more_workers()
        except BaseException:
            os.write(report, traceback.format_exc().encode())
            os._exit(99)

    Trainer.__init__ = remember  # type: ignore[method-assign]
    Progress.step = step  # type: ignore[method-assign]


def tell_what_is_there(thing: str, report: int) -> None:
    """Which steps are saved, with their state, and what the log has."""
    for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_AS):
        limit(kind, resource.getrlimit(kind)[1])
    if thing == "run covered":
        ctypes.CDLL(None).umount2(os.fsencode(RUN), _MNT_DETACH)
    saved, log = {}, ""
    for run in DISK.iterdir():
        for number, path in step_directories(run / "checkpoints") if (run / "checkpoints").is_dir() else []:
            _, loaded = load_checkpoint(path)
            saved[number] = state_of(*loaded.values())
        if (run / "log.txt").exists():
            log += (run / "log.txt").read_text()
    content = {"saved": saved, "log": log}
    os.write(report, json.dumps(content).encode() + b"\n")


if __name__ == "__main__":
    gathering.NO_WORKER_S = 2.0
    thing, moment, *launching = sys.argv[1:]
    report = int(os.environ.pop(REPORT_FD))
    cover(DISK, size="64m")
    follow(thing, moment, report)
    sys.argv = ["feste-dp", *launching]
    try:
        main()
    finally:
        tell_what_is_there(thing, report)
