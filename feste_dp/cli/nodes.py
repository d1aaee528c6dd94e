"""How a command runs on one machine, or as one of the nodes that a launcher has started."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from feste_dp.cache import cache_root
from feste_dp.nodes.world import world_size
from feste_dp.run.screen import Progress
from feste_dp.train.signals import StopSignals
from feste_dp.train.start import Surroundings

if TYPE_CHECKING:
    from feste_dp.train.joining import Nodes


def on_every_node(
    on_node: Callable[[Surroundings], int],
    progress: Progress,
    signals: StopSignals,
    trace: tuple[int, int] | None = None,
) -> int:
    """The status of on_node, of all nodes where there are several; the first alone speaks."""

    def on(nodes: "Nodes | None") -> int:
        if nodes is not None and not nodes.is_first:
            from feste_dp.train.follower import surroundings_of

            return on_node(surroundings_of(nodes, os.environ, cache_root(os.environ), signals))
        around = Surroundings(os.environ, cache_root(os.environ), progress, signals, trace, nodes)
        for line in () if nodes is None else nodes.warnings:
            around.record.warn(line)
        return on_node(around)

    if world_size(os.environ) == 1:
        return on(None)
    from feste_dp.train.joining import on_all_nodes

    return on_all_nodes(os.environ, signals, on)
