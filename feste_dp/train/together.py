"""What the nodes of a run decide together, and where their sums meet.

Every node takes the same steps with the same bits, so most decisions need no words: they follow from numbers
that are the same everywhere. What does not (a signal, a wish for other workers, a step that is given up) goes
with the words that every node says at every exchange, and all nodes act on the same words at the same place.
"""

import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feste_dp.checkpoint.joint_saving import DivergedError
from feste_dp.errors import UsageError
from feste_dp.kernels.reduction import NORM_CHUNK, chunk_norms
from feste_dp.nodes.array_sum import ArraySum
from feste_dp.nodes.blocks import additions
from feste_dp.nodes.introduction import check_alike
from feste_dp.nodes.link import NodeLostError, Told
from feste_dp.runtime.results import Gradient
from feste_dp.train.joining import Nodes
from feste_dp.train.signals import Abandoned, StopSignals
from feste_dp.train.source import GradientArrays

LOSSES_AT_ONCE = 100_000
"""So many fit into what a node says to all at once; a long validation has more."""


_ERRS = "one of them computes wrongly, or its memory errs"
_LOOKS_FOR_ALL = 1000
"""So many steps look at every weight once, to see that all nodes have the same: 100 us a step of gpt2_87m."""


class NodeExchange:
    """The Exchange of source.py between the nodes of a run. Raises NodeLostError where another is gone."""

    def __init__(
        self,
        nodes: Nodes,
        shards: int,
        parameters: int,
        signals: StopSignals,
        wanted_workers: Callable[[], int | None] = lambda: None,
    ) -> None:
        self.link, self.blocks = nodes.link, nodes.blocks(shards)
        self._signals, self._wanted_workers = signals, wanted_workers
        self._sum = ArraySum(nodes.link, nodes.transport, additions(self.blocks), parameters)
        self.stop_signal: int | None = None
        """The signal that asked any node to stop, known to all since the last exchange."""
        self.has_abandoned = False
        """Whether all nodes have given up what was under way."""
        self._save_requested = False
        self._workers: int | None = None
        """How many workers the first node was asked to have each node use, since the last exchange."""

    @property
    def is_first(self) -> bool:
        return self.link.is_first

    def all_reduce(self, step: int, gradient: Gradient, arena: GradientArrays) -> Gradient:
        """Overwrite grad (P,) and norms with those of the whole batch. Returns the gradient with the losses
        of all shards. Raises Abandoned where a node gives the step up."""
        started = time.perf_counter()

        def finished(first: int, last: int) -> None:
            chunk_norms(arena.grad[first:last], arena.norms[first // NORM_CHUNK : -(-last // NORM_CHUNK)])

        finish = self._sum.begin(arena.grad) if self._sum.is_small else None
        said = self._words(step, gradient, arena)
        met = time.perf_counter()
        if finish is not None:
            finish(finished)
        self._check_words(step, said)
        if finish is None:
            self._sum.all_reduce(arena.grad, finished)
        now = time.perf_counter()
        return replace(
            gradient,
            shard_losses=[loss for words in said for loss in words["losses"]],
            node_seconds=[words["seconds"] for words in said],
            node_wait=met - started,
            exchange_seconds=now - met,
        )

    def give_up(self, step: int, arena: GradientArrays) -> None:
        """Take part in the exchange of a step that this node does not finish. Raises Abandoned."""
        finish = self._sum.begin(arena.grad) if self._sum.is_small else None
        said = self._words(step, None, arena)
        if finish is not None:
            finish(lambda first, last: None)
        self._check_words(step, said)

    def join(self, losses: Sequence[float] | None) -> list[float]:
        """The losses of all nodes, in their order; None gives up. Raises Abandoned where a node does."""
        said = self.link.gather([self._own_stop(), None if losses is None else len(losses)])
        self._take_stops([stop for stop, _ in said])
        if any(count is None for _, count in said):
            raise self._abandoned()
        own = list(losses or ())
        given: list[list[float]] = [[] for _ in said]
        for at in range(0, max(count for _, count in said), LOSSES_AT_ONCE):
            for node, piece in enumerate(self.link.gather(own[at : at + LOSSES_AT_ONCE])):
                given[node] += piece
        return [loss for losses in given for loss in losses]

    def take_save_request(self) -> bool:
        """Whether a signal asked any node for a save, since the last call."""
        taken, self._save_requested = self._save_requested, False
        return taken

    def agree(self, value: bool) -> bool | None:
        """What the first node says; None where a node is gone, and each is on its own."""
        try:
            return bool(self.link.gather(value)[0])
        except NodeLostError:
            return None

    def told(self) -> list[Told]:
        """What the other nodes have to tell since the last call, on the first node."""
        return self.link.told() if self.is_first else []

    def take_workers(self) -> int | None:
        """How many workers each node is to use from here on, once."""
        taken, self._workers = self._workers, None
        return taken

    def first_said(self, text: str | None) -> str | None:
        """What the first node says that says anything."""
        said = self.link.gather(text)
        return next(
            (f"{name}: {text}" for name, text in zip(self.link.names, said, strict=True) if text), None
        )

    def units(self, count: int) -> range:
        """Which of so many units of validation are this node's."""
        own, shards = self.blocks[self.link.rank], sum(block.count for block in self.blocks)
        return range(count * own.first // shards, count * (own.first + own.count) // shards)

    def _words(self, step: int, gradient: Gradient | None, arena: GradientArrays) -> list[dict[str, Any]]:
        return self.link.gather(
            {
                "step": step,
                "stop": self._own_stop(),
                "save": self._signals.take_save_request(),
                "workers": self._wanted_workers() if self.is_first else None,
                "losses": None if gradient is None else gradient.shard_losses,
                "weights": _sum_of_some(arena.params, step),
                "seconds": 0.0 if gradient is None else max(gradient.worker_seconds),
            }
        )

    def _check_words(self, step: int, said: list[dict[str, Any]]) -> None:
        assert all(words["step"] == step for words in said), (step, [words["step"] for words in said])
        self._take_stops([words["stop"] for words in said])
        self._save_requested |= any(words["save"] for words in said)
        if said[0]["workers"] is not None:
            self._workers = said[0]["workers"]
        if any(words["losses"] is None for words in said):
            raise self._abandoned()
        try:
            check_alike(self.link.names, [words["weights"] for words in said], "has weights of CRC-32", _ERRS)
        except UsageError as error:
            raise DivergedError(f"before step {step} {error}") from None

    def _own_stop(self) -> int | None:
        return self._signals.stop_signal

    def _take_stops(self, stops: list[int | None]) -> None:
        given = [stop for stop in stops if stop is not None]
        if given and self.stop_signal is None:
            self.stop_signal = given[0]
            self._signals.adopt(given[0])

    def _abandoned(self) -> Abandoned:
        self.has_abandoned = True
        return Abandoned(lambda: None)


def _sum_of_some(params: NDArray[np.float32], step: int) -> int:
    """CRC-32 of the part of the weights (P,) whose turn it is."""
    count = -(-len(params) // _LOOKS_FOR_ALL)
    first = step % _LOOKS_FOR_ALL * count
    return zlib.crc32(params[first : first + count].data)
