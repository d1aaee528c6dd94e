"""Takes the steps of a real run and times them: the same processes, token data and code as a training run,
and nothing written. Knows nothing of yardsticks and tables."""

import contextlib
import os
from dataclasses import dataclass, field

from feste_dp.config.schema import Config
from feste_dp.data.tokens import TokenData
from feste_dp.machine.memory import Memory, measure, reset_peak
from feste_dp.model.parameters import initial_params, parameter_count
from feste_dp.nodes.team import NodeFacts
from feste_dp.run.step_times import StepTimes
from feste_dp.runtime.coordinator import Coordinator
from feste_dp.train.source import Exchange
from feste_dp.train.start import Surroundings, check_machine, prepare, settle, start_workers
from feste_dp.train.step import Stepper
from feste_dp.wording import counted


@dataclass(frozen=True)
class MeasuredSteps:
    """Times of the steps after the warm-up, the losses of all steps, and what the processes held."""

    times: list[StepTimes]
    losses: list[float]
    memory: Memory
    nodes: list[NodeFacts] = field(default_factory=list)
    """Empty on one machine."""


def measure_steps(
    config: Config, workers: int, steps: int, warmup: int, around: Surroundings
) -> MeasuredSteps:
    """Train from the initial weights for warmup + steps steps, with all nodes where there are several, which
    all call it. Raises UsageError, RunError."""
    config, start = settle(config)
    check_machine(config, workers, around)
    config = with_room_for(config, warmup + steps)
    data = prepare(config, around, start)
    reset_peak()
    block = None if around.nodes is None else around.nodes.block(config.train.shards)
    with Coordinator(config, workers, data.directory, around.environ, block=block) as coordinator:
        start_workers(coordinator, config, workers, around)
        coordinator.arena.params[:] = initial_params(config.model, config.train.seed)
        with contextlib.closing(
            Stepper(config, data, coordinator, _exchange(config, data, around))
        ) as stepper:
            around.progress.phase(f"timing {counted(steps, 'step')} after {warmup} to warm up")
            results = []
            for number in range(1, warmup + steps + 1):
                results.append(stepper.step(number))
                if results[-1].skipped is not None:
                    around.record.warn(f"step {number} skipped: {results[-1].skipped}")
            memory = measure(os.getpid(), coordinator.worker_pids(), coordinator.arena.reserved_bytes)
    return MeasuredSteps(
        times=[result.times for result in results[warmup:]],
        losses=[result.train_loss for result in results],
        memory=memory,
        nodes=list(around.team),
    )


def _exchange(config: Config, data: TokenData, around: Surroundings) -> Exchange | None:
    """With the other nodes, where there are any that do the same. Raises UsageError."""
    if around.nodes is None:
        return None
    from feste_dp.train.follower import check_data, set_deadline
    from feste_dp.train.together import NodeExchange

    set_deadline(around.nodes.link, config)
    check_data(around.nodes.link, data)
    return NodeExchange(around.nodes, config.train.shards, parameter_count(config.model), around.signals)


def with_room_for(config: Config, steps: int) -> Config:
    """The config of a run at least as long, so that the learning rate is one of the schedule."""
    train = config.train.model_copy(update={"steps": max(config.train.steps, steps)})
    return config.model_copy(update={"train": train})
