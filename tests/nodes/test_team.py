"""How people are told what each node of a run computes with."""

import pytest

from feste_dp.nodes.link_speed import SMALL_FLOATS, sent_bytes
from feste_dp.nodes.team import NodeFacts, fewer_workers, node_lines, team_words


def node(number: int, workers: int, asked: int | None = None) -> NodeFacts:
    return NodeFacts(f"node {number}", "a CPU", 8, workers, workers, asked)


@pytest.mark.parametrize(
    ("workers", "words"),
    [((4,), "4 workers"), ((4, 4), "2 nodes of 4 workers"), ((1, 1), "2 nodes of 1 worker"),
     ((2, 2, 4), "3 nodes of 2 to 4 workers")],
)  # fmt: skip
def test_a_team_in_words(workers: tuple[int, ...], words: str) -> None:
    nodes = [node(number, count) for number, count in enumerate(workers)]
    assert team_words(nodes if len(nodes) > 1 else [], workers[0]) == words


def test_nodes_with_fewer_shards_than_workers_asked_for_are_told_together() -> None:
    lines = fewer_workers([node(0, 2, 8), node(1, 2, 8), node(2, 4, 8), node(3, 4, 4), node(4, 1)])
    assert [line.partition(":")[0] for line in lines] == [
        "node 0 and node 1 start 2 workers each, not 8",
        "node 2 starts 4 workers, not 8",
    ]
    (many,) = fewer_workers([node(number, 1, 2) for number in range(100)])
    assert "node 3 and 96 more start 1 worker each" in many


def test_each_node_has_a_line_and_of_many_the_rest_is_counted() -> None:
    assert node_lines([], 9) == []
    assert node_lines([node(0, 1), node(1, 2)], 9) == [
        "nodes    node 0: 1 shard on 1 worker, a CPU",
        "         node 1: 2 shards on 2 workers, a CPU",
    ]
    assert node_lines([node(number, 1) for number in range(20)], 9)[-1] == "         and 12 more"


def test_a_large_array_leaves_each_node_twice_but_for_its_own_part_and_a_small_one_goes_to_all() -> None:
    large = 8 * SMALL_FLOATS
    assert [sent_bytes(large, nodes) for nodes in (1, 2, 4)] == [0, 4 * large, 6 * large]
    assert [sent_bytes(100, nodes) for nodes in (1, 2, 4)] == [0, 400, 1200]
