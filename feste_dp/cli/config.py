"""feste-dp config show, check, schema and init."""

import os
from pathlib import Path

import click
from pydantic import ValidationError

from feste_dp.cli.arguments import OVERRIDES, ConfigType, FileType, as_overrides
from feste_dp.config.changes import in_a_resume
from feste_dp.config.dumping import explained_yaml, flat_values, sentence, yaml_to_edit
from feste_dp.config.expectations import expected_value
from feste_dp.config.json_schema import json_schema
from feste_dp.config.loading import (
    ConfigText,
    Explained,
    Override,
    config_from_text,
    explained_config,
    read_config,
)
from feste_dp.config.schema import RunConfig, sections
from feste_dp.config.yaml_tree import one_line
from feste_dp.errors import UsageError
from feste_dp.files.writing import write_whole
from feste_dp.json_text import json_text
from feste_dp.model.parameters import parameter_count
from feste_dp.run.screen import printable
from feste_dp.wording import command, counted

_CONFIG = click.argument("config", type=ConfigType(), metavar="NAME|FILE")


@click.group()
def config() -> None:
    """See, check and begin configs.

    \b
    Example:
      feste-dp config show tiny --set optim.lr=1e-3
    """


@config.command()
@click.argument("config", required=False, type=ConfigType(), metavar="[NAME|FILE]")
@OVERRIDES
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(config: Path | None, overrides: tuple[str, ...], as_json: bool) -> int:
    """Print every key with what it is, what it takes, its value and where that came from.

    Without NAME or FILE, the defaults. What is printed is a config too.

    \b
    Examples:
      feste-dp config show tiny
      feste-dp config show my.yaml --set train.steps=500
    """
    given = None if config is None else read_config(config)
    explained = explained_config(given, as_overrides(overrides))
    if as_json:
        click.echo(json_text(_as_json(explained), indent=2))
    else:
        name = "the defaults" if given is None else given.source
        text = explained_yaml(explained.config, _short(explained, given))
        click.echo(printable(f"# {one_line(name)}\n{text}"), nl=False)
    return 0


@config.command()
@_CONFIG
@OVERRIDES
def check(config: Path, overrides: tuple[str, ...]) -> int:
    """Say that a config is valid, or the one line that says what to change, with exit status 2.

    Looks at the config alone: `feste-dp plan` says whether the machine and the text will do.

    \b
    Example:
      feste-dp config check my.yaml
    """
    made = config_from_text(*read_config(config), as_overrides(overrides))
    figures = (
        f"{parameter_count(made.model):,} parameters",
        f"{made.tokens_per_step:,} tokens a step",
        counted(made.train.steps, "step"),
    )
    click.echo(f"{printable(str(config))} is valid: {', '.join(figures)}")
    return 0


@config.command()
def schema() -> int:
    """Print the JSON Schema of a config, for editors.

    \b
    Example:
      feste-dp config schema >feste-dp.schema.json

    Then an editor with the YAML language server completes and checks a config that begins with
    `# yaml-language-server: $schema=feste-dp.schema.json`.
    """
    click.echo(json_text(json_schema(), indent=2))
    return 0


@config.command()
@click.argument("file", type=FileType())
@click.option(
    "--from",
    "origin",
    type=ConfigType(),
    metavar="NAME|FILE",
    help="Begin with the keys of this config; default: with none.",
)
@OVERRIDES
def init(file: Path, origin: Path | None, overrides: tuple[str, ...]) -> int:
    """Write a config with every key explained, to be edited.

    Keys that are not given stand there commented out with their defaults. What is there already is left as
    it is.

    \b
    Example:
      feste-dp config init my.yaml --from small --set data.corpus=data/books
    """
    text = None if origin is None else read_config(origin)
    made, origins = explained_config(text, [*_name(file), *as_overrides(overrides)])
    if os.path.lexists(file):
        raise UsageError(f"{printable(str(file))} is there already: give another name, or remove it")
    try:
        write_whole(file, yaml_to_edit(made, origins).encode())
    except OSError as error:
        raise UsageError(f"{printable(str(file))} cannot be written: {error.strerror}") from None
    click.echo(f"written: {printable(str(file))}")
    click.echo(f"to check it:    {command('config', 'check', file)}")
    click.echo(f"to train it:    {command('launch', '--config', file)}")
    return 0


def _short(explained: Explained, given: ConfigText | None) -> dict[str, str]:
    """The origins, with the file by its name alone."""
    source = "" if given is None else given.source
    name = Path(source).name
    return {
        key: f"{name}{place.removeprefix(source)}" if source and place.startswith(source) else place
        for key, place in explained.origins.items()
    }


def _as_json(explained: Explained) -> dict[str, object]:
    values = flat_values(explained.config)
    return {
        path: {
            "value": values[path],
            "from": explained.origins.get(path, "default"),
            "default": info.get_default(call_default_factory=True),
            "takes": expected_value(info),
            "about": sentence(info),
            "in_a_resume": in_a_resume(path),
        }
        for name, section in sections().items()
        for key, info in section.model_fields.items()
        for path in [f"{name}.{key}"]
    }


def _name(file: Path) -> list[Override]:
    """Runs are called like the file, where that makes a name."""
    try:
        RunConfig(name=file.stem)
    except ValidationError:
        return []
    return as_overrides([], name=file.stem)
