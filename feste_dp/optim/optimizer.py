"""What the rest of the program knows of an optimizer: its state as named flat arrays, and one update.

Checkpoints store the state, plans count it, replays restore it; none of them looks inside. A second optimizer
is a kernel, a class as AdamW is, and a branch in `optimizer_class`. The idea of state that nobody else looks
into is optax's (https://github.com/google-deepmind/optax).
"""

from collections.abc import Mapping
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from feste_dp.config.schema import OptimConfig
from feste_dp.optim.adamw import AdamW

FloatArray = NDArray[np.float32]


class Optimizer(Protocol):
    """The state for P parameters, and what an update does with it."""

    names: ClassVar[tuple[str, ...]]
    """Of the arrays of its state, in the order in which they are stored."""
    passes: ClassVar[int]
    """How many times an update reads or writes P floats of memory."""

    def __init__(self, parameters: int, decayed: int, config: OptimConfig, threads: int) -> None:
        """The state before the first step. The first `decayed` parameters take weight decay."""

    @property
    def state(self) -> Mapping[str, FloatArray]:
        """The arrays (P,) by name; whoever restores a state writes into them."""

    def update(self, params: FloatArray, grad: FloatArray, step: int, lr: float, clip: float) -> bool:
        """One step on params (P,) in place: grad (P,) is scaled by `clip`; step counts from 1.

        Returns whether all weights are finite after it.
        """

    def close(self) -> None:
        """End its threads."""


def optimizer_class(config: OptimConfig) -> type[Optimizer]:
    """The optimizer that the config asks for. There is one so far."""
    return AdamW


def state_bytes(config: OptimConfig, parameters: int) -> int:
    """Of the state of so many parameters."""
    return 4 * parameters * len(optimizer_class(config).names)


def update_bytes(config: OptimConfig, parameters: int) -> int:
    """What one update reads and writes."""
    return 4 * parameters * optimizer_class(config).passes
