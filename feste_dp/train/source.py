"""What training asks of whoever computes: the contract between the loop and the processes.

The coordinator of runtime/ keeps it with workers, a baseline and the tests in other ways. An exchange stands
between the sum of one machine and the sum of all; on one machine there is none.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from feste_dp.data.order import Spacing
from feste_dp.runtime.results import Gradient
from feste_dp.runtime.slots import ShardBlock

FloatArray = NDArray[np.float32]


class GradientArrays(Protocol):
    """The flat arrays of a step: P parameters."""

    params: FloatArray
    """(P,) weights. The step writes them; a gradient is taken at what they are then."""
    grad: FloatArray
    """(P,) summed gradient of the last step asked for."""
    norms: NDArray[np.float64]
    """(chunks,) sums of squares of grad's chunks, see kernels/reduction.py."""
    slots: FloatArray
    """(S, P) what grad was summed from: in each row the next shards_per_slot of the block."""


class GradientSource(Protocol):
    """Computes gradients of a block of shards; nothing else touches its arrays meanwhile."""

    @property
    def arena(self) -> GradientArrays: ...

    @property
    def block(self) -> ShardBlock:
        """Which shards of the batch are its own."""
        ...

    @property
    def shards_per_slot(self) -> int:
        """How many of them are added up in each of the slots."""
        ...

    def gradient(self, step: int) -> Gradient:
        """Overwrite grad and norms with the sum over this block's shards of the batch of `step`, divided by
        the token count of the whole batch. Steps count from 1, and any may be asked for again: the same
        weights give the same bits. Raises RunError where it cannot."""
        ...


class Exchange(Protocol):
    """Sums over machines. Every machine of a run has the same sum, to the bit, afterwards."""

    def all_reduce(self, step: int, gradient: Gradient, grad: FloatArray) -> Gradient:
        """Overwrite grad (P,), the sum over this machine's block, with that over all blocks: the upper levels
        of the tree over shards. Returns the gradient with the losses of all shards, in their order."""
        ...


class Workforce(GradientSource, Protocol):
    """A source of gradients with workers, which also validates."""

    @property
    def workers(self) -> int: ...

    def resize(self, workers: int) -> None:
        """Between steps. Raises UsageError or RunError, with everything as it was."""
        ...

    def validation_loss(self, step: int, count: int, spacing: Spacing) -> float:
        """Mean loss over so many held-out sequences, a multiple of sequences_per_shard."""
        ...

    def tend(self) -> None:
        """Take in, without waiting, what has happened to the workers meanwhile."""
        ...

    def close(self, *, at_once: bool) -> None:
        """End the workers."""
        ...
