"""feste-dp plan."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import click

from feste_dp.cli.arguments import OVERRIDES, WORKERS, Number, WholeNumber, as_overrides, config_option
from feste_dp.cli.nodes import on_every_node
from feste_dp.config.loading import Override, load_config
from feste_dp.config.schema import MAX_SHARDS, Config
from feste_dp.errors import UsageError
from feste_dp.json_text import json_text
from feste_dp.machine.limits import measure_limits
from feste_dp.nodes.link_speed import LinkSpeed
from feste_dp.plan.network import GBIT, plan_network
from feste_dp.plan.network_table import network_table
from feste_dp.plan.plan import NodesToPlan, RunPlan, SaidOfNode, as_slow_as, make_plan, nodes_like_this
from feste_dp.plan.step_time import Speed, StepTime
from feste_dp.plan.table import plan_table
from feste_dp.run.initial_weights import InitialWeights
from feste_dp.run.screen import PlainProgress
from feste_dp.train.signals import StopSignals
from feste_dp.train.start import Surroundings, prepare, settle

DONE, DOES_NOT_FIT = 0, 2

_GBIT, _LATENCY_US = 10.0, 50.0
_LINKS = (10.0, 25.0, 100.0)
_GPT2 = ("gpt2_87m", "gpt2_124m", "gpt2_355m", "gpt2_774m", "gpt2_1558m")
_MOST_NODES = 64


class _Network(NamedTuple):
    """What --network takes."""

    cores: int
    gflops: float
    memory: float
    sequences: int


@click.command()
@config_option(required=False)
@click.option("--workers", type=WORKERS, metavar="N", help="Worker processes, as launch takes them.")
@click.option(
    "--nodes",
    type=WholeNumber(1, MAX_SHARDS),
    metavar="N",
    help="So many machines like this one, joined by"
    " a network; under mpirun the nodes themselves are measured.",
)
@click.option(
    "--bandwidth",
    type=Number(1e-3, 1e5),
    metavar="GBIT",
    help=f"Of the network, Gbit/s each way and node; default: {_GBIT:g}.",
)
@click.option(
    "--latency",
    type=Number(0, 1e6),
    metavar="US",
    help=f"Of a word between nodes, microseconds; default: {_LATENCY_US:g}.",
)
@OVERRIDES
@click.option(
    "--network",
    is_flag=True,
    help="Instead, and without a measurement: where the network becomes the limit, for --config or all of "
    "GPT-2's shapes.",
)
@click.option(
    "--cores",
    type=WholeNumber(1, 4096),
    default=16,
    show_default=True,
    metavar="N",
    help="--network: of a node, one worker each.",
)
@click.option(
    "--gflops",
    type=Number(0.1, 1e5),
    default=60.0,
    show_default=True,
    metavar="GF",
    help="--network: what a core does in a second while all compute; bench prints it.",
)
@click.option(
    "--memory",
    type=Number(0.1, 1e5),
    default=100.0,
    show_default=True,
    metavar="GB",
    help="--network: what a node's memory moves in a second.",
)
@click.option(
    "--batch",
    "sequences",
    type=WholeNumber(2, 1 << 20),
    default=256,
    show_default=True,
    metavar="N",
    help="--network: sequences of a step.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def plan(
    config_path: Path | None,
    workers: int | None,
    nodes: int | None,
    bandwidth: float | None,
    latency: float | None,
    overrides: tuple[str, ...],
    network: bool,
    as_json: bool,
    **of_network: Any,
) -> int:
    """Say what a run will take, and whether it fits, before it starts.

    Parameters, arithmetic, memory by kind, disk, and the time of a step and of the run from a measurement of
    about two seconds. Trains nothing. Exit status 2 when the run could not start, with what to change.

    Started by mpirun or srun it plans for those nodes, each of which measures itself, and measures latency
    and bandwidth between them for two seconds. With --network it says at how many nodes the sum over them
    takes longer than computing, at 10, 25 and 100 Gbit/s or at --bandwidth.

    \b
    Examples:
      feste-dp plan --config gpt2_87m --workers 8
      feste-dp plan --config medium --set train.batch_size=64 --json
      feste-dp plan --config gpt2_87m --nodes 4 --bandwidth 25
      mpirun -n 2 --bind-to none feste-dp plan --config gpt2_87m
      feste-dp plan --network --cores 64 --gflops 80 --batch 128
    """
    given = as_overrides(overrides, workers)
    latency_s = 1e-6 * (_LATENCY_US if latency is None else latency)
    if network:
        gbits = _LINKS if bandwidth is None else (bandwidth,)
        names = list(_GPT2) if config_path is None else [config_path]
        return _print_network(names, given, gbits, latency_s, _Network(**of_network), as_json)
    if config_path is None:
        raise UsageError("--config: missing; give a name or a YAML file, such as tiny")
    links = None
    if nodes is not None or bandwidth is not None or latency is not None:
        links = LinkSpeed(latency_s, (_GBIT if bandwidth is None else bandwidth) * GBIT)

    def on_node(around: Surroundings) -> int:
        config, start = settle(load_config(config_path, given))
        made = _made_plan(config, start, around, nodes, links)
        if made is None:
            return DONE
        if as_json:
            content = asdict(made) | {
                "memory_by_kind": {kind.name: kind.bytes for kind in made.memory.kinds()},
                "memory_bytes": made.memory.total,
                "fits": not made.problems,
            }
            click.echo(json_text(content, indent=2))
        else:
            click.echo(plan_table(made, config.run.name))
        return DOES_NOT_FIT if made.problems else DONE

    with PlainProgress(sys.stderr, sys.stderr) as progress, StopSignals() as signals:
        return on_every_node(on_node, progress, signals)


def _made_plan(
    config: Config,
    start: InitialWeights | None,
    around: Surroundings,
    count: int | None,
    links: LinkSpeed | None,
) -> RunPlan | None:
    """The plan of the run; None on a node that is not the first."""
    limits = measure_limits(Path(config.run.dir))
    nodes = around.nodes
    if nodes is None:
        alike = None if links is None else nodes_like_this(config, count or 1, links)
        return make_plan(config, limits, lambda: prepare(config, around, start), nodes=alike)
    from feste_dp.nodes.probe import measure_links
    from feste_dp.train.follower import check_config

    link = nodes.link
    if count is not None and count != link.size:
        raise UsageError(f"the launcher has started {link.size}: leave it out", about="nodes")
    check_config(link, config)
    shards = nodes.block(config.train.shards).count
    speed = links or measure_links(link, nodes.transport)
    here = NodesToPlan(link.size, shards, around.workers(config), speed)
    plan = make_plan(config, limits, lambda: prepare(config, around, start), nodes=here)
    step = None if plan.step is None else asdict(plan.step)
    said = [
        SaidOfNode(name, None if step is None else StepTime(**step), problems, notes)
        for name, (step, problems, notes) in zip(
            link.names, link.gather([step, plan.problems, plan.notes]), strict=True
        )
    ]
    return as_slow_as(plan, said) if nodes.is_first else None


def _print_network(
    names: Sequence[str | Path],
    given: Sequence[Override],
    gbits: Sequence[float],
    latency_s: float,
    of: _Network,
    as_json: bool,
) -> int:
    shards = min(MAX_SHARDS, of.sequences & -of.sequences)
    counts = [1]
    while 2 * counts[-1] <= min(_MOST_NODES, shards // min(of.cores, shards // 2)):
        counts.append(2 * counts[-1])
    node = Speed(of.cores, 1e9 * of.gflops, 1e9 * of.memory)
    plans = []
    for name in names:
        config = load_config(name, given)
        batch = {"batch_size": of.sequences, "shards": shards, "micro_batch": 1}
        config = config.model_copy(update={"train": config.train.model_copy(update=batch)})
        plans += [plan_network(config.run.name, config, node, counts, gbit, latency_s) for gbit in gbits]
    if as_json:
        click.echo(json_text([asdict(each) for each in plans], indent=2))
    else:
        click.echo(network_table(plans, node, latency_s))
    return DONE
