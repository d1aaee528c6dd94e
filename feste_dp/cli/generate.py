"""feste-dp generate: text of a trained model."""

import itertools
from dataclasses import asdict
from pathlib import Path

import click

from feste_dp.checkpoint.format import PARAMS
from feste_dp.cli.arguments import CHECKPOINT, RUN, Number, PathType, WholeNumber
from feste_dp.cli.compiling import compile_with_notice
from feste_dp.errors import UsageError
from feste_dp.files.reading import read_plain
from feste_dp.interruption import RaisedBySignal, asked_to_stop
from feste_dp.json_text import json_text
from feste_dp.model.choosing import Choice
from feste_dp.output import write_if_room
from feste_dp.run.continuation import Continuations, Wanted, in_order
from feste_dp.run.screen import printable
from feste_dp.run.trained_model import load_trained_model

_MOST_PROMPT_BYTES = 64 << 20
_STANDARD_INPUT = "-"


def _check_texts(
    context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]
) -> tuple[str, ...]:
    """Refuses what no tokenizer can read, before anything is loaded."""
    for text in texts:
        if not text:
            raise click.BadParameter("is empty; give at least one character")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise click.BadParameter("is not UTF-8") from None
    return texts


@click.command()
@RUN
@click.option(
    "--prompt",
    "prompts",
    multiple=True,
    callback=_check_texts,
    metavar="TEXT",
    help="Text to continue; may be given several times.",
)
@click.option(
    "--prompt-file",
    type=PathType(),
    metavar="FILE",
    help="Text to continue, all of the file as it is; - is standard input.",
)
@click.option(
    "--tokens",
    default=200,
    show_default=True,
    type=WholeNumber(1, 10**6),
    metavar="N",
    help="Tokens to write.",
)
@click.option(
    "-n",
    "--samples",
    default=1,
    show_default=True,
    type=WholeNumber(1, 1024),
    metavar="N",
    help="Texts to write after each prompt, all at once: little slower than one.",
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
    "--top-p",
    default=1.0,
    type=Number(0, 1, min_open=True),
    metavar="P",
    help="Draw among the likeliest tokens that have probability P together.",
)
@click.option(
    "--min-p",
    default=0.0,
    type=Number(0, 1),
    metavar="P",
    help="Draw among the tokens that have P times the likeliest one's probability or more.",
)
@click.option(
    "--repetition-penalty",
    default=1.0,
    type=Number(0, 100, min_open=True),
    metavar="X",
    help="Above 1: makes tokens less likely that are in the text already.",
)
@click.option(
    "--stop",
    multiple=True,
    callback=_check_texts,
    metavar="TEXT",
    help="End before this text; may be given several times.",
)
@click.option(
    "--past-end", is_flag=True, help="Go on after the token that ends a text, where the tokenizer has one."
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
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object when all is written.")
def generate(
    run: Path,
    prompts: tuple[str, ...],
    prompt_file: Path | None,
    tokens: int,
    samples: int,
    temperature: float,
    top_k: int | None,
    top_p: float,
    min_p: float,
    repetition_penalty: float,
    stop: tuple[str, ...],
    past_end: bool,
    seed: int,
    which: str | None,
    as_json: bool,
) -> int:
    """Write text with a trained model: the prompt and what the model makes of it, as it comes.

    The model sees the whole text as far as its block_size reaches; when the text gets longer, the oldest
    quarter of that goes at once. A model of plays writes better after a line end: $'HAMLET.\\n' gives one in
    bash.

    \b
    Examples:
      feste-dp generate data/runs/tiny-20260131T120000Z --prompt 'HAMLET.'
      feste-dp generate data/runs/tiny-20260131T120000Z --prompt 'To be' --tokens 50 --seed 2
      feste-dp generate data/runs/tiny-20260131T120000Z --prompt 'KING.' -n 4 --top-p 0.9
      echo 'ROMEO.' | feste-dp generate data/runs/tiny-20260131T120000Z --prompt-file - --json
    """
    if prompt_file is not None:
        prompts += (_prompt_in(prompt_file),)
    if not prompts:
        raise click.UsageError("missing option '--prompt' or '--prompt-file'", click.get_current_context())
    choice = Choice(temperature, top_k, top_p, min_p, repetition_penalty)
    wanted = Wanted(tokens, choice, seed, samples, stop, past_end)
    model = load_trained_model(run, which)
    compile_with_notice()
    written = Continuations(model.config.model, model.arrays[PARAMS], model.tokenizer, prompts, wanted)
    if as_json:
        for _ in written:
            pass
        texts = [asdict(text) for text in written.texts]
        click.echo(json_text({"step": model.manifest.step, "seed": seed, "texts": texts}, indent=2))
        return 0
    _print(written)
    return 0


def _prompt_in(path: Path) -> str:
    """The text of a file, or of standard input. Raises UsageError."""
    try:
        if str(path) == _STANDARD_INPUT:
            with open(0, "rb", closefd=False) as standard_input:
                content = standard_input.read(_MOST_PROMPT_BYTES + 1)
        else:
            content = read_plain(path, _MOST_PROMPT_BYTES, follow_links=True)
        text = content.decode()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", about="prompt_file") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8", about="prompt_file") from None
    if len(content) > _MOST_PROMPT_BYTES:
        raise UsageError(f"{path} has more than {_MOST_PROMPT_BYTES} bytes", about="prompt_file")
    if not text:
        raise UsageError(f"{path} is empty: give at least one character to continue", about="prompt_file")
    return text


def _print(written: Continuations) -> None:
    pieces = in_order(written)
    first = next(pieces)  # a model that can write nothing is found before anything is printed
    current, last = -1, "\n"
    try:
        for number, piece in itertools.chain([first], pieces):
            if number != current:
                current, last = number, _begin(written, number, last)
            click.echo(printable(piece), nl=False)
            last = piece or last
    except RaisedBySignal:
        write_if_room(1, b"\n")
        raise
    finally:
        if not asked_to_stop() and not last.endswith("\n"):
            click.echo()


def _begin(written: Continuations, number: int, last: str) -> str:
    """Print what stands before a text's continuation; returns the end of it."""
    count, prompt = len(written.texts), written.texts[number].prompt
    if not last.endswith("\n"):
        click.echo()
    if count > 1:
        click.echo(f"--- {number + 1} of {count} ---")
    click.echo(printable(prompt), nl=False)
    return prompt
