"""One step as an algorithm: draw the batch, sum its gradient, clip, update. And where the step's time goes.

Owns the optimizer state and the schedule. Knows nothing of validation, files and screens (the trainer's) nor
of processes and messages (the coordinator's).
"""

import math
import time
from dataclasses import dataclass

import numpy as np

from feste_dp.config.schema import Config
from feste_dp.data.order import train_offsets
from feste_dp.data.tokens import TokenData
from feste_dp.errors import RunError
from feste_dp.model.parameters import decayed_count, layout
from feste_dp.optim.adamw import AdamW, FloatArray, clip_factor, gradient_norm
from feste_dp.optim.schedule import learning_rate
from feste_dp.runtime.coordinator import Coordinator
from feste_dp.runtime.cpus import usable_cpus

PHASES = ("compute", "wait", "reduce", "update", "control")


@dataclass(frozen=True)
class StepTimes:
    """Seconds of one step, and how they fall to five phases that sum up to `total`."""

    total: float
    worker_compute: list[float]
    """Each worker's own time in its shards."""
    worker_reduce: list[float]
    """Each worker's own time in its stripe."""
    update: float
    """Norm, clip factor, learning rate and AdamW."""

    @property
    def compute(self) -> float:
        """Mean of the compute times of the workers that had any."""
        worked = [seconds for seconds in self.worker_compute if seconds > 0]
        return math.fsum(worked) / len(worked) if worked else 0.0

    @property
    def wait(self) -> float:
        """What the slowest worker took longer than the mean."""
        return max(self.worker_compute) - self.compute

    @property
    def reduce(self) -> float:
        """The slowest worker's reduce time."""
        return max(self.worker_reduce)

    @property
    def control(self) -> float:
        """All the rest: messages, waking up, drawing the batch, Python."""
        return self.total - self.compute - self.wait - self.reduce - self.update


@dataclass(frozen=True)
class StepResult:
    """What a step did to the weights; skipped says why they are as before, where they are."""

    train_loss: float
    grad_norm: float
    learning_rate: float
    times: StepTimes
    skipped: str | None = None


class Stepper:
    """The optimizer state beside the coordinator's shared weights, and the step on both."""

    def __init__(self, config: Config, data: TokenData, coordinator: Coordinator) -> None:
        self._config, self._coordinator, self._arena = config, coordinator, coordinator.arena
        self._train_tokens = len(data.train)
        self._optimizer = AdamW(
            len(self._arena.params), decayed_count(config.model), config.optim, usable_cpus()
        )
        self.skipped_steps = 0

    @property
    def m(self) -> FloatArray:
        return self._optimizer.m

    @property
    def v(self) -> FloatArray:
        return self._optimizer.v

    def close(self) -> None:
        self._optimizer.close()

    def step(self, number: int) -> StepResult:
        """One update of the shared weights. Steps count from 1. Raises RunError when the gradient is not
        finite and the config says stop; the weights are then as before."""
        config, started = self._config, time.perf_counter()
        offsets = train_offsets(
            config.train.seed, number, config.train.batch_size, self._train_tokens, config.model.block_size
        )
        # compute and reduce; an exchange between machines would stand between this line and the next
        gradient = self._coordinator.gradient(number, offsets)
        reduced = time.perf_counter()
        self._coordinator.faults.at("update", number)
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
        if math.isfinite(norm) and math.isfinite(gradient.loss):
            clip = clip_factor(norm, config.optim.clip_norm)
            updates = number - self.skipped_steps
            self._optimizer.update(self._arena.params, self._arena.grad, updates, lr, clip)
        else:
            skipped = self._skip(number, gradient.shard_losses)
        finished = time.perf_counter()
        self._coordinator.faults.at("updated", number)
        times = StepTimes(
            total=finished - started,
            worker_compute=gradient.worker_seconds,
            worker_reduce=gradient.worker_reduce_seconds,
            update=finished - reduced,
        )
        return StepResult(gradient.loss, norm, lr, times, skipped)

    def _skip(self, number: int, shard_losses: list[float]) -> str:
        """Count a step without an update and say why. Raises RunError where the config says stop."""
        culprit = self._first_nonfinite(shard_losses)
        if self._config.run.on_nonfinite == "stop":
            raise RunError(
                f"step {number}: {culprit}; the weights are those of step {number - 1}; "
                "lower optim.lr, or set run.on_nonfinite to skip such steps"
            )
        self.skipped_steps += 1
        return culprit

    def _first_nonfinite(self, shard_losses: list[float]) -> str:
        """Names the first shard whose loss or gradient slot is not finite, and its first bad tensor."""
        for shard, loss in enumerate(shard_losses):
            slot = self._arena.slots[shard]
            for tensor in layout(self._config.model):
                if not np.isfinite(slot[tensor.start : tensor.stop]).all():
                    return f"shard {shard} has a NaN or infinity in the gradient of {tensor.name}"
            if not math.isfinite(loss):
                return f"shard {shard} has the loss {loss}"
        return "the summed gradient overflows, though every shard's is finite"
