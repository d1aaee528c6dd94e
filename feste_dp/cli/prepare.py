"""feste-dp prepare."""

from pathlib import Path

import click

from feste_dp.data.corpus import read_texts
from feste_dp.data.preparation import prepare_token_data


@click.command()
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@click.option("--vocab-size", required=True, type=int, help="Tokens in the vocabulary, at least 256.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="New directory for the token data."
)
@click.option(
    "--val-fraction", default=0.1, show_default=True, help="Share of the text held out, from its end."
)
def prepare(texts: tuple[str, ...], vocab_size: int, out: Path, val_fraction: float) -> int:
    """Train a byte-level BPE tokenizer on UTF-8 text files and write their tokens.

    Use the result with data.corpus in a config.
    """
    contents = read_texts(texts)
    data = prepare_token_data(list(zip(texts, contents, strict=True)), vocab_size, val_fraction, out)
    click.echo(
        f"{out}: {len(data.train):,} training tokens, {len(data.val):,} for validation, "
        f"vocabulary {data.vocab_size}, {data.train_bytes / max(1, len(data.train)):.2f} bytes a token"
    )
    click.echo(f"use it with:  --set data.corpus={out} --set model.vocab_size={data.vocab_size}")
    return 0
