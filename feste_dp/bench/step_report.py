"""What measured steps amount to: spread, phases, arithmetic and bandwidth. Pure: measures nothing."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from feste_dp.config.schema import Config
from feste_dp.machine.memory import Memory
from feste_dp.model.parameters import parameter_count
from feste_dp.nodes.link_speed import LinkSpeed, is_small, sent_bytes
from feste_dp.nodes.team import NodeFacts
from feste_dp.optim.optimizer import state_bytes, update_bytes
from feste_dp.plan.arithmetic import flops_formula, flops_per_token
from feste_dp.run.step_times import EXCHANGE, StepTimes
from feste_dp.runtime.slots import slot_count


@dataclass(frozen=True)
class Spread:
    """Where measured values lie."""

    median: float
    lower_quartile: float
    upper_quartile: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Bandwidth:
    """What a phase moved through memory, and what a triad over as many bytes does on the same cores."""

    bytes: int
    gb_per_second: float
    triad_gb_per_second: float
    share_of_triad: float


@dataclass(frozen=True)
class ExchangeReport:
    """The sum over nodes: what each sends, and gets, and what a plain stream between all of them does. Of a
    small array, which is sent whole before all nodes have come, most of the time is in the wait."""

    bytes: int
    is_small: bool
    gb_per_second: float
    link_gb_per_second: float
    share_of_link: float
    link_latency_us: float


@dataclass(frozen=True)
class Yardsticks:
    """What the machine can do: flops a second of one core, bytes a second of the cores of a phase."""

    peak_flops_per_second: float
    reduce_bytes_per_second: float
    update_bytes_per_second: float
    memory_bytes_per_second: float


@dataclass(frozen=True)
class StepReport:
    """The whole result, as --json prints it."""

    cpu: str
    precision: str
    workers: int
    cores: int
    shards: int
    micro_batch: int
    dropout: float
    parameters: int
    warmup_steps: int
    steps: int
    tokens_per_step: int
    tokens_per_second: Spread
    step_ms: Spread
    step_ms_each: list[float]
    phases_ms: dict[str, float]
    phases_step_ms: float
    control_us: Spread
    flops_per_token: float
    flops_formula: str
    gflops_per_second_per_core: float
    peak_gflops_per_second_per_core: float
    share_of_peak: float
    reduce: Bandwidth
    update: Bandwidth
    memory_gb_per_second: float
    memory: Memory
    first_loss: float
    last_loss: float
    losses: list[float]
    """Of all steps, the warm-up included."""
    nodes: list[NodeFacts]
    """Empty on one machine; of several `workers`, `reduce`, `update` and `memory` are the first's."""
    exchange: ExchangeReport | None


def spread(values: Sequence[float]) -> Spread:
    if len(values) == 1:
        return Spread(*[values[0]] * 5)
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, lower, upper, min(values), max(values))


def phase_means_ms(times: Sequence[StepTimes]) -> dict[str, float]:
    """Mean milliseconds of each phase over the middle half of the steps by time, so that they add up to one
    step and an interruption of the machine does not count."""
    cut = len(times) // 4
    middle = sorted(times, key=lambda step: step.total)[cut : len(times) - cut]
    return {name: statistics.fmean(1e3 * getattr(step, name) for step in middle) for name in times[0].phases}


def reduce_bytes(config: Config, workers: int, shards: int | None = None) -> int:
    """Every slot read, the gradient written; of so many shards, all of them if not given."""
    return (slot_count(shards or config.train.shards, workers) + 1) * 4 * parameter_count(config.model)


def update_working_set_bytes(config: Config) -> int:
    """Bytes that the update touches, however often: gradient, weights and the optimizer's state."""
    parameters = parameter_count(config.model)
    return 2 * 4 * parameters + state_bytes(config.optim, parameters)


def step_report(
    config: Config,
    workers: int,
    cores: int,
    cpu: str,
    yardsticks: Yardsticks,
    times: Sequence[StepTimes],
    losses: Sequence[float],
    memory: Memory,
    nodes: Sequence[NodeFacts] = (),
    links: LinkSpeed | None = None,
) -> StepReport:
    """`times` are those after the warm-up, `losses` those of all steps. workers and cores are
    those of the first node."""
    tokens, flops = config.tokens_per_step, flops_per_token(config.model)
    tokens_per_second = spread([tokens / max(step.total, 1e-9) for step in times])
    phases = phase_means_ms(times)
    all_cores = sum(node.cores for node in nodes) or cores
    gflops = tokens_per_second.median * flops / all_cores / 1e9
    peak = yardsticks.peak_flops_per_second / 1e9
    return StepReport(
        cpu=cpu,
        precision=config.train.precision,
        workers=workers,
        cores=cores,
        shards=config.train.shards,
        micro_batch=config.train.micro_batch,
        dropout=config.model.dropout,
        parameters=parameter_count(config.model),
        warmup_steps=len(losses) - len(times),
        steps=len(times),
        tokens_per_step=tokens,
        tokens_per_second=tokens_per_second,
        step_ms=spread([1e3 * step.total for step in times]),
        step_ms_each=[1e3 * step.total for step in times],
        phases_ms=phases,
        phases_step_ms=sum(phases.values()),
        control_us=spread([1e6 * step.control for step in times]),
        flops_per_token=flops,
        flops_formula=flops_formula(config.model),
        gflops_per_second_per_core=gflops,
        peak_gflops_per_second_per_core=peak,
        share_of_peak=gflops / peak,
        reduce=_bandwidth(
            reduce_bytes(config, workers, nodes[0].shards if nodes else None),
            phases["reduce"],
            yardsticks.reduce_bytes_per_second,
        ),
        update=_bandwidth(
            update_bytes(config.optim, parameter_count(config.model)),
            phases["update"],
            yardsticks.update_bytes_per_second,
        ),
        memory_gb_per_second=yardsticks.memory_bytes_per_second / 1e9,
        memory=memory,
        first_loss=losses[0],
        last_loss=losses[-1],
        losses=list(losses),
        nodes=list(nodes),
        exchange=None if links is None else _exchange(config, len(nodes), phases[EXCHANGE], links),
    )


def _exchange(config: Config, nodes: int, milliseconds: float, links: LinkSpeed) -> ExchangeReport:
    sent = sent_bytes(parameter_count(config.model), nodes)
    reached = sent / max(milliseconds, 1e-6) / 1e6
    return ExchangeReport(
        bytes=sent,
        is_small=is_small(parameter_count(config.model)),
        gb_per_second=reached,
        link_gb_per_second=links.bytes_per_second / 1e9,
        share_of_link=reached * 1e9 / links.bytes_per_second,
        link_latency_us=1e6 * links.latency_s,
    )


def _bandwidth(moved: int, milliseconds: float, triad_bytes_per_second: float) -> Bandwidth:
    reached = moved / max(milliseconds, 1e-6) / 1e6  # a clock that is too coarse
    return Bandwidth(moved, reached, triad_bytes_per_second / 1e9, reached * 1e9 / triad_bytes_per_second)
