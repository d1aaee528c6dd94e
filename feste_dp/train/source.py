"""What training asks of whoever computes: the contract between the loop and the processes.

The coordinator of runtime/ keeps it with workers, a baseline and the tests in other ways. An exchange stands
between the sum of one machine and the sum of all; on one machine there is none.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

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


class Told(Protocol):
    """What another machine has to say: as Record.tell takes it."""

    @property
    def node(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def level(self) -> Literal["message", "warning"]: ...


class Exchange(Protocol):
    """Sums over machines, all of which call the same methods in the same order.

    Every machine of a run has the same sum, to the bit, afterwards.
    """

    def all_reduce(self, step: int, gradient: Gradient, arena: GradientArrays) -> Gradient:
        """Overwrite grad (P,), the sum over this machine's block, with that over all blocks, the upper levels
        of the tree over shards, and norms with its norms. Returns the gradient with the losses of all shards,
        in their order. Raises Abandoned where a machine gives the step up."""
        ...

    def give_up(self, step: int, arena: GradientArrays) -> None:
        """In place of all_reduce, for a step that this machine does not finish. Raises Abandoned."""
        ...

    @property
    def is_first(self) -> bool:
        """Whether this machine has the run's directory and speaks for all."""
        ...

    @property
    def stop_signal(self) -> int | None:
        """The signal that asked any machine to stop, known to all of them since the last exchange."""
        ...

    @property
    def has_abandoned(self) -> bool:
        """Whether all have given up what was under way."""
        ...

    def units(self, count: int) -> range:
        """Which of so many units of validation are this machine's."""
        ...

    def join(self, losses: Sequence[float] | None) -> list[float]:
        """The losses of all machines, in their order; None gives up. Raises Abandoned where one does."""
        ...

    def take_save_request(self) -> bool:
        """Whether somebody asked any machine for a save, since the last call."""
        ...

    def agree(self, value: bool) -> bool | None:
        """What the first machine says; None where one is gone, and each is on its own."""
        ...

    def take_workers(self) -> int | None:
        """How many workers each machine is to use from here on, once, where somebody wants it."""
        ...

    def told(self) -> Sequence[Told]:
        """What the others have to tell since the last call."""
        ...

    def first_said(self, text: str | None) -> str | None:
        """What the first machine says that says anything, and which it is."""
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

    def unit_losses(self, step: int, units: range, spacing: Spacing) -> list[float]:
        """Sum of the losses of each of these units of held-out sequences, each of sequences_per_shard."""
        ...

    def tend(self) -> None:
        """Take in, without waiting, what has happened to the workers meanwhile."""
        ...

    def close(self, *, at_once: bool) -> None:
        """End the workers."""
        ...
