"""feste-dp launch and feste-dp resume."""

import os
import shutil
import sys
from pathlib import Path

import click
from pydantic import ValidationError

from feste_dp.cache import cache_root
from feste_dp.cli.arguments import OVERRIDES, RUN, WORKERS, PathType, said_as_typed
from feste_dp.config.loading import load_config
from feste_dp.config.schema import RunConfig, expected_value
from feste_dp.train import launch as runs
from feste_dp.train.progress import Progress, make_progress
from feste_dp.train.signals import StopSignals
from feste_dp.train.start import Surroundings


def _check_name(context: click.Context, parameter: click.Parameter, name: str | None) -> str | None:
    """Refuses what run.name refuses, before it becomes part of an override."""
    if name is not None:
        try:
            RunConfig(name=name)
        except ValidationError:
            expected = expected_value(RunConfig.model_fields["name"])
            raise click.BadParameter(f"expected {expected}, got {name!r}") from None
    return name


_WORKERS = click.option(
    "--workers",
    type=WORKERS,
    metavar="N",
    help="Worker processes, at most train.shards; any number gives the same result. "
    "Default: what the config says, else one per usable CPU.",
)
_QUIET = click.option("--quiet", is_flag=True, help="Print only warnings and the result.")


@click.command()
@click.option(
    "--config",
    "config_path",
    required=True,
    type=PathType(),
    help="YAML file; the keys it lacks have defaults.",
)
@_WORKERS
@OVERRIDES
@click.option("--name", callback=_check_name, help="First part of the name of the run directory.")
@click.option("--out", type=PathType(), help="Run directory, new or empty, instead of a named one.")
@_QUIET
def launch(
    config_path: Path,
    workers: int | None,
    overrides: tuple[str, ...],
    name: str | None,
    out: Path | None,
    quiet: bool,
) -> int:
    """Train a model.

    \b
    Examples:
      feste-dp launch --config configs/tiny.yaml --workers 2
      feste-dp launch --config configs/small.yaml --set train.steps=500 --name short

    Ctrl-C saves and stops; `feste-dp resume` goes on from there.
    """
    given = list(overrides)
    if workers is not None:
        given.append(f"run.workers={workers}")
    if name is not None:
        given.append(f'run.name="{name}"')
    with said_as_typed(workers):
        config = load_config(config_path, given)
    with _progress(quiet) as progress, StopSignals() as signals:
        return runs.launch(config, out, _surroundings(progress, signals))


@click.command()
@RUN
@_WORKERS
@OVERRIDES
@_QUIET
def resume(run: Path, workers: int | None, overrides: tuple[str, ...], quiet: bool) -> int:
    """Continue a run after its newest checkpoint.

    RUN is the directory of a run, such as launch prints.

    \b
    Examples:
      feste-dp resume data/runs/tiny-20260131T120000Z
      feste-dp resume data/runs/tiny-20260131T120000Z --workers 4 --set train.steps=2000
    """
    with said_as_typed(workers), _progress(quiet) as progress, StopSignals() as signals:
        return runs.resume(run, workers, overrides, _surroundings(progress, signals))


def _progress(quiet: bool) -> Progress:
    return make_progress(sys.stdout.isatty(), quiet)


def _surroundings(progress: Progress, signals: StopSignals) -> Surroundings:
    return Surroundings(os.environ, cache_root(os.environ), progress, signals, program_name())


def program_name() -> str:
    """What to type for this program: its name where the shell finds it, else the way it was called now."""
    if shutil.which("feste-dp") or Path(sys.argv[0]).name != "feste-dp":
        return "feste-dp"
    return sys.argv[0]
