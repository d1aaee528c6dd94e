"""What a run says of itself at its beginning and at its end."""

from collections.abc import Sequence

from feste_dp.config.schema import Config
from feste_dp.data.tokens import TokenData
from feste_dp.model.parameters import parameter_count
from feste_dp.nodes.team import NodeFacts, node_lines, team_words
from feste_dp.plan.network import part_of
from feste_dp.plan.step_time import LAUNCH_S, estimated_step, run_seconds
from feste_dp.run.directory import RunDirectory
from feste_dp.run.held import HeldRun
from feste_dp.run.metrics import with_perplexity
from feste_dp.run.screen import format_duration
from feste_dp.train.trainer import Trainer
from feste_dp.wording import command, counted


def announcement(
    run: RunDirectory,
    config: Config,
    data: TokenData,
    workers: int,
    first_step: int,
    about: str,
    nodes: Sequence[NodeFacts] = (),
) -> list[str]:
    """What is about to be trained; `about` is how long it may take."""
    model, train = config.model, config.train
    head = "tied" if model.tie_embeddings else "untied"
    to_go = ""
    if first_step:
        to_go = f", {train.steps - first_step:,} of them to go"
    lines = [
        f"model        {parameter_count(model):,} parameters ({counted(model.n_layer, 'layer')}, "
        f"{counted(model.n_head, 'head')}, "
        f"{model.n_embd} channels, {head} head)",
        f"data         {len(data.train):,} training tokens, {len(data.val):,} for validation, "
        f"vocabulary {model.vocab_size}",
        f"step         {config.tokens_per_step:,} tokens ({counted(train.batch_size, 'sequence')} of "
        f"{model.block_size}) in {counted(train.shards, 'shard')} on {team_words(nodes, workers)}",
        *node_lines(nodes, 13),
        f"run          {counted(train.steps, 'step')}, {config.total_tokens:,} tokens{to_go}{about}",
        f"directory    {run.path}",
    ]
    if first_step:
        lines.append(f"resuming     after step {first_step}")
    return lines


def time_left(config: Config, workers: int, first_step: int, shards: int | None = None) -> str:
    """How long the steps after first_step may take, where so many shards are computed here; measures for a
    moment."""
    left = (config.train.steps - first_step) / config.train.steps
    part = config if shards is None else part_of(config, shards)
    seconds = max(1.0, run_seconds(config, estimated_step(part, workers, LAUNCH_S)) * left)
    where = "on this machine" if shards is None else "without the exchange between nodes"
    return f", about {format_duration(seconds)} {where}"


def already_finished(run: RunDirectory, trainer: Trainer, config: Config) -> str:
    """Why there is nothing to do, and what to change where there should be."""
    if trainer.step >= config.train.steps:
        return (
            f"nothing to do: {run.path} has done all its {trainer.step} steps; "
            f"for more: {command('resume', run.path, '--set', f'train.steps={2 * trainer.step}')}"
        )
    return (
        f"nothing to do: {run.path} stopped early at step {trainer.step}; "
        f"to go on all the same: {command('resume', run.path, '--set', 'eval.patience=0')}"
    )


def ending(held: HeldRun, trainer: Trainer, config: Config, stopped: bool) -> str:
    """The result of a run that did not fail, and what to do with it."""
    where = f"saved in {held.path}"
    if not trainer.step:
        where = "nothing to save yet"
    elif not trainer.saved:
        where = f"which is NOT saved; what was saved is in {held.path}"
    if held.is_gone:
        where = f"which is NOT saved: {held.path} was removed"
    best = trainer.early_stop
    lines = []
    if best.best_loss is not None:
        lines.append(f"best validation loss {with_perplexity(best.best_loss)} at step {best.best_step}")
    if stopped:
        lines.append(f"stopped after step {trainer.step} of {config.train.steps}, {where}")
    else:
        lines.append(f"finished after step {trainer.step}, {where}")
    if stopped and not held.is_gone:
        lines.append(f"to go on:    {command('resume', held.path)}")
    elif not held.is_gone:
        prompt = config.sample.prompt.rstrip() or config.sample.prompt
        lines.append(f"to write:    {command('generate', held.path, '--prompt', prompt)}")
    if trainer.degraded and not held.is_gone:
        lines.append(f"something could not be saved: see the warnings in {held.path / held.inside.log.name}")
    return "\n".join(lines)
