"""feste-dp export and feste-dp import: models for other tools, and theirs."""

from pathlib import Path

import click

from feste_dp.cli.arguments import CHECKPOINT, RUN, PathType
from feste_dp.data.tokenizer_folder import load_tokenizer_at
from feste_dp.files.whole_folder import check_is_new
from feste_dp.model.parameters import parameter_count
from feste_dp.run.exporting import export_to_hugging_face
from feste_dp.run.importing import import_hugging_face
from feste_dp.run.screen import printable
from feste_dp.run.trained_model import load_trained_model
from feste_dp.wording import command


@click.command()
@RUN
@click.option(
    "--to",
    "form",
    required=True,
    type=click.Choice(["hf"]),
    help="hf: what Hugging Face transformers loads, GPT-2 in safetensors.",
)
@click.argument("out", metavar="DIR", type=PathType())
@CHECKPOINT
def export(run: Path, form: str, out: Path, which: str | None) -> int:
    """Write a trained model for other tools into the new directory DIR.

    config.json, generation_config.json, model.safetensors, the tokenizer and a model card: transformers loads
    it with AutoModelForCausalLM and AutoTokenizer, without a flag.

    \b
    Examples:
      feste-dp export data/runs/tiny-20260131T120000Z --to hf tiny-hf
      feste-dp export data/runs/tiny-20260131T120000Z --to hf tiny-hf --checkpoint latest
    """
    check_is_new(out)
    model = load_trained_model(run, which)
    export_to_hugging_face(model, out)
    cfg = model.config.model
    click.echo(
        f"{printable(str(out))}: step {model.manifest.step:,}, {parameter_count(cfg):,} parameters, "
        f"vocabulary {cfg.vocab_size:,}, context {cfg.block_size:,}"
    )
    return 0


@click.command("import")
@click.argument("folder", metavar="DIR", type=PathType())
@click.option("--out", required=True, type=PathType(), help="Run directory, new or empty.")
@click.option(
    "--tokenizer",
    "tokenizer_place",
    type=PathType(),
    help="A tokenizer.json, or a directory with one, where DIR has none.",
)
def import_command(folder: Path, out: Path, tokenizer_place: Path | None) -> int:
    """Make a run of a GPT-2 in DIR: config.json, safetensors (one file or many) and a tokenizer.

    What this program would compute otherwise is refused by its name. A .bin is a pickle and is not read.

    \b
    Example:
      feste-dp import gpt2 --out data/runs/gpt2
      feste-dp generate data/runs/gpt2 --prompt 'To be'
    """
    check_is_new(out)
    tokenizer = load_tokenizer_at(tokenizer_place or folder)
    config = import_hugging_face(folder, tokenizer, out)
    cfg = config.model
    click.echo(
        f"{printable(str(out))}: {parameter_count(cfg):,} parameters, vocabulary {cfg.vocab_size:,}, "
        f"context {cfg.block_size:,}, {'tied' if cfg.tie_embeddings else 'untied'} head"
    )
    click.echo(f"to write:      {command('generate', out, '--prompt', 'To be')}")
    click.echo(f"its tokens:    {command('prepare', 'TEXT', '--tokenizer', out, '--out', 'DATA')}")
    click.echo(f"to train it:   {command('launch', '--config', 'CONFIG', '--init-from', out)}")
    return 0
