"""Which shards of the batch each node has, and in which order the nodes' sums are added. Pure.

The sum over shards is a binary tree. A node has one whole branch of it, an aligned block of 2^k shards, so
only that branch's sum has to leave the node, and the upper levels are additions of such sums.
"""

from collections.abc import Sequence

from feste_dp.errors import UsageError
from feste_dp.runtime.slots import ShardBlock

Additions = Sequence[tuple[int, int]]
"""(i, j): the sum of node j is added to that of node i, in this order; the last leaves all in node 0."""


def node_blocks(shards: int, nodes: int) -> list[ShardBlock]:
    """A block for each node, in order: equal ones for 1, 2, 4 .. nodes, else the first nodes have smaller
    ones. Raises UsageError where there are more nodes than shards."""
    if nodes > shards:
        raise UsageError(
            f"{nodes} nodes are more than train.shards {shards}: use at most {shards} nodes, or more shards",
            settings={"train.shards": 1 << (nodes - 1).bit_length()},
        )
    blocks = [ShardBlock(0, shards)]
    while len(blocks) < nodes:
        # the first of the largest: the first node also validates, saves and draws samples for all
        at = max(range(len(blocks)), key=lambda i: blocks[i].count)
        first, half = blocks[at].first, blocks[at].count // 2
        blocks[at : at + 1] = [ShardBlock(first, half), ShardBlock(first + half, half)]
    return blocks


def uneven(blocks: Sequence[ShardBlock]) -> str | None:
    """What to say of blocks that differ; None where all are alike."""
    most, nodes = max(block.count for block in blocks), len(blocks)
    if most == min(block.count for block in blocks):
        return None
    lower = 1 << (nodes.bit_length() - 1)
    shards = sum(block.count for block in blocks)
    return (
        f"{nodes} nodes share {shards} shards unevenly, the largest block has {most}: the result is the "
        f"same, but no faster than {shards // most} nodes; {lower} or {2 * lower} nodes share them equally"
    )


def additions(blocks: Sequence[ShardBlock]) -> list[tuple[int, int]]:
    """The upper levels of the tree over shards, as additions of whole blocks, left before right."""
    found: list[tuple[int, int]] = []

    def add_up(first: int, count: int) -> int:
        """The node whose place holds the sum over these shards."""
        for node, block in enumerate(blocks):
            if (block.first, block.count) == (first, count):
                return node
        left, right = add_up(first, count // 2), add_up(first + count // 2, count // 2)
        found.append((left, right))
        return left

    add_up(0, sum(block.count for block in blocks))
    return found
