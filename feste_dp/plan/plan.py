"""What a run will take, all in one: parameters, arithmetic, memory, disk and time, and what does not fit.

Memory and disk are needs.py's, what is missing preflight.py's, the time is step_time.py's: a plan and a start
say the same. Starts no worker and creates nothing but caches.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from feste_dp.config.schema import Config
from feste_dp.data.tokens import TokenData
from feste_dp.errors import RunError, UsageError
from feste_dp.machine.cpus import crowding, default_workers, usable_cpus
from feste_dp.machine.limits import Limits
from feste_dp.model.parameters import layout, parameter_count
from feste_dp.nodes.blocks import node_blocks, uneven
from feste_dp.nodes.link_speed import LinkSpeed
from feste_dp.plan.arithmetic import flops_formula, flops_per_token, run_flops
from feste_dp.plan.needs import MemoryNeed, checkpoint_bytes, checkpoint_count, needs
from feste_dp.plan.network import part_of, with_exchange
from feste_dp.plan.preflight import check_cpus, precision_line, shortages
from feste_dp.plan.step_time import PLAN_S, StepTime, estimated_step, run_seconds
from feste_dp.wording import counted

_GROUPS = {
    "wte": "token embedding",
    "wpe": "position embedding",
    "attn": "attention",
    "mlp": "MLP",
    "ln": "layer norms",
    "lm": "output head",
}


@dataclass(frozen=True)
class TensorGroup:
    """Tensors that belong together: how many parameters they have, over all layers."""

    name: str
    tensors: list[str]
    parameters: int


@dataclass(frozen=True)
class RunPlan:
    """Everything a plan says. Times are None where something is missing that the measurement needs too."""

    parameters: int
    groups: list[TensorGroup]
    flops_per_token: float
    flops_formula: str
    run_flops: float
    tokens_per_step: int
    steps: int
    tokens: int
    passes_over_text: float | None
    workers: int
    cores: int
    shards: int
    memory: MemoryNeed
    memory_available: int
    checkpoint_bytes: int
    checkpoints: int
    disk_bytes: int
    disk_available: int
    step: StepTime | None
    tokens_per_second: float | None
    run_seconds: float | None
    problems: list[str]
    """What keeps it from running, a line each with the setting to change."""
    notes: list[str]
    nodes: int = 1
    node_shards: int | None = None
    """Of the node with most; `workers`, `memory` and `step` are those of one node."""
    links: LinkSpeed | None = None


def tensor_groups(config: Config) -> list[TensorGroup]:
    """In the order of the flat buffer; a tied output head has no parameters of its own."""
    found: dict[str, list[tuple[str, int]]] = {}
    for tensor in layout(config.model):
        found.setdefault(tensor.name.split("_")[0], []).append((tensor.name, tensor.stop - tensor.start))
    groups = [
        TensorGroup(_GROUPS[key], [name for name, _ in tensors], sum(count for _, count in tensors))
        for key, tensors in found.items()
    ]
    if config.model.tie_embeddings:
        groups.append(TensorGroup(f"{_GROUPS['lm']} (tied to the token embedding)", [], 0))
    return groups


@dataclass(frozen=True)
class NodesToPlan:
    """The nodes of a run, and what joins them. `shards` and `workers` are those of the node that plans."""

    count: int
    shards: int
    workers: int
    links: LinkSpeed


def nodes_like_this(config: Config, count: int, links: LinkSpeed) -> NodesToPlan:
    """So many machines such as this one. Raises UsageError where there are more than shards."""
    shards = max(block.count for block in node_blocks(config.train.shards, count))
    workers = min(config.run.workers or default_workers(shards), shards)
    return NodesToPlan(count, shards, workers, links)


def make_plan(
    config: Config,
    limits: Limits,
    prepare: Callable[[], TokenData],
    seconds: float = PLAN_S,
    nodes: NodesToPlan | None = None,
) -> RunPlan:
    """Measures for about `seconds` where the run can start. `prepare` makes token data and kernels ready, as
    a start does, and raises UsageError for a text that will not do."""
    if nodes is None:
        workers, part = config.run.workers or default_workers(config.train.shards), config
    else:
        workers, part = nodes.workers, part_of(config, nodes.shards)
    cores = min(workers, usable_cpus())
    problems = _problems(part, workers, limits)
    notes = [] if (line := precision_line(config)) is None else [line]
    data, step = None, None
    if not problems:
        try:
            data = prepare()
            step = estimated_step(part, workers, seconds)
        except (UsageError, RunError) as error:
            problems.append(str(error))
    if nodes is not None:
        if step is not None:
            step = with_exchange(step, config, nodes.count, nodes.links)
        notes += _notes_on_nodes(config, nodes, step)
    crowded = crowding(workers)
    if crowded is not None:
        notes.append(crowded)
    if part.train.shards % workers:
        notes.append(
            f"{counted(part.train.shards, 'shard')} cannot be dealt out evenly to "
            f"{counted(workers, 'worker')}: some wait for the others"
        )
    need = needs(part, workers)
    return RunPlan(
        parameters=parameter_count(config.model),
        groups=tensor_groups(config),
        flops_per_token=flops_per_token(config.model),
        flops_formula=flops_formula(config.model),
        run_flops=run_flops(config),
        tokens_per_step=config.tokens_per_step,
        steps=config.train.steps,
        tokens=config.total_tokens,
        passes_over_text=config.total_tokens / len(data.train) if data is not None else None,
        workers=workers,
        cores=cores,
        shards=config.train.shards,
        memory=need.memory,
        memory_available=limits.memory,
        checkpoint_bytes=checkpoint_bytes(config),
        checkpoints=checkpoint_count(config),
        disk_bytes=need.disk,
        disk_available=limits.disk,
        step=step,
        tokens_per_second=config.tokens_per_step / step.total if step else None,
        run_seconds=run_seconds(config, step) if step else None,
        problems=problems,
        notes=notes,
        nodes=1 if nodes is None else nodes.count,
        node_shards=None if nodes is None else nodes.shards,
        links=None if nodes is None else nodes.links,
    )


class SaidOfNode(NamedTuple):
    """What another node's plan says."""

    name: str
    step: StepTime | None
    problems: list[str]
    notes: list[str]


def as_slow_as(plan: RunPlan, said: Sequence[SaidOfNode]) -> RunPlan:
    """The plan of the first node with what all nodes say, this one included: as fast as the slowest, and what
    is missing on any of them."""
    problems = [f"{node.name}: {line}" for node in said for line in node.problems]
    notes = list(dict.fromkeys(line for node in said for line in node.notes))
    steps = [node.step for node in said if node.step is not None]
    if plan.step is None or plan.run_seconds is None or len(steps) < len(said):
        return replace(
            plan, problems=problems, notes=notes, step=None, tokens_per_second=None, run_seconds=None
        )
    slowest = max(steps, key=lambda step: step.total)
    return replace(
        plan,
        problems=problems,
        notes=notes,
        step=slowest,
        tokens_per_second=plan.tokens_per_step / slowest.total,
        run_seconds=plan.run_seconds * slowest.total / plan.step.total,
    )


def _notes_on_nodes(config: Config, nodes: NodesToPlan, step: StepTime | None) -> list[str]:
    unequal = uneven(node_blocks(config.train.shards, nodes.count))
    notes = [] if unequal is None else [unequal]
    if step is not None and 2 * step.exchange > step.total:
        notes.append(
            "the network is the limit: the exchange takes longer than all else; more tokens a step "
            "(train.batch_size), a faster link or fewer nodes would make more of the cores"
        )
    return notes


def _problems(config: Config, workers: int, limits: Limits) -> list[str]:
    problems = []
    try:
        check_cpus(config, workers)
    except UsageError as error:
        problems.append(str(error))
    return problems + [shortage.line for shortage in shortages(config, workers, limits)]
