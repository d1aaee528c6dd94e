"""What the work of a phase gives: reports of single items, and a step's gradient as a whole. Pure."""

from dataclasses import dataclass
from typing import Any

from feste_dp.runtime import messages as m


@dataclass(frozen=True)
class Report:
    """What a worker said of one item of work."""

    value: float
    worker: int
    seconds: float


@dataclass(frozen=True)
class Gradient:
    """A step's summed gradient lies in the arena; this is what else the step gave.

    loss is the mean over the positions of the global batch; times are seconds of the phases as the
    coordinator saw them, worker_seconds and worker_reduce_seconds the workers' own times in the order of
    the workers, worker_shards how many shards each of them computed.
    """

    loss: float
    shard_losses: list[float]
    compute_seconds: float
    reduce_seconds: float
    worker_seconds: list[float]
    worker_reduce_seconds: list[float]
    worker_shards: list[int]


def tree_sum(values: list[float]) -> float:
    """((v0 + v1) + (v2 + v3)) + ...: the tree of the gradient slots; an odd one out moves up a level."""
    while len(values) > 1:
        pairs = [values[i] + values[i + 1] for i in range(0, len(values) - 1, 2)]
        values = pairs + ([values[-1]] if len(values) % 2 else [])
    return values[0]


def read_report(worker: int, message: m.Message) -> tuple[int, Any, Report]:
    """(step, item, what was said of it); step -1 for a message that reports no work."""
    match message:
        case m.ShardDone(step, shard, loss_sum, seconds):
            return step, shard, Report(loss_sum, worker, seconds)
        case m.UnitDone(step, unit, loss_sum, seconds):
            return step, unit, Report(loss_sum, worker, seconds)
        case m.StripeDone(step, first, last, seconds):
            return step, (first, last), Report(0.0, worker, seconds)
    return -1, None, Report(0.0, worker, 0.0)
