"""feste-dp generate and feste-dp evaluate: what a trained run can do."""

import itertools
import os
from dataclasses import asdict
from pathlib import Path

import click

from feste_dp.cache import cache_root
from feste_dp.cli.arguments import CHECKPOINT, RUN, WORKERS, Number, PathType, WholeNumber
from feste_dp.config.worker_counts import refuse_workers_of_run
from feste_dp.interruption import RaisedBySignal, asked_to_stop
from feste_dp.json_text import json_text
from feste_dp.output import write_if_room
from feste_dp.run.screen import printable
from feste_dp.run.trained_model import evaluate_model, evaluation_data, load_trained_model, write_text
from feste_dp.runtime.warmup import COMPILING, cache_warnings, compile_kernels


def _check_prompt(context: click.Context, parameter: click.Parameter, prompt: str) -> str:
    """Refuses what no tokenizer can read, before anything is loaded."""
    if not prompt:
        raise click.BadParameter("is empty; give at least one character to continue")
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise click.BadParameter("is not UTF-8") from None
    return prompt


@click.command()
@RUN
@click.option("--prompt", required=True, callback=_check_prompt, help="Text to continue.")
@click.option(
    "--tokens",
    default=200,
    show_default=True,
    type=WholeNumber(1, 10**6),
    metavar="N",
    help="Tokens to write.",
)
@click.option(
    "--temperature",
    default=0.8,
    show_default=True,
    type=Number(0, 100),
    metavar="T",
    help="0 = always the likeliest token; higher is wilder.",
)
@click.option(
    "--top-k", type=WholeNumber(1, 2**32), metavar="K", help="Draw among the K likeliest tokens only."
)
@click.option(
    "--seed",
    default=1,
    show_default=True,
    type=WholeNumber(0, 2**63 - 1),
    metavar="S",
    help="Another seed, another text; the same seed, the same text.",
)
@CHECKPOINT
def generate(
    run: Path, prompt: str, tokens: int, temperature: float, top_k: int | None, seed: int, which: str | None
) -> int:
    """Write text with a trained model: the prompt and what the model makes of it.

    A model of plays writes better after a line end: $'HAMLET.\\n' gives one in bash.

    \b
    Examples:
      feste-dp generate data/runs/tiny-20260131T120000Z --prompt 'HAMLET.'
      feste-dp generate data/runs/tiny-20260131T120000Z --prompt 'To be' --tokens 50 --seed 2
    """
    model = load_trained_model(run, which)
    _compile()
    last = prompt
    pieces = write_text(model, prompt, tokens, temperature=temperature, top_k=top_k, seed=seed)
    first = next(pieces)  # a model that can write nothing is found before anything is printed
    click.echo(printable(prompt), nl=False)
    try:
        for piece in itertools.chain([first], pieces):
            click.echo(printable(piece), nl=False)
            last = piece or last
    except RaisedBySignal:
        write_if_room(1, b"\n")
        raise
    finally:
        if not asked_to_stop() and not last.endswith("\n"):
            click.echo()
    return 0


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
    _compile()
    result = evaluate_model(model, data, workers)
    if as_json:
        click.echo(json_text(asdict(result), indent=2))
    else:
        click.echo(
            f"step {result.step}: loss {result.loss:.4f}, perplexity {result.perplexity:.2f}, "
            f"{result.bits_per_byte:.3f} bits a byte, over {result.tokens:,} tokens"
        )
    return 0


def _compile() -> None:
    """Compile the kernels where that has not been done; says so beside the output, not in it."""
    announced = False

    def on_wait(seconds: float) -> None:
        nonlocal announced
        if not announced:
            click.echo(COMPILING, err=True)
            announced = True

    for line in cache_warnings(os.environ):
        click.echo(f"warning: {line}", err=True)
    compile_kernels(os.environ, on_wait)
