"""feste-dp prepare."""

from pathlib import Path

import click

from feste_dp.cli.arguments import Number, PathType, WholeNumber, said_as
from feste_dp.data.corpus import Corpus, read_corpus
from feste_dp.data.preparation import Choices, holds_token_data, prepare_token_data
from feste_dp.data.tokenizer import BYTE_TOKENS
from feste_dp.data.tokenizer_folder import load_tokenizer_at
from feste_dp.errors import UsageError
from feste_dp.machine.limits import available_memory
from feste_dp.run.screen import printable
from feste_dp.wording import quoted

_VAL_FRACTION = 0.1


@click.command()
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...", type=PathType())
@click.option(
    "--vocab-size",
    type=WholeNumber(BYTE_TOKENS, 2**32),
    metavar="V",
    help="Train a tokenizer of so many tokens: the 256 bytes and as many merges as make it up.",
)
@click.option(
    "--tokenizer",
    "tokenizer_place",
    type=PathType(),
    metavar="FILE|DIR|RUN",
    help="Use this tokenizer: a tokenizer.json, or a run, token data or a Hugging Face directory.",
)
@click.option("--out", required=True, type=PathType(), help="New or empty directory for the token data.")
@click.option(
    "--end-of-text/--no-end-of-text",
    "end_of_text",
    default=None,
    help="Whether <|endoftext|> ends each document, which is a file. Default: with --tokenizer, where it has "
    "one. A tokenizer that is trained gets one only when asked.",
)
@click.option(
    "--val-fraction",
    type=Number(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    help="Share of the text, in characters, held out for validation.  [default: 0.1]",
)
@click.option(
    "--split",
    type=click.Choice(["text", "document"]),
    help="What is held out: the end of the text, or whole documents by chance.  [default: text]",
)
@click.option(
    "--val",
    "val_places",
    multiple=True,
    type=PathType(),
    metavar="FILE",
    help="Text held out for validation instead of a share of TEXT; may be given several times.",
)
def prepare(
    texts: tuple[Path, ...],
    vocab_size: int | None,
    tokenizer_place: Path | None,
    out: Path,
    end_of_text: bool | None,
    val_fraction: float | None,
    split: str | None,
    val_places: tuple[Path, ...],
) -> int:
    """Write the tokens of UTF-8 text, with a byte-level BPE tokenizer that is trained on it or given.

    TEXT is a file, or a folder whose .txt files are taken, with those of all folders in it.

    \b
    Examples:
      feste-dp prepare book.txt more.txt --vocab-size 1024 --out data/books
      feste-dp launch --config configs/small.yaml --set data.corpus=data/books
      feste-dp prepare books --tokenizer gpt2 --split document --out data/books-gpt2
    """
    if (vocab_size is None) == (tokenizer_place is None):
        raise click.UsageError("give either --vocab-size or --tokenizer")
    if val_places and (val_fraction is not None or split is not None):
        raise click.UsageError("--val holds its text out: leave --val-fraction and --split away")
    tokenizer = None if tokenizer_place is None else load_tokenizer_at(tokenizer_place)
    if end_of_text is None:
        end_of_text = tokenizer is not None and tokenizer.end_of_text is not None

    def tell(line: str) -> None:
        click.echo(printable(line))

    def read(places: tuple[Path, ...]) -> Corpus:
        for place in map(str, places):
            if holds_token_data(place):
                raise UsageError(f"{place} holds token data already: use it with --set data.corpus={place}")
        corpus = read_corpus([str(place) for place in places])
        if corpus.note is not None:
            tell(corpus.note)
        return corpus

    with said_as({"model.vocab_size": "vocab_size", "data.corpus": ""}):
        corpus = read(texts)
        val_texts = read(val_places).texts if val_places else ()
        data = prepare_token_data(
            corpus.texts,
            vocab_size or BYTE_TOKENS,
            val_fraction or _VAL_FRACTION,
            out,
            available_memory(),
            tell,
            Choices(tokenizer, end_of_text, split == "document", val_texts),
        )
    click.echo(
        f"{printable(str(out))}: {len(data.train):,} training tokens, {len(data.val):,} for validation, "
        f"vocabulary {data.vocab_size}, {data.train_bytes / max(1, len(data.train)):.2f} bytes a token"
    )
    settings = (f"data.corpus={out}", f"model.vocab_size={data.vocab_size}")
    click.echo(f"use it with:  {' '.join(f'--set {quoted(each)}' for each in settings)}")
    return 0
