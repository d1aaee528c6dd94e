"""Training steps in one process: the same kernels, data and update, no workers, messages or shared memory,
every micro-batch's gradient added up in one buffer.

The baseline that says what the processes, messages and slots cost. main() is a process of its own, with the
argument OUT and a JSON object of Settings on its standard input; it writes one JSON object of Timed to OUT.
"""

import contextlib
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from feste_dp.bench.steps import with_room_for
from feste_dp.config.schema import Config
from feste_dp.data.tokens import TokenData, open_token_data
from feste_dp.machine.memory import peak_bytes, reset_peak
from feste_dp.model.parameters import initial_params, parameter_count
from feste_dp.runtime.arena import PrivateArena
from feste_dp.runtime.results import Gradient
from feste_dp.runtime.shard_computer import ShardComputer, ShardSpec
from feste_dp.runtime.slots import ShardBlock
from feste_dp.train.step import Stepper


@dataclass(frozen=True)
class Settings:
    """What to time: a config as a dictionary, and the directory of its token data."""

    config: dict[str, Any]
    data_directory: str
    warmup: int
    steps: int


@dataclass(frozen=True)
class Timed:
    """Seconds of each timed step, the losses of all steps, and the peak of resident memory."""

    seconds: list[float]
    losses: list[float]
    peak_memory_bytes: int


class OneProcess:
    """A source of gradients that has no workers."""

    block = ShardBlock(0, 1)
    shards_per_slot = 1

    def __init__(self, config: Config, data: TokenData) -> None:
        self.arena = PrivateArena(parameter_count(config.model))
        whole_batch = ShardSpec(
            model=config.model,
            shards=1,
            block=ShardBlock(0, 1),
            sequences_per_shard=config.train.batch_size,
            micro_batch=config.train.micro_batch,
            seed=config.train.seed,
            precision=config.train.precision,
        )
        self._computer = ShardComputer(whole_batch, self.arena, data)

    def gradient(self, step: int) -> Gradient:
        """The gradient of the whole batch; what is left of the reduction is the pass that norms need."""
        started = time.perf_counter()
        loss_sum = self._computer.shard(step, 0)
        computed = time.perf_counter()
        self._computer.stripe(0, len(self.arena.norms), 1)
        compute, reduce = computed - started, time.perf_counter() - computed
        return Gradient([loss_sum], [compute], [reduce], [1])


def time_steps(config: Config, data: TokenData, warmup: int, steps: int) -> Timed:
    config = with_room_for(config, warmup + steps)
    process = OneProcess(config, data)
    process.arena.params[:] = initial_params(config.model, config.train.seed)
    seconds, losses = [], []
    with contextlib.closing(Stepper(config, data, process)) as stepper:
        for number in range(1, warmup + steps + 1):
            if number == warmup + 1:
                reset_peak()
            result = stepper.step(number)
            seconds.append(result.times.total)
            losses.append(result.train_loss)
    return Timed(seconds[warmup:], losses, peak_bytes(os.getpid()))


def main() -> int:
    settings = Settings(**json.loads(sys.stdin.read()))
    config = Config.model_validate(settings.config)
    data = open_token_data(Path(settings.data_directory))
    result = json.dumps(asdict(time_steps(config, data, settings.warmup, settings.steps)))
    Path(sys.argv[1]).write_text(result)
    return 0
