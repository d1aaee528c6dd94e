"""How long a step and a run will take, from a measurement of about two seconds on the config's own shapes.

Micro-batches are timed on as many cores at once as will work, on a model of one layer and on one of two: what
the second layer takes, the others take as well. The passes over memory come from a triad. The same estimate
serves `feste-dp plan` and, measured for a shorter time, the start of every run.
"""

import functools
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feste_dp.config.schema import Config, ModelConfig
from feste_dp.data.tokens import TokenData
from feste_dp.machine.cpus import usable_cpus
from feste_dp.model.parameters import initial_params, parameter_count
from feste_dp.optim.optimizer import update_bytes
from feste_dp.plan.arithmetic import flops_per_token, run_flops
from feste_dp.plan.yardsticks import memory_bytes_per_second
from feste_dp.runtime.arena import PrivateArena
from feste_dp.runtime.coordinator import SMALL_REDUCTION
from feste_dp.runtime.shard_computer import ShardComputer, ShardSpec
from feste_dp.runtime.slots import ShardBlock, slot_count

PLAN_S, LAUNCH_S = 2.0, 0.2
"""How long to measure: for a plan, and before a run that starts anyway."""

_TRIAD_SHARE = 0.1  # of the time
_TRIAD_BYTES = 64 << 20  # the largest working set, beyond the caches of few cores
# Of the triad, whose operands stay in the caches of one core: measured 0.3 to 0.7, least for small models,
# whose slots other cores have just written.
_OF_TRIAD = 0.5
# Messages, waking up, drawing the batch, Python: the lower and the upper quartile of tiny's steps with two
# workers were 0.3 and 0.7 ms.
_CONTROL_S = 0.5e-3
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step by phase."""

    micro_batch: float
    """One micro-batch on one core, while the others compute too."""
    compute: float
    reduce: float
    update: float
    control: float
    exchange: float = 0.0
    """The sum over nodes, where there are several."""

    @property
    def total(self) -> float:
        return self.compute + self.reduce + self.exchange + self.update + self.control


def estimated_step(config: Config, workers: int, seconds: float) -> StepTime:
    """Measures for about `seconds`, longer where two micro-batches of one and of two layers take longer."""
    cores = min(workers, usable_cpus())
    micro_batch = micro_batch_seconds(config, cores, seconds * (1 - _TRIAD_SHARE))

    @functools.cache
    def bandwidth(cores: int, working_set: int) -> float:
        return memory_bytes_per_second(cores, working_set, seconds * _TRIAD_SHARE / 2)

    return _step(config, workers, cores, micro_batch, bandwidth)


@dataclass(frozen=True)
class Speed:
    """What one measurement says of every config, roughly: small models do less with a core, large ones
    more."""

    cores: int
    flops_per_second: float
    """Of one core, while all compute."""
    bytes_per_second: float
    """Of a triad over all of them."""


def measured_speed(config: Config, workers: int, seconds: float) -> Speed:
    """As fast as the micro-batches of `config` are computed; measures as estimated_step does."""
    cores = min(workers, usable_cpus())
    micro_batch = micro_batch_seconds(config, cores, seconds * (1 - _TRIAD_SHARE))
    bandwidth = memory_bytes_per_second(cores, _TRIAD_BYTES, seconds * _TRIAD_SHARE)
    return Speed(cores, _micro_batch_flops(config) / micro_batch, bandwidth)


def step_at(speed: Speed, config: Config, workers: int) -> StepTime:
    """On as many cores as were measured, at most. Measures nothing."""
    micro_batch = _micro_batch_flops(config) / speed.flops_per_second
    cores = min(workers, speed.cores)
    return _step(config, workers, cores, micro_batch, lambda cores, working_set: speed.bytes_per_second)


def _micro_batch_flops(config: Config) -> float:
    return flops_per_token(config.model) * config.model.block_size * config.train.micro_batch


def _step(
    config: Config, workers: int, cores: int, micro_batch: float, bandwidth: Callable[[int, int], float]
) -> StepTime:
    """The phases, from the time of a micro-batch and the bytes a second of so many cores over so many."""
    train = config.train
    parameters = parameter_count(config.model)
    slots = slot_count(train.shards, workers)
    # each slot is read and the sum written; a node that a worker adds up takes three passes
    reduce_bytes = 4 * (slots + 1 + 3 * (train.shards - slots)) * parameters
    reducers = 1 if slots * parameters <= SMALL_REDUCTION else cores
    working_set = min(reduce_bytes, _TRIAD_BYTES)
    per_shard = train.sequences_per_shard // train.micro_batch
    in_turn = max(-(-train.shards // workers), train.shards / cores)
    return StepTime(
        micro_batch=micro_batch,
        compute=in_turn * per_shard * micro_batch,
        reduce=reduce_bytes / bandwidth(reducers, working_set) / _OF_TRIAD,
        update=update_bytes(config.optim, parameters) / bandwidth(cores, working_set) / _OF_TRIAD,
        control=_CONTROL_S,
    )


def run_seconds(config: Config, step: StepTime) -> float:
    """All steps, and validation in proportion to its arithmetic. Samples and saves are not in it."""
    in_steps = flops_per_token(config.model) * config.total_tokens
    return config.train.steps * step.total * run_flops(config) / in_steps


def micro_batch_seconds(config: Config, cores: int, seconds: float) -> float:
    """One micro-batch, forward and backward, while `cores` cores compute one each."""
    layers = config.model.n_layer
    if layers <= 2:
        return _seconds_of_depth(config, layers, cores, seconds)
    one, two = (_seconds_of_depth(config, depth, cores, seconds / 2) for depth in (1, 2))
    return one + (layers - 1) * max(0.0, two - one)


def _seconds_of_depth(config: Config, layers: int, cores: int, seconds: float) -> float:
    model = config.model.model_copy(update={"n_layer": layers})
    sequences = config.train.micro_batch
    spec = ShardSpec(
        model=model,
        shards=1,
        block=ShardBlock(0, 1),
        sequences_per_shard=sequences,
        micro_batch=sequences,
        seed=config.train.seed,
        precision=config.train.precision,
    )
    params = initial_params(model, config.train.seed)
    tokens = _made_up_tokens(model)

    def make_call() -> Callable[[], object]:
        arena = PrivateArena(len(params))
        arena.params = params
        computer = ShardComputer(spec, arena, tokens)
        return lambda: computer.shard(1, 0)

    return _median_call(cores, make_call, seconds)


def _median_call(cores: int, make_call: Callable[[], Callable[[], object]], seconds: float) -> float:
    """The median time of a call while each core makes calls of its own, at least one timed on each."""
    barrier = threading.Barrier(cores, timeout=_TIMEOUT_S)

    def follow(_: int) -> list[float]:
        call = make_call()
        call()  # memory is touched for the first time
        barrier.wait()
        times: list[float] = []
        deadline = time.perf_counter() + seconds
        while not times or time.perf_counter() < deadline:
            started = time.perf_counter()
            call()
            times.append(time.perf_counter() - started)
        return times

    with ThreadPoolExecutor(cores, "estimate") as pool:
        median = statistics.median(taken for times in pool.map(follow, range(cores)) for taken in times)
    return max(median, 1e-9)  # a clock that stands still


def _made_up_tokens(model: ModelConfig) -> TokenData:
    """One sequence of all the vocabulary, over and over, and the token after it."""
    tokens = (np.arange(model.block_size + 1) * 7919 % model.vocab_size).astype(np.uint32)
    return TokenData(Path(), tokens, tokens, model.vocab_size, "", "", 0, 0)
