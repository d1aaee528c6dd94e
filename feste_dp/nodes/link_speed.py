"""What the sum over nodes sends, and how fast links are. Pure."""

from dataclasses import dataclass

SMALL_FLOATS = 1 << 20
"""Up to so many are sent whole to all, in one message: 4 MB."""


@dataclass(frozen=True)
class LinkSpeed:
    """Of the slowest node."""

    latency_s: float
    """From the first word to all that it has come, while all say one."""
    bytes_per_second: float
    """What a node sends to all others together, while it receives as much."""


def is_small(parameters: int) -> bool:
    return parameters <= SMALL_FLOATS


def sent_bytes(parameters: int, nodes: int) -> int:
    """What each node sends, and receives, for the sum of an array over all nodes."""
    if is_small(parameters):
        return 4 * parameters * (nodes - 1)
    return 2 * 4 * parameters * (nodes - 1) // nodes
