"""python -m tests.starts: end starts and other commands at every point, and see whether the next goes on.

The whole of what the tests of this folder try a little of.
"""

import argparse
import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from feste_dp.cache import cache_root
from feste_dp.interruption import STOP_SIGNALS
from feste_dp.kernels.code_cache import COMPILED_FOLDER
from feste_dp.runtime.warmup import compile_kernels
from tests.starts.commands import COMMANDS, ENDED_BY, Scene, try_closed_pipe, try_signal
from tests.starts.kills import KILL, POWER_FAILURE, SIGNALS, STARTS, try_kill, try_signal_at_call, try_signals
from tests.starts.moments import ALL
from tests.starts.stage import Stage


class Sweep:
    """Attempts, counted by what they came to, with the faults told as they are found."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.faults = 0

    def attempt(self, what: str, work: Callable[[], object]) -> object:
        """What the work returns; "fault" where it has found one."""
        try:
            result = work()
        except (AssertionError, TimeoutError, OSError, subprocess.SubprocessError):
            print(f"{what}: FAULT\n{traceback.format_exc()}", flush=True)
            self.faults += 1
            result = "fault"
        self.done[str(result)] += 1
        return result

    def summary(self, what: str) -> str:
        ends = ", ".join(f"{count} x {end}" for end, count in sorted(self.done.items()))
        return f"{what}: {self.done.total()} attempts: {ends}"


def at_calls(stage: Stage, how: str, calls: range, starts: Sequence[str]) -> int:
    """Kills, power failures or signals at the calls that write."""
    faults = 0
    for start in starts:
        sweep = Sweep()
        for number in calls:
            signum = SIGNALS[number % len(SIGNALS)]
            work = partial(try_kill, stage, start, number, how)
            if how == "signals":
                work = partial(try_signal_at_call, stage, start, number, signum)
            if sweep.attempt(f"{start}, {how} at call {number}", work) is None:
                break
        print(sweep.summary(f"{start}, {how}"), flush=True)
        faults += sweep.faults
    return faults


def at_moments(stage: Stage, count: int, seed: int, as_process_one: bool) -> int:
    """Signals at random times of a launch, every third twice within a millisecond."""
    chance, faults = random.Random(seed), 0
    sweeps = {signum: Sweep() for signum in ALL}
    try:
        for number in range(count):
            if number % 15 == 0:  # how long a start takes now: the machine may have other work at times
                began, place = time.monotonic(), stage.place()
                place.run_launch()
                duration = time.monotonic() - began
                place.remove()
            signum = ALL[number % len(ALL)]
            signals = [signum] if number % 3 else [signum, chance.choice(ALL)]
            after_s = duration * chance.random()
            names = "+".join(signal.Signals(each).name for each in signals)
            work = partial(try_signals, stage, after_s, signals, as_process_one, goes_on=number % 5 == 0)
            sweeps[signum].attempt(f"{names} after {after_s:.2f} s of {duration:.2f}", work)
    except KeyboardInterrupt:
        print("stopped", flush=True)
    for signum, sweep in sweeps.items():
        print(sweep.summary(signum.name), flush=True)
        faults += sweep.faults
    return faults


def other_commands(stage: Stage, moments: int, only: str | None) -> int:
    faults = 0
    for name, command in COMMANDS.items():
        if only is not None and name != only:
            continue
        scene, sweep = Scene(stage, command), Sweep()
        with scene.training():
            before = set(scene.place.names())
            duration = scene.duration()
            made = set(scene.place.names()) - before
            for number, signum in itertools.product(range(moments), ENDED_BY):
                after_s = duration * (number + 0.5) / moments
                work = partial(try_signal, scene, command, made, after_s, signum)
                sweep.attempt(f"{name}, {signum.name} after {after_s:.2f} s of {duration:.2f}", work)
            sweep.attempt(f"{name}, closed pipe", partial(try_closed_pipe, scene))
        scene.place.remove()
        print(sweep.summary(f"{name} ({duration:.1f} s)"), flush=True)
        faults += sweep.faults
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.starts", description=__doc__)
    parser.add_argument("what", choices=["kills", "power", "signals", "moments", "process-one", "commands"])
    parser.add_argument("--first", type=int, default=1, metavar="CALL")
    parser.add_argument("--last", type=int, default=10**6, metavar="CALL")
    parser.add_argument("--every", type=int, default=1, help="only every so many-th call of these")
    parser.add_argument("--start", choices=STARTS, action="append", help="this start only")
    parser.add_argument("--count", type=int, default=200, help="moments of a start")
    parser.add_argument("--moments", type=int, default=4, help="moments of a command, with each signal")
    parser.add_argument("--command", choices=list(COMMANDS), help="this command only")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    for signum in STOP_SIGNALS:  # ignored in the background of a script, and then by all that it starts
        signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    compile_kernels(os.environ, lambda seconds: None)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="starts-") as folder:
        stage = Stage(Path(folder), cache_root(os.environ) / COMPILED_FOLDER)
        calls = range(arguments.first, arguments.last + 1, arguments.every), arguments.start or STARTS
        match arguments.what:
            case "kills":
                faults = at_calls(stage, KILL, *calls)
            case "power":
                faults = at_calls(stage, POWER_FAILURE, *calls)
            case "signals":
                faults = at_calls(stage, "signals", *calls)
            case "commands":
                faults = other_commands(stage, arguments.moments, arguments.command)
            case what:
                faults = at_moments(stage, arguments.count, arguments.seed, what == "process-one")
    print(f"{time.monotonic() - started:.0f} s, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
