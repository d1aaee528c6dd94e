"""feste-dp prepare."""

from pathlib import Path

import click

from feste_dp.cli.arguments import Number, PathType, WholeNumber, said_as
from feste_dp.data.corpus import read_corpus
from feste_dp.data.preparation import holds_token_data, prepare_token_data
from feste_dp.data.tokenizer import BYTE_TOKENS
from feste_dp.errors import UsageError
from feste_dp.machine.limits import available_memory
from feste_dp.run.screen import printable
from feste_dp.wording import quoted


@click.command()
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...", type=PathType())
@click.option(
    "--vocab-size",
    required=True,
    type=WholeNumber(BYTE_TOKENS, 2**32),
    metavar="V",
    help="Tokens in the vocabulary: the 256 bytes and as many merges as make it up.",
)
@click.option("--out", required=True, type=PathType(), help="New or empty directory for the token data.")
@click.option(
    "--val-fraction",
    default=0.1,
    show_default=True,
    type=Number(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    help="Share of the text, in characters, held out for validation, from its end.",
)
def prepare(texts: tuple[Path, ...], vocab_size: int, out: Path, val_fraction: float) -> int:
    """Train a byte-level BPE tokenizer on UTF-8 text and write its tokens.

    TEXT is a file, or a folder whose .txt files are taken, with those of all folders in it.

    \b
    Example:
      feste-dp prepare book.txt more.txt --vocab-size 1024 --out data/books
      feste-dp launch --config small --set data.corpus=data/books
    """
    places = [str(path) for path in texts]
    for place in places:
        if holds_token_data(place):
            raise UsageError(f"{place} holds token data already: use it with --set data.corpus={place}")

    def tell(line: str) -> None:
        click.echo(printable(line))

    with said_as({"model.vocab_size": "vocab_size", "data.corpus": ""}):
        corpus = read_corpus(places)
        if corpus.note is not None:
            tell(corpus.note)
        data = prepare_token_data(corpus.texts, vocab_size, val_fraction, out, available_memory(), tell)
    click.echo(
        f"{printable(str(out))}: {len(data.train):,} training tokens, {len(data.val):,} for validation, "
        f"vocabulary {data.vocab_size}, {data.train_bytes / max(1, len(data.train)):.2f} bytes a token"
    )
    settings = (f"data.corpus={out}", f"model.vocab_size={data.vocab_size}")
    click.echo(f"use it with:  {' '.join(f'--set {quoted(each)}' for each in settings)}")
    return 0
