"""feste-dp replay: a step of a run again, to find out why."""

import math
import os
import sys
from dataclasses import asdict
from pathlib import Path

import click

from feste_dp.cache import cache_root
from feste_dp.cli.arguments import RUN, WORKERS, WholeNumber
from feste_dp.config.schema import MAX_SHARDS
from feste_dp.json_text import json_text
from feste_dp.replay.replay import Replay, replay
from feste_dp.replay.step_facts import SequenceFacts, TensorFacts
from feste_dp.run.metrics import with_perplexity
from feste_dp.run.screen import PlainProgress, printable
from feste_dp.train.signals import StopSignals
from feste_dp.train.start import Surroundings

_SEQUENCES_SHOWN = 16


@click.command("replay")
@RUN
@click.option(
    "--step",
    required=True,
    type=WholeNumber(1, 10**9),
    metavar="N",
    help="Step to compute again; one more than the run has done is the step that ended it.",
)
@click.option(
    "--shard",
    type=WholeNumber(0, MAX_SHARDS - 1),
    metavar="S",
    help="Show the gradient and the sequences of this shard only.",
)
@click.option("--workers", type=WORKERS, metavar="N", help="Worker processes; default: one per usable CPU.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with every sequence.")
def replay_command(run: Path, step: int, shard: int | None, workers: int | None, as_json: bool) -> int:
    """Compute one step of a run again and show what it is made of.

    Starts from the newest checkpoint before the step, takes the steps between in memory, and writes nothing
    to the run, which may be training meanwhile. Shows the gradient of every tensor, the loss of every
    sequence, and the text that costs most. Exit status 1 when loss or gradient norm are not those of
    metrics.csv to the last digit.

    \b
    Examples:
      feste-dp replay data/runs/tiny-20260131T120000Z --step 417
      feste-dp replay data/runs/tiny-20260131T120000Z --step 417 --shard 3 --json
    """
    with PlainProgress(sys.stderr, sys.stderr) as progress, StopSignals() as signals:
        around = Surroundings(os.environ, cache_root(os.environ), progress, signals)
        result = replay(run, step, shard, workers, around)
    if as_json:
        content = asdict(result) | {"matches": result.matches}
        click.echo(json_text(content, indent=2, nonfinite=repr))
    else:
        for line in _lines(result):
            click.echo(line)
    return 1 if result.matches is False else 0


def _lines(result: Replay) -> list[str]:
    origin = f"the checkpoint of step {result.from_step}" if result.from_step else "the start of the run"
    lines = [
        f"step {result.step}, computed again from {origin}",
        f"loss {with_perplexity(result.loss)}, gradient norm {result.grad_norm:.6g}: {_verdict(result)}",
    ]
    if result.shard is not None and result.shard_loss is not None:
        lines.append(f"shard {result.shard} alone: loss {with_perplexity(result.shard_loss)}")
    whose = "the batch" if result.shard is None else f"shard {result.shard}"
    lines += ["", f"gradient of {whose}, weights before the update"]
    lines.append(f"{'tensor':<12}{'norm':>12}{'max abs':>12}{'not finite':>12}{'weight norm':>13}  most in")
    lines += map(_tensor_line, result.tensors)
    shown = result.sequences
    if len(shown) > _SEQUENCES_SHOWN:
        by_loss = sorted(shown, key=lambda facts: -math.inf if math.isnan(facts.loss) else -facts.loss)
        shown = by_loss[:_SEQUENCES_SHOWN]
        title = f"the {_SEQUENCES_SHOWN} sequences of the largest loss, of {len(result.sequences)}"
    else:
        title = "every sequence by itself"
    lines += ["", title]
    lines.append(f"{'sequence':>8}{'shard':>7}{'offset':>12}{'loss':>10}{'norm':>12}  hardest token")
    lines += map(_sequence_line, shown)
    lines += [
        "",
        f"sequence {result.worst_sequence}, up to its hardest token, which is {_shown(result.worst_next)}",
    ]
    lines += [f"    {line}" for line in printable(result.worst_text).split("\n")]
    return lines


def _verdict(result: Replay) -> str:
    if result.matches is None:
        return "metrics.csv has no row of this step to compare with"
    if result.matches:
        return "both as in metrics.csv, to the last digit"
    if result.first_difference != result.step:
        return (
            f"NOT the run's: step {result.first_difference} on the way differs from metrics.csv, which has "
            f"loss {result.recorded_loss!r} here"
        )
    return f"NOT the run's, which had loss {result.recorded_loss!r} and norm {result.recorded_grad_norm!r}"


def _tensor_line(facts: TensorFacts) -> str:
    most = ""
    if facts.layer_norms:
        most = f"  layer {facts.layer_norms.index(max(facts.layer_norms))}"
    return (
        f"{facts.name:<12}{facts.gradient_norm:>12.4g}{facts.gradient_max_abs:>12.4g}"
        f"{facts.gradient_nonfinite:>12,}{facts.weight_norm:>13.5g}{most}"
    )


def _sequence_line(facts: SequenceFacts) -> str:
    note = f"  not finite from {facts.nonfinite_from} on" if facts.nonfinite_from else ""
    return (
        f"{facts.sequence:>8}{facts.shard:>7}{facts.offset:>12,}{facts.loss:>10.4f}{facts.gradient_norm:>12.4g}"
        f"  {facts.hardest_token:,}: {facts.hardest_loss:.2f}{note}"
    )


def _shown(text: str) -> str:
    return repr(printable(text))
