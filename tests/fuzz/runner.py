"""Runs the inputs of targets in a process of its own, which may take 64 MiB more than it has at its start.

As a script: `python -m tests.fuzz.runner` runs all of every target and prints a table (`make fuzz`); with
--share it runs a part. An input that does harm is left in tests/fuzz/seeds, to be kept there.
"""

import argparse
import json
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.fuzz.run_targets import make_run_targets
from tests.fuzz.targets import Target, make_targets

SEEDS = Path(__file__).with_name("seeds")
ROOT = Path(__file__).parents[2]
MEMORY_BYTES = 64 * 2**20
HANG_S = 10
WARM_UP = 50


@dataclass(frozen=True)
class Outcome:
    """What came of the inputs first .. first + count - 1."""

    inputs: int
    slowest_s: float
    seconds: float
    memory_bytes: int
    """What the process took beyond what it had after the first WARM_UP inputs."""
    finding: str


def all_targets(folder: Path) -> list[Target]:
    return [*make_targets(folder), *make_run_targets(folder / "seen")]


class Hang(BaseException):
    """Not an Exception: no reader may swallow it."""


def run_targets(names: Sequence[str], first: int, count: int) -> dict[str, Outcome]:
    """The inputs of these targets in one process of their own; one that does harm ends it, and is kept."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [folder, ",".join(names), str(first), str(count)]
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.runner", "--child", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        outcomes = {name: Outcome(**each) for name, each in map(json.loads, done.stdout.splitlines())}
        if done.returncode:
            crash = f"ended with {done.returncode}: {done.stderr[-1000:]}"
            outcomes[next(name for name in names if name not in outcomes)] = Outcome(0, 0.0, 0.0, 0, crash)
        for name, outcome in outcomes.items():
            if outcome.finding:
                last = Path(folder) / "last"
                kept = SEEDS / f"{name.replace(' ', '-')}-{zlib.crc32(outcome.finding.encode())}"
                kept.write_bytes(last.read_bytes() if last.exists() else b"")
                print(f"{name}: {outcome.finding}\nkept as {kept}", file=sys.stderr)
    return outcomes


def run_inputs(target: Target, folder: Path, first: int, count: int) -> Outcome:
    """In this process, from here on limited in memory and time."""
    signal.signal(signal.SIGALRM, _hang)
    last = (folder / "last").open("wb", buffering=0)
    slowest, started, done, finding = 0.0, time.perf_counter(), 0, ""
    peak_before = 0
    for number in range(first, first + count):
        if number == first + WARM_UP:
            peak_before = _peak_bytes()
            resource.setrlimit(resource.RLIMIT_AS, (_virtual_bytes() + MEMORY_BYTES, resource.RLIM_INFINITY))
        data = target.input(number)
        last.seek(0)
        last.truncate()
        last.write(data)
        began = time.perf_counter()
        signal.alarm(HANG_S)
        try:
            target.read(data)
        except Hang:
            finding = f"input {number}: takes more than {HANG_S} s"
        except BaseException:
            finding = f"input {number}: {traceback.format_exc()[-3000:]}"
        signal.alarm(0)
        if finding:
            break
        slowest, done = max(slowest, time.perf_counter() - began), done + 1
    return Outcome(done, slowest, time.perf_counter() - started, _peak_bytes() - peak_before, finding)


def _hang(signum: int, frame: object) -> None:
    raise Hang


def _virtual_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _child(folder: Path, names: str, first: int, count: int) -> None:
    targets = {target.name: target for target in all_targets(folder)}
    for name in names.split(","):
        outcome = run_inputs(targets[name], folder, first, count)
        print(json.dumps([name, asdict(outcome)]), flush=True)
        if outcome.finding:
            break


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--child", nargs=4)
    parser.add_argument("--share", type=float, default=1.0, help="part of the inputs")
    parser.add_argument("--target", help="run only this one")
    arguments = parser.parse_args()
    if arguments.child:
        folder, names, first, count = arguments.child
        _child(Path(folder), names, int(first), int(count))
        return 0
    total, failed, started = 0, False, time.perf_counter()
    print(f"{'target':28} {'inputs':>8} {'seconds':>8} {'slowest':>9} {'memory':>9}")
    with tempfile.TemporaryDirectory() as folder:
        targets = all_targets(Path(folder))
    for target in targets:
        if arguments.target in (None, target.name):
            count = int(target.count * arguments.share)
            result = run_targets([target.name], 0, count)[target.name]
            total, failed = total + result.inputs, failed or bool(result.finding)
            slowest, memory = f"{1000 * result.slowest_s:.0f} ms", f"{result.memory_bytes / 2**20:.1f} MiB"
            columns = f"{target.name:28} {result.inputs:8,} {result.seconds:8.1f} {slowest:>9} {memory:>9}"
            print(columns, flush=True)
    print(
        f"{total:,} inputs in {time.perf_counter() - started:.0f} s: {'FINDINGS' if failed else 'no finding'}"
    )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
