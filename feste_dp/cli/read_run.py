"""feste-dp evaluate: how good a trained model is."""

import os
from dataclasses import asdict
from pathlib import Path

import click

from feste_dp.cache import cache_root
from feste_dp.cli.arguments import CHECKPOINT, RUN, WORKERS, PathType
from feste_dp.cli.compiling import compile_with_notice
from feste_dp.config.worker_counts import refuse_workers_of_run
from feste_dp.json_text import json_text
from feste_dp.run.screen import printable
from feste_dp.run.trained_model import evaluate_model, evaluation_data, load_trained_model


@click.command()
@RUN
@click.option("--data", "data_directory", type=PathType(), help="Other token data, of the same tokenizer.")
@click.option("--workers", type=WORKERS, metavar="N", help="Worker processes; default: one per usable core.")
@CHECKPOINT
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def evaluate(
    run: Path, data_directory: Path | None, workers: int | None, which: str | None, as_json: bool
) -> int:
    """Loss and perplexity of a checkpoint on the validation text, to the last whole shard of it.

    \b
    Example:
      feste-dp evaluate data/runs/tiny-20260131T120000Z --checkpoint latest
    """
    model = load_trained_model(run, which)
    if workers is not None and workers > model.config.train.shards:
        raise refuse_workers_of_run(workers, model.config.train)
    data, moved = evaluation_data(model, data_directory, cache_root(os.environ))
    if moved is not None:
        click.echo(printable(moved), err=True)
    compile_with_notice()
    result = evaluate_model(model, data, workers)
    if as_json:
        click.echo(json_text(asdict(result), indent=2))
    else:
        click.echo(
            f"step {result.step}: loss {result.loss:.4f}, perplexity {result.perplexity:.2f}, "
            f"{result.bits_per_byte:.3f} bits a byte, over {result.tokens:,} tokens"
        )
    return 0
