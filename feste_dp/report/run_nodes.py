"""The part of a page on the nodes of a run, where it has several: what each is, and who is waited for."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from feste_dp.report.axes import exact
from feste_dp.report.markup import Markup, section, table, tag
from feste_dp.report.run_data import RunData

_LATEST = 100
"""Batches of times, about a second each, that the mean of a node is of."""


@dataclass(frozen=True)
class NodeRow:
    """A node as the newest start knew it, and as fast as it was of late."""

    name: str
    cpu: str
    usable_cpus: object
    workers: object
    shards: object
    compute_ms: float | None
    """Of its slowest worker, a step; None before the first steps."""


def nodes_of(run: RunData) -> list[NodeRow]:
    """Empty for a run on one machine."""
    told = run.facts.get("nodes")
    nodes = [node for node in told if isinstance(node, Mapping)] if isinstance(told, list) else []
    means = _means(run, len(nodes)) if len(nodes) > 1 else []
    return [
        NodeRow(
            name=str(node.get("name", "")),
            cpu=str(node.get("cpu", "")),
            usable_cpus=node.get("usable_cpus", "?"),
            workers=node.get("workers", "?"),
            shards=node.get("shards", "?"),
            compute_ms=means[number] if means else None,
        )
        for number, node in enumerate(nodes)
        if len(nodes) > 1
    ]


def slowest(nodes: Sequence[NodeRow]) -> NodeRow | None:
    """The node that the others wait for; None before the first steps."""
    timed = [node for node in nodes if node.compute_ms is not None]
    return max(timed, key=lambda node: node.compute_ms or 0.0, default=None)


def nodes_section(runs: Sequence[RunData]) -> Markup | None:
    """A line for each node; None where no run has several."""
    rows = []
    for run in runs:
        nodes = nodes_of(run)
        last = slowest(nodes)
        for node in nodes:
            time = "" if node.compute_ms is None else exact(node.compute_ms, 4)
            name = node.name if len(runs) == 1 else f"{run.name}, {node.name}"
            mark = tag("strong", None, f"{time}, the slowest") if node is last else time
            rows.append([name, node.cpu, str(node.usable_cpus), str(node.workers), str(node.shards), mark])
    if not rows:
        return None
    note = (
        "Compute: the slowest worker of the node, mean of the last minutes of steps. The others wait for it."
    )
    head = ["node", "CPU", "usable CPUs", "workers", "shards", "compute, ms a step"]
    return section("nodes", "Nodes", table(head, rows), tag("p", {"class": "note"}, note))


def _means(run: RunData, count: int) -> list[float]:
    """Each node's milliseconds of compute, over the last batches with so many nodes."""
    found = [event.fields.get("node_compute_ms") for event in run.times[-_LATEST:]]
    batches = [each for each in found if isinstance(each, list) and len(each) == count and _are_times(each)]
    return [sum(each[node] for each in batches) / len(batches) for node in range(count)] if batches else []


def _are_times(values: Sequence[object]) -> bool:
    return all(isinstance(value, int | float) and math.isfinite(value) and value >= 0 for value in values)
