"""How long a killed worker holds up a run: from the kill to the next finished step, and to full strength.

python -m benchmarks.recovery --config configs/tiny.yaml --workers 2 --kills 20
"""

import argparse
import contextlib
import io
import math
import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Sequence

from feste_dp.cache import cache_root
from feste_dp.config.loading import load_config
from feste_dp.model.parameters import initial_params
from feste_dp.run.screen import Progress
from feste_dp.runtime.coordinator import Coordinator
from feste_dp.runtime.gathering import Notice
from feste_dp.train.signals import StopSignals
from feste_dp.train.start import Surroundings, prepare
from feste_dp.train.step import Stepper

QUIET_STEPS, STEPS_BETWEEN = 20, 30


class Killer:
    """Kills a worker at a random moment of the next step."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.killed_at = math.inf

    def arm(self, pids: Sequence[int], step_seconds: float) -> None:
        pid, self.killed_at = self._random.choice(pids), math.inf

        def kill() -> None:
            self.killed_at = time.perf_counter()
            os.kill(pid, signal.SIGKILL)

        threading.Timer(self._random.uniform(0, step_seconds), kill).start()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recovery", description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    with Progress(io.StringIO(), io.StringIO()) as progress, StopSignals() as signals:
        around = Surroundings(os.environ, cache_root(os.environ), progress, signals)
        data = prepare(config, around)
        joined: list[float] = []

        def notice(given: Notice) -> None:
            if given.kind == "joined":
                joined.append(time.perf_counter())

        with Coordinator(config, arguments.workers, data.directory, os.environ, notice) as coordinator:
            coordinator.start()
            coordinator.arena.params[:] = initial_params(config.model, config.train.seed)
            with contextlib.closing(Stepper(config, data, coordinator)) as stepper:
                measure(arguments, coordinator, stepper, joined)


def measure(
    arguments: argparse.Namespace, coordinator: Coordinator, stepper: Stepper, joined: list[float]
) -> None:
    killer, number = Killer(arguments.seed), 0

    def timed_step() -> float:
        nonlocal number
        number += 1
        started = time.perf_counter()
        stepper.step(number)
        return time.perf_counter() - started

    quiet = statistics.median(timed_step() for _ in range(QUIET_STEPS))
    to_next_step, to_full_strength = [], []
    for _ in range(arguments.kills):
        before = len(joined)
        killer.arm(coordinator.worker_pids(), quiet)
        timed_step()
        while (finished := time.perf_counter()) < killer.killed_at:
            timed_step()
        to_next_step.append(finished - killer.killed_at)
        while len(joined) == before:
            timed_step()
        to_full_strength.append(joined[-1] - killer.killed_at)
        for _ in range(STEPS_BETWEEN):
            timed_step()
    print(f"{arguments.config}, {arguments.workers} workers, a step takes {1e3 * quiet:.1f} ms")
    for what, seconds in (("next finished step", to_next_step), ("all workers again", to_full_strength)):
        print(
            f"from a kill to {what:20} median {1e3 * statistics.median(seconds):7.1f} ms, "
            f"worst {1e3 * max(seconds):7.1f} ms, of {len(seconds)} kills"
        )


if __name__ == "__main__":
    main()
