"""The links between nodes, measured as the exchange uses them, over links in one process."""

import pytest

from feste_dp.nodes.link import Link
from feste_dp.nodes.link_speed import LinkSpeed
from feste_dp.nodes.probe import measure_links
from tests.nodes.wires import Wires, linked


@pytest.mark.parametrize("nodes", [2, 3])
def test_all_nodes_know_the_same_latency_and_bandwidth(nodes: int) -> None:
    ends = Wires(nodes, delay=lambda source, to, tag: 2e-3).ends()

    def measure(link: Link) -> LinkSpeed:
        return measure_links(link, ends[link.rank], seconds=0.1)

    speeds = linked(ends, measure)
    assert len(set(speeds)) == 1
    assert speeds[0].latency_s >= 2e-3 and speeds[0].bytes_per_second > 0
