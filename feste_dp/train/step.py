"""One step as an algorithm: sum the gradient of its batch, clip, update. And where the step's time goes.

Owns the optimizer state and the schedule. Knows nothing of validation, files and screens (the trainer's) nor
of processes and messages (the coordinator's).
"""

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from feste_dp.checkpoint.format import PARAMS
from feste_dp.config.schema import Config
from feste_dp.data.tokens import TokenData
from feste_dp.machine.cpus import usable_cpus
from feste_dp.model.parameters import decayed_count
from feste_dp.optim.clipping import clip_factor, gradient_norm
from feste_dp.optim.optimizer import FloatArray, optimizer_class
from feste_dp.optim.schedule import learning_rate
from feste_dp.run.step_times import StepTimes
from feste_dp.runtime.faults import NO_FAULTS, Faults
from feste_dp.runtime.results import Gradient, mean_loss
from feste_dp.runtime.tracing import Recorder
from feste_dp.train.nonfinite import (
    MAX_SKIPPED_IN_A_ROW,
    NonFiniteError,
    all_finite,
    explain_own,
    explain_sum,
    first_bad_tensor,
    is_usable,
)
from feste_dp.train.signals import Abandoned
from feste_dp.train.source import Exchange, GradientSource


@dataclass(frozen=True)
class StepResult:
    """What a step did to the weights; skipped says why they are as before, where they are."""

    train_loss: float
    grad_norm: float
    learning_rate: float
    times: StepTimes
    skipped: str | None = None


class Stepper:
    """The optimizer's state beside the weights of a source of gradients, and the step on both."""

    def __init__(
        self,
        config: Config,
        data: TokenData,
        source: GradientSource,
        exchange: Exchange | None = None,
        computing: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
        faults: Faults = NO_FAULTS,
        recorder: Recorder | None = None,
    ) -> None:
        """exchange sums over machines, where there are several. computing() is entered while a gradient is
        computed: an exception may be raised in it at any time, which leaves the weights as before."""
        self._config, self._data, self._computing = config, data, computing
        self._source, self._arena, self._exchange = source, source.arena, exchange
        self._faults, self._recorder = faults, recorder
        self._optimizer = optimizer_class(config.optim)(
            len(self._arena.params), decayed_count(config.model), config.optim, usable_cpus()
        )
        self.skipped_steps = self.skipped_in_a_row = 0
        self.whole_after: int | None = 0
        """The step whose state arrays and counts hold; None in the midst of an update."""

    @property
    def arrays(self) -> dict[str, FloatArray]:
        """All that a step changes: the weights, and the optimizer's state by its names."""
        return {PARAMS: self._arena.params, **self._optimizer.state}

    def clear(self) -> None:
        """The optimizer's state before the first step."""
        for values in self._optimizer.state.values():
            values.fill(0)

    def close(self) -> None:
        self._optimizer.close()

    def step(self, number: int) -> StepResult:
        """One update of the shared weights. Steps count from 1. Raises NonFiniteError when the gradient is
        not finite and the config says stop, or too many were skipped."""
        config, started = self._config, time.perf_counter()
        gradient, own_losses = self._gradient(number)
        reduced = time.perf_counter()
        self._faults.at("update", number)
        loss = mean_loss(gradient.shard_losses, config.tokens_per_step)
        norm = gradient_norm(self._arena.norms)
        lr = learning_rate(
            number,
            lr=config.optim.lr,
            min_lr=config.optim.min_lr,
            warmup_steps=config.optim.warmup_steps,
            steps=config.train.steps,
            kind=config.optim.schedule,
        )
        skipped = None
        if is_usable(loss, norm, config.optim.clip_norm):
            clip = clip_factor(norm, config.optim.clip_norm)
            updates = number - self.skipped_steps
            self.whole_after = None
            finite = self._optimizer.update(self._arena.params, self._arena.grad, updates, lr, clip)
            self.skipped_in_a_row = 0
            if not finite:
                self._check_weights(number)
        else:
            skipped = self._explain(number, own_losses)
            self._skip(number, skipped)
        self.whole_after = number
        finished = time.perf_counter()
        self._faults.at("updated", number)
        if self._recorder is not None:
            phases = {f"step {number}": (started, finished), "update": (reduced, finished)}
            if gradient.node_seconds:
                met = reduced - gradient.exchange_seconds
                phases |= {"wait for nodes": (met - gradient.node_wait, met), "exchange": (met, reduced)}
            self._recorder.phases(number, phases)
        times = StepTimes(
            total=finished - started,
            worker_compute=gradient.worker_seconds,
            worker_reduce=gradient.worker_reduce_seconds,
            update=finished - reduced,
            worker_shards=gradient.worker_shards,
            node_seconds=gradient.node_seconds,
            node_wait=gradient.node_wait,
            exchange=gradient.exchange_seconds,
        )
        return StepResult(loss, norm, lr, times, skipped)

    def _gradient(self, number: int) -> tuple[Gradient, list[float]]:
        """The gradient of the whole batch, and the losses of this machine's own shards."""
        try:
            with self._computing():
                own = self._source.gradient(number)
        except Abandoned:
            if self._exchange is not None:
                self._exchange.give_up(number, self._arena)
            raise
        if self._exchange is None:
            return own, own.shard_losses
        # all machines finish an exchange or none does: here nothing may be given up
        return self._exchange.all_reduce(number, own, self._arena), own.shard_losses

    def _explain(self, number: int, own_losses: list[float]) -> str:
        """Why a gradient cannot be used."""
        if self._exchange is None:
            with self._computing():
                bad = explain_own(self._config, self._data, self._source, number, own_losses)
        else:
            bad = self._exchange.first_said(
                explain_own(self._config, self._data, self._source, number, own_losses)
            )
        return bad or explain_sum(self._arena.grad)

    def check_state(self, number: int) -> None:
        """Raises NonFiniteError where an array holds a NaN or an infinity after this step."""
        for what, values in self._optimizer.state.items():
            if not all_finite(values):
                tensor = first_bad_tensor(values, self._config.model)
                raise NonFiniteError(
                    f"step {number}: the optimizer's {what} holds a NaN or infinity for {tensor}, though no "
                    "gradient did: suspect this machine's memory; nothing of it is saved",
                    number,
                )
        self._check_weights(number)

    def _check_weights(self, number: int) -> None:
        if not all_finite(self._arena.params):
            tensor = first_bad_tensor(self._arena.params, self._config.model)
            raise NonFiniteError(
                f"step {number}: the update leaves a NaN or infinity in the weights of {tensor}, though the "
                "gradient is finite; nothing of it is saved; lower optim.lr or optim.weight_decay",
                number,
            )

    def _skip(self, number: int, culprit: str) -> None:
        """Count a step without an update. Raises NonFiniteError where the config says stop, or after too many
        of them."""
        kept = f"the weights are those of step {number - 1 - self.skipped_in_a_row}"
        if self._config.run.on_nonfinite == "stop":
            raise NonFiniteError(
                f"step {number}: {culprit}; {kept}; "
                "lower optim.lr, or set run.on_nonfinite to skip such steps",
                number,
            )
        if self.skipped_in_a_row + 1 >= MAX_SKIPPED_IN_A_ROW:
            raise NonFiniteError(
                f"step {number}: {culprit}; {kept}, for this is the {MAX_SKIPPED_IN_A_ROW}th step in "
                "succession to be skipped; lower optim.lr",
                number,
            )
        self.skipped_steps += 1
        self.skipped_in_a_row += 1
