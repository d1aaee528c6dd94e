"""What the work of a phase gives: reports of runs of items, and a step's gradient as a whole. Pure."""

from dataclasses import dataclass, field
from typing import NamedTuple

from feste_dp.runtime import messages as m


class Report(NamedTuple):
    """What a worker said of items first .. last - 1 of a phase."""

    first: int
    last: int
    losses: tuple[float, ...]
    """Of each item; empty where items have none."""
    seconds: float


@dataclass(frozen=True)
class Gradient:
    """A step's summed gradient lies in the arena; this is what else the step gave.

    shard_losses are sums over the positions of each shard; worker_seconds and worker_reduce_seconds the
    workers' own times in the order of the workers, worker_shards how many shards each of them computed.
    """

    shard_losses: list[float]
    worker_seconds: list[float]
    worker_reduce_seconds: list[float]
    worker_shards: list[int]
    node_seconds: list[float] = field(default_factory=list)
    """The compute time of the slowest worker of each node, where there are several."""
    node_wait: float = 0.0
    """How long this node waited for the slowest."""
    exchange_seconds: float = 0.0
    """How long the sum over nodes took after that."""


def tree_sum(values: list[float]) -> float:
    """((v0 + v1) + (v2 + v3)) + ...: the tree of the gradient slots; an odd one out moves up a level."""
    while len(values) > 1:
        pairs = [values[i] + values[i + 1] for i in range(0, len(values) - 1, 2)]
        values = pairs + ([values[-1]] if len(values) % 2 else [])
    return values[0]


def mean_loss(shard_losses: list[float], positions: int) -> float:
    """Over so many positions, from the losses of all shards, or units, that they are in."""
    return tree_sum(shard_losses) / positions


def read_report(message: m.Message) -> tuple[int, Report]:
    """(step, what was said of it); step -1 for a message that reports no work."""
    match message:
        case m.ShardsDone(step, first, loss_sums, seconds) | m.UnitsDone(step, first, loss_sums, seconds):
            return step, Report(first, first + len(loss_sums), loss_sums, seconds)
        case m.StripeDone(step, first, last, seconds):
            return step, Report(first, last, (), seconds)
    return -1, Report(0, 0, (), 0.0)
