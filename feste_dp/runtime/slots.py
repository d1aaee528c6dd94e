"""How the shards of a machine share its gradient slots. Pure.

The sum over shards is a binary tree, so an aligned run of 2^k shards is one of its nodes: the worker that
computes such a run may add it up by itself, in the tree's order, and leave the node in one slot. How many
shards a slot takes changes no bit; it decides how much memory the slots take, and how finely work is dealt.
"""

import math
from dataclasses import dataclass

MIN_SLOTS = 8
"""Up to so many shards have a slot each: what a worker adds up by itself costs it three passes over memory,
and what a lost worker leaves is a slot at least."""


@dataclass(frozen=True)
class ShardBlock:
    """The shards of the batch that are computed here: `count` of them, a power of two, from `first` on, a
    multiple of it. On one machine all of them."""

    first: int
    count: int


def shards_per_slot(shards: int, workers: int) -> int:
    """The most shards, a power of two, that a slot can take without giving any worker more to do than if
    single shards were dealt out."""
    slots = min(shards, MIN_SLOTS)
    while slots < shards and math.ceil(slots / workers) * (shards // slots) > math.ceil(shards / workers):
        slots *= 2
    return shards // slots


def partial_sums(per_slot: int) -> int:
    """Buffers of P floats that a worker needs beside the slot, to add up so many shards: one a level."""
    return per_slot.bit_length() - 1


def slot_count(shards: int, workers: int) -> int:
    """Gradient slots of a run."""
    return shards // shards_per_slot(shards, workers)
