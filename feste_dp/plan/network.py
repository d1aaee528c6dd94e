"""The time of a step on several nodes: a node's part of the batch, and the sum over nodes. Pure.

Computing gets shorter with the number of nodes N; the exchange does not: each node sends 2 (N-1)/N of the
gradient, 4 bytes a parameter, at a rate that the link gives. So the network becomes the limit at a number of
tokens a node and step, nearly the same for every model, since the arithmetic of a token grows with the
parameters as the gradient does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from feste_dp.config.schema import Config
from feste_dp.model.parameters import parameter_count
from feste_dp.nodes.link_speed import LinkSpeed, is_small, sent_bytes
from feste_dp.plan.arithmetic import flops_per_token
from feste_dp.plan.step_time import Speed, StepTime, step_at

GBIT = 1e9 / 8
"""Bytes a second."""
OF_STREAM = 0.8
"""What the exchange of a large gradient reaches of a plain stream, at least: docs/several-machines.md."""
_MANY = 1 << 20
_LATENCIES = 3
"""One before another: the words of a step, a chunk to its owner, its sum back. A small gradient travels with
the words."""


def part_of(config: Config, shards: int) -> Config:
    """What a node with so many shards computes of each step, as the config of a run of its own."""
    train = config.train
    part = {"shards": shards, "batch_size": train.sequences_per_shard * shards}
    return config.model_copy(update={"train": train.model_copy(update=part)})


def exchange_seconds(parameters: int, nodes: int, links: LinkSpeed) -> float:
    """Of one step, once all nodes are there."""
    if nodes == 1:
        return 0.0
    sending = sent_bytes(parameters, nodes) / links.bytes_per_second
    if is_small(parameters):
        return links.latency_s + sending
    return _LATENCIES * links.latency_s + sending / OF_STREAM


def with_exchange(step: StepTime, config: Config, nodes: int, links: LinkSpeed) -> StepTime:
    """The step of a node, with the sum over all of them."""
    return replace(step, exchange=exchange_seconds(parameter_count(config.model), nodes, links))


@dataclass(frozen=True)
class NetworkPlan:
    """A config on one kind of link."""

    name: str
    parameters: int
    tokens_per_step: int
    gbit_per_second: float
    exchange_s: float
    """On as many nodes as the last of `step_s`."""
    tokens_at_the_limit: float
    """Tokens a node and step with which computing takes as long as the exchange between many nodes; with ten
    times as many the exchange takes a tenth of it."""
    step_s: dict[int, float]
    """Seconds of a step by number of nodes."""

    @property
    def limit_nodes(self) -> float:
        """The number at which the exchange takes as long as computing: the network is the limit. There may
        be too few shards for so many."""
        return self.tokens_per_step / self.tokens_at_the_limit

    def efficiency(self, nodes: int) -> float:
        """Against one node."""
        return self.step_s[1] / nodes / self.step_s[nodes]


def plan_network(
    name: str, config: Config, node: Speed, counts: Sequence[int], gbit_per_second: float, latency_s: float
) -> NetworkPlan:
    """On equal nodes of node.cores cores, one worker each; counts are powers of two from 1 on, up to
    train.shards."""
    parameters, shards = parameter_count(config.model), config.train.shards
    links = LinkSpeed(latency_s, gbit_per_second * GBIT)
    steps = {
        nodes: with_exchange(_node_step(config, node, shards // nodes), config, nodes, links)
        for nodes in counts
    }
    most = counts[-1]
    at_the_limit = exchange_seconds(parameters, most if is_small(parameters) else _MANY, links)
    a_token = flops_per_token(config.model) / (node.cores * node.flops_per_second)
    return NetworkPlan(
        name=name,
        parameters=parameters,
        tokens_per_step=config.tokens_per_step,
        gbit_per_second=gbit_per_second,
        exchange_s=steps[most].exchange,
        tokens_at_the_limit=at_the_limit / a_token,
        step_s={nodes: step.total for nodes, step in steps.items()},
    )


def _node_step(config: Config, node: Speed, shards: int) -> StepTime:
    return step_at(node, part_of(config, shards), min(node.cores, shards))
