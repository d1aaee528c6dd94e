"""What each node of a run computes with, and how people are told. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from feste_dp.wording import counted

_NAMED, _SHOWN = 4, 8


@dataclass(frozen=True)
class NodeFacts:
    """A node of a run whose workers have started."""

    name: str
    cpu: str
    usable_cpus: int
    workers: int
    shards: int
    asked_workers: int | None = None
    """How many it was asked to start; None where it was to choose."""
    sharing: int = 1
    """How many nodes, this one included, run on its CPUs."""

    @property
    def cores(self) -> int:
        """Those that its workers can have."""
        return min(self.workers, max(1, self.usable_cpus // self.sharing))


def fewer_workers(nodes: Sequence[NodeFacts]) -> list[str]:
    """What to say of nodes that were asked for more workers than they have shards."""
    found: dict[tuple[int, int], list[NodeFacts]] = {}
    for node in nodes:
        if node.asked_workers is not None and node.workers < node.asked_workers:
            found.setdefault((node.workers, node.asked_workers), []).append(node)
    return [
        f"{_names(alike)} {'start' if len(alike) > 1 else 'starts'} {counted(started, 'worker')}"
        f"{' each' if len(alike) > 1 else ''}, not {asked}: one a shard; more train.shards would employ "
        "the others"
        for (started, asked), alike in found.items()
    ]


def team_words(nodes: Sequence[NodeFacts], workers: int) -> str:
    """ "2 nodes of 4 workers"; of one machine, with so many workers, "4 workers"."""
    if len(nodes) < 2:
        return counted(workers, "worker")
    numbers = sorted({node.workers for node in nodes})
    some = " to ".join(map(str, {numbers[0]: 0, numbers[-1]: 0}))
    return f"{counted(len(nodes), 'node')} of {some} {'worker' if numbers[-1] == 1 else 'workers'}"


def node_lines(nodes: Sequence[NodeFacts], width: int) -> list[str]:
    """A line for each, behind a label of this width; none for one machine."""
    lines = [
        f"{node.name}: {counted(node.shards, 'shard')} on {counted(node.workers, 'worker')}, {node.cpu}"
        for node in nodes[:_SHOWN]
    ]
    if len(nodes) > _SHOWN:
        lines.append(f"and {len(nodes) - _SHOWN} more")
    return [f"{'' if number else 'nodes':<{width}}{line}" for number, line in enumerate(lines)]


def _names(nodes: Sequence[NodeFacts]) -> str:
    names = [node.name for node in nodes[:_NAMED]]
    if len(nodes) > _NAMED:
        names.append(f"{len(nodes) - _NAMED} more")
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
