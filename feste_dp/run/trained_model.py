"""A trained model read back from a run, and measured."""

import contextlib
import math
import os
from dataclasses import dataclass
from pathlib import Path

from feste_dp.checkpoint.format import PARAMS, Arrays, Manifest, step_directory_name, step_of
from feste_dp.checkpoint.listing import ATTEMPTS, newest_whole, step_directories
from feste_dp.checkpoint.loading import load_checkpoint, read_manifest
from feste_dp.checkpoint.pointers import best_step
from feste_dp.config.expectations import either
from feste_dp.config.loading import load_config
from feste_dp.config.schema import Config
from feste_dp.data.order import Spacing
from feste_dp.data.tokenizer import ByteTokenizer
from feste_dp.data.tokens import TokenData, open_token_data
from feste_dp.errors import RunError, UsageError
from feste_dp.machine.cpus import default_workers
from feste_dp.run.directory import open_run_directory
from feste_dp.run.metrics import perplexity
from feste_dp.run.saved_state import check_memory_for, saved_config, saved_tokenizer
from feste_dp.run.token_data import find_tokens
from feste_dp.runtime.coordinator import Coordinator


@dataclass(frozen=True)
class TrainedModel:
    """Weights, config and tokenizer of one checkpoint."""

    path: Path
    manifest: Manifest
    arrays: Arrays
    config: Config
    tokenizer: ByteTokenizer


@dataclass(frozen=True)
class Evaluation:
    """Loss of a checkpoint in nats per token; bits_per_byte compares models with other tokenizers."""

    step: int
    loss: float
    perplexity: float
    bits_per_byte: float
    tokens: int


def load_trained_model(path: Path, which: str | None) -> TrainedModel:
    """A checkpoint of the run at `path`: "best", "latest" or a step; None is the best, or the latest where
    the run has not been validated. Raises UsageError."""
    run = open_run_directory(path)
    for attempt in range(1, ATTEMPTS + 1):
        chosen = _choose(run.checkpoints, which)
        try:
            manifest = read_manifest(chosen)
            config = saved_config(manifest, chosen)
            check_memory_for(manifest, chosen)
            manifest, arrays = load_checkpoint(chosen)
        except UsageError as error:
            if not chosen.exists() and attempt < ATTEMPTS:
                continue  # the run goes on: it has a newer one by now, and has removed this
            raise UsageError(f"{error}{_another(run.checkpoints)}") from None
        return TrainedModel(
            chosen, manifest, arrays, config, saved_tokenizer(run.tokenizer, manifest, config)
        )
    raise AssertionError("unreachable")


def _choose(checkpoints: Path, which: str | None) -> Path:
    best = best_step(checkpoints, [step for step, _ in step_directories(checkpoints)])
    if which == "latest" or (which is None and best is None):
        return newest_whole(checkpoints)[0]
    if which in ("best", None):
        if best is None:
            raise UsageError(f"{checkpoints}: no checkpoint is the best one: the run has not been validated")
        return checkpoints / step_directory_name(best)
    if which is not None and which.isascii() and which.isdigit() and int(which) < 10**12:
        steps = [step for step, _ in step_directories(checkpoints)]
        if int(which) not in steps:
            there = f"there are {either(steps)}" if steps else "there is none at all"
            raise UsageError(f"{which}: the run has no checkpoint of that step; {there}", about="checkpoint")
        return checkpoints / step_directory_name(int(which))
    raise UsageError(f"{which}: give best, latest or the number of a step", about="checkpoint")


def _another(checkpoints: Path) -> str:
    """Which checkpoint to take instead of a damaged one, where there is any."""
    try:
        whole, _ = newest_whole(checkpoints)
    except UsageError:
        return ""
    return f"; the newest whole one: checkpoint {step_of(whole.name)}"


def evaluate_model(model: TrainedModel, data: TokenData, workers: int | None) -> Evaluation:
    """Loss over the whole validation part of the data, which `evaluation_data` gives.

    The text is cut into sequences of block_size; what is left over, less than a shard's worth, is not read.
    Raises RunError where the loss is no finite number.
    """
    config = model.config
    per_unit, block = config.train.sequences_per_shard, config.model.block_size
    sequences = (len(data.val) - 1) // block // per_unit * per_unit
    if sequences == 0:
        raise UsageError(
            f"the validation text has {len(data.val)} tokens, {per_unit * block + 1} are needed for one "
            "shard's worth of sequences: give more text"
        )
    count = workers or default_workers(config.train.shards)
    with Coordinator(config, count, data.directory, os.environ) as coordinator:
        coordinator.arena.params[:] = model.arrays[PARAMS]
        coordinator.start()
        loss = coordinator.validation_loss(model.manifest.step, sequences, Spacing(block, gaps=1))
    if not math.isfinite(loss):
        raise RunError(
            f"the loss of {model.path.name} on this text is {loss}: its weights are of no use; "
            "take another checkpoint"
        )
    bits_per_byte = loss / math.log(2) * len(data.val) / max(1, data.val_bytes)
    return Evaluation(model.manifest.step, loss, perplexity(loss), bits_per_byte, sequences * block)


def evaluation_data(
    model: TrainedModel, directory: Path | None, cache_root: Path
) -> tuple[TokenData, str | None]:
    """The run's own token data, or that in `directory`; and one line where the run's text lies elsewhere now.

    Raises UsageError when the tokenizer is another.
    """
    if directory is None:
        run, others = model.path.parent.parent, []
        with contextlib.suppress(UsageError):  # where the text lies since a later resume
            others = [load_config(run / "config.yaml", from_run=True).data.corpus]
        found = find_tokens(model.config, run, model.manifest, cache_root, others)
        return found.data, found.moved
    data = open_token_data(directory, verify=True)
    if data.tokenizer_sha256 != model.manifest.tokenizer_sha256:
        raise UsageError(
            f"the tokens in {data.directory} were made by another tokenizer than the run's: "
            "evaluate on data prepared with the same tokenizer"
        )
    return data, None
