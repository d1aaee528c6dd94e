"""feste-dp generate and feste-dp evaluate: what a trained run can do."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import click

from feste_dp.cache import cache_root
from feste_dp.train.progress import printable
from feste_dp.train.trained_model import evaluate_model, load_trained_model, write_text

_RUN = click.argument("run", type=click.Path(path_type=Path))
_CHECKPOINT = click.option(
    "--checkpoint", "which", help="best, latest or a step; default: the best one, where there is one."
)


@click.command()
@_RUN
@click.option("--prompt", required=True, help="Text to continue.")
@click.option(
    "--tokens", default=200, show_default=True, type=click.IntRange(1, 10**6), help="Tokens to write."
)
@click.option(
    "--temperature",
    default=0.8,
    show_default=True,
    type=click.FloatRange(0, 100),
    help="0 = the likeliest token.",
)
@click.option("--top-k", type=click.IntRange(1), help="Draw among the K likeliest tokens only.")
@click.option(
    "--seed",
    default=1,
    show_default=True,
    type=click.IntRange(0, 2**63 - 1),
    help="Another seed, another text.",
)
@_CHECKPOINT
def generate(
    run: Path, prompt: str, tokens: int, temperature: float, top_k: int | None, seed: int, which: str | None
) -> int:
    """Write text with a trained model."""
    model = load_trained_model(run, which)
    click.echo(printable(prompt), nl=False)
    for piece in write_text(model, prompt, tokens, temperature=temperature, top_k=top_k, seed=seed):
        click.echo(printable(piece), nl=False)
    click.echo()
    return 0


@click.command()
@_RUN
@click.option(
    "--data", "data_directory", type=click.Path(path_type=Path), help="Other token data, same tokenizer."
)
@click.option("--workers", type=click.IntRange(1), help="Worker processes; default: one a usable CPU.")
@_CHECKPOINT
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def evaluate(
    run: Path, data_directory: Path | None, workers: int | None, which: str | None, as_json: bool
) -> int:
    """Loss and perplexity of a checkpoint on the whole validation text."""
    model = load_trained_model(run, which)
    result = evaluate_model(model, data_directory, workers, cache_root(os.environ))
    if as_json:
        click.echo(json.dumps(asdict(result), indent=2))
    else:
        click.echo(
            f"step {result.step}: loss {result.loss:.4f}, perplexity {result.perplexity:.2f}, "
            f"{result.bits_per_byte:.3f} bits a byte, over {result.tokens:,} tokens"
        )
    return 0
