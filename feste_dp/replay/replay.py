"""Computes a step of a run again, from the newest checkpoint before it, to find out why it went as it did.
Reads the run, even while it trains, and writes nothing.

The steps between checkpoint and step are taken in memory as the run took them. What the step gives must be
the bits that metrics.csv has of it, and the result says whether it is.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from feste_dp.checkpoint.format import Arrays, Manifest
from feste_dp.checkpoint.listing import step_directories
from feste_dp.checkpoint.loading import load_checkpoint, read_manifest
from feste_dp.config.loading import load_config
from feste_dp.config.schema import Config
from feste_dp.config.worker_counts import refuse_workers_of_run
from feste_dp.data.tokenizer import load_tokenizer
from feste_dp.errors import RunError, UsageError
from feste_dp.machine.cpus import default_workers
from feste_dp.optim.clipping import gradient_norm
from feste_dp.replay.step_facts import (
    SequenceFacts,
    TensorFacts,
    excerpt,
    sequence_facts,
    tensor_facts,
    worst,
)
from feste_dp.run.directory import RunDirectory, open_run_directory
from feste_dp.run.initial_weights import initial_weights, params_at_start
from feste_dp.run.metrics import MetricsRow, read_metrics
from feste_dp.run.saved_state import older_arithmetic
from feste_dp.runtime.coordinator import Coordinator
from feste_dp.runtime.results import mean_loss
from feste_dp.train.nonfinite import is_usable
from feste_dp.train.sequence_probe import SequenceProbe, compute_shard
from feste_dp.train.start import (
    Surroundings,
    check_layout,
    check_machine,
    prepare_for,
    start_workers,
)
from feste_dp.train.step import Stepper


@dataclass(frozen=True)
class Replay:
    """A replayed step, or one shard of it."""

    step: int
    shard: int | None
    from_step: int
    """The checkpoint that it was computed from; 0 is the start of the run."""
    loss: float
    grad_norm: float
    """Of the whole step, whatever the shard asked for."""
    recorded_loss: float | None
    recorded_grad_norm: float | None
    """What metrics.csv has; None where it has no row of the step, as of one that ended the run."""
    first_difference: int | None
    """The first step after the checkpoint whose numbers are not those of metrics.csv."""
    shard_loss: float | None
    """Mean over the shard asked for."""
    tensors: list[TensorFacts]
    """Gradients of the whole batch, or of the shard asked for."""
    sequences: list[SequenceFacts]
    worst_sequence: int
    worst_text: str
    """What stands before its hardest token."""
    worst_next: str
    """That token."""

    @property
    def matches(self) -> bool | None:
        """Whether this step is that of metrics.csv to the last digit; None where there is no row."""
        return None if self.recorded_loss is None else self.first_difference is None


def replay(path: Path, step: int, shard: int | None, workers: int | None, around: Surroundings) -> Replay:
    """Compute `step` of the run at `path` again. Raises UsageError, RunError."""
    run = open_run_directory(path)
    rows = {row.step: row for row in read_metrics(run.metrics)} if run.metrics.exists() else {}
    config = _config_of(run, step, rows)
    shards, size = config.train.shards, config.train.sequences_per_shard
    if shard is not None and shard >= shards:
        raise UsageError(f"{shard} is not a shard of the run; it has 0 to {shards - 1}", about="shard")
    if workers is not None and workers > shards:
        raise refuse_workers_of_run(workers, config.train)
    count = workers or default_workers(shards)
    check_machine(config, count, around)
    known = _any_manifest(run)
    found = prepare_for(config, run.path, known, around, [load_config(run.config, from_run=True).data.corpus])
    if found.moved is not None:
        around.record.warn(found.moved)
    data = found.data
    with (
        Coordinator(config, count, data.directory, around.environ) as coordinator,
        contextlib.closing(Stepper(config, data, coordinator, faults=coordinator.faults)) as stepper,
    ):
        arena = coordinator.arena
        manifest = _load_before(run, step, stepper.arrays, around)
        start = 0
        if manifest is None:
            arena.params[:] = params_at_start(config, initial_weights(config))
            stepper.clear()
        else:
            check_layout(manifest, config)
            if (line := older_arithmetic(manifest)) is not None:
                around.record.warn(line)
            start, stepper.skipped_steps = manifest.step, manifest.train.skipped_steps
            stepper.skipped_in_a_row = _skipped_in_a_row(rows, start, config)
        start_workers(coordinator, config, count, around)
        if start + 1 < step:
            around.progress.phase(f"steps {start + 1} to {step - 1} on the way, from step {start}")
        differences = []
        for number in range(start + 1, step):
            result = stepper.step(number)
            if _differs(rows.get(number), result.train_loss, result.grad_norm):
                differences.append(number)
        gradient = coordinator.gradient(step)
        norm = gradient_norm(arena.norms)
        row = rows.get(step)
        loss = mean_loss(gradient.shard_losses, config.tokens_per_step)
        if _differs(row, loss, norm):
            differences.append(step)
        scratch = arena.slots[0]  # no longer needed
        try:
            if shard is not None:
                compute_shard(config, data, arena.params, scratch, step, shard)
        except MemoryError:
            raise RunError("there is too little memory left to compute a single shard") from None
        tensors = tensor_facts(arena.grad if shard is None else scratch, arena.params, config.model)
        places = range(config.train.batch_size) if shard is None else range(shard * size, (shard + 1) * size)
        around.progress.phase(f"step {step}: each of its sequences alone")
        try:
            probe = SequenceProbe(config, data, arena.params, scratch)
        except MemoryError:
            raise RunError("there is too little memory left to compute single sequences") from None
        sequences = [sequence_facts(probe.compute(step, place), probe.gradient, size) for place in places]
    looked_at = worst(sequences)
    before, token = excerpt(looked_at, data, load_tokenizer(run.tokenizer))
    return Replay(
        step=step,
        shard=shard,
        from_step=start,
        loss=loss,
        grad_norm=norm,
        recorded_loss=row.train_loss if row else None,
        recorded_grad_norm=row.grad_norm if row else None,
        first_difference=differences[0] if differences else None,
        shard_loss=None if shard is None else gradient.shard_losses[shard] / (size * config.model.block_size),
        tensors=tensors,
        sequences=sequences,
        worst_sequence=looked_at.sequence,
        worst_text=before,
        worst_next=token,
    )


def _config_of(run: RunDirectory, step: int, rows: Mapping[int, MetricsRow]) -> Config:
    """The config under which the run took `step`: that of the first checkpoint from there on, else the
    present one. Raises UsageError when the run has not come so far.

    Steps that it skips on the way are skipped, whatever it does with such a step now.
    """
    config, steps = load_config(run.config, from_run=True), step_directories(run.checkpoints)
    done = max([0, *rows, *[number for number, _ in steps]])
    last = min(done + 1, config.train.steps)  # the step after the last may have ended the run
    if not 1 <= step <= last:
        raise UsageError(f"{step} is not a step that the run has tried; it has 1 to {last}", about="step")
    for number, directory in steps:
        if number >= step:
            with contextlib.suppress(
                UsageError, ValidationError
            ):  # damaged, or just removed by a run that goes on
                config = Config.model_validate(read_manifest(directory).config)
                break
    return config.model_copy(update={"run": config.run.model_copy(update={"on_nonfinite": "skip"})})


def _any_manifest(run: RunDirectory) -> Manifest | None:
    """The manifest of a checkpoint, for the hashes of the run's tokens; None where there is none."""
    for _, directory in reversed(step_directories(run.checkpoints)):
        with contextlib.suppress(UsageError):
            return read_manifest(directory)
    return None


def _load_before(run: RunDirectory, step: int, into: Arrays, around: Surroundings) -> Manifest | None:
    """Load the newest whole checkpoint before `step`; None when there is none."""
    for number, directory in reversed(step_directories(run.checkpoints)):
        if number < step:
            try:
                return load_checkpoint(directory, out=into)[0]
            except UsageError as error:
                if directory.exists():  # else a run that goes on has just removed it
                    around.record.warn(str(error))
    return None


def _skipped_in_a_row(rows: Mapping[int, MetricsRow], step: int, config: Config) -> int:
    count = 0
    while step - count in rows and not _usable(rows[step - count], config):
        count += 1
    return count


def _usable(row: MetricsRow, config: Config) -> bool:
    return is_usable(row.train_loss, row.grad_norm, config.optim.clip_norm)


def _differs(row: MetricsRow | None, loss: float, norm: float) -> bool:
    """Whether a row of metrics.csv has other bits; NaN equals NaN."""
    return row is not None and (repr(row.train_loss), repr(row.grad_norm)) != (repr(loss), repr(norm))
