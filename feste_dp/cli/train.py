"""feste-dp launch and feste-dp resume."""

import os
import sys
from pathlib import Path

import click

from feste_dp.cache import cache_root
from feste_dp.config.loading import load_config
from feste_dp.train import launch as runs
from feste_dp.train.progress import Progress, make_progress
from feste_dp.train.signals import StopSignals

_OVERRIDES = click.option(
    "--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override a key of the config."
)
_QUIET = click.option("--quiet", is_flag=True, help="Print only warnings and the result.")


@click.command()
@click.option("--config", "config_path", required=True, type=click.Path(path_type=Path), help="YAML file.")
@click.option("--workers", type=int, help="Worker processes; default: one a usable CPU.")
@_OVERRIDES
@click.option("--name", help="First part of the name of the run directory.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Run directory, new or empty, instead of a named one."
)
@_QUIET
def launch(
    config_path: Path,
    workers: int | None,
    overrides: tuple[str, ...],
    name: str | None,
    out: Path | None,
    quiet: bool,
) -> int:
    """Train a model."""
    given = list(overrides)
    if workers is not None:
        given.append(f"run.workers={_at_least_one(workers)}")
    if name is not None:
        given.append(f"run.name='{name}'")
    config = load_config(config_path, given)
    with _progress(quiet) as progress, StopSignals() as signals:
        return runs.launch(config, out, _surroundings(progress, signals))


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--workers", type=int, help="Worker processes; any number gives the same result.")
@_OVERRIDES
@_QUIET
def resume(run: Path, workers: int | None, overrides: tuple[str, ...], quiet: bool) -> int:
    """Continue a run after its newest checkpoint."""
    if workers is not None:
        _at_least_one(workers)
    with _progress(quiet) as progress, StopSignals() as signals:
        return runs.resume(run, workers, overrides, _surroundings(progress, signals))


def _at_least_one(workers: int) -> int:
    if workers < 1:
        raise click.BadParameter(f"{workers} is less than 1", param_hint="--workers")
    return workers


def _progress(quiet: bool) -> Progress:
    return make_progress(sys.stdout.isatty(), quiet)


def _surroundings(progress: Progress, signals: StopSignals) -> runs.Surroundings:
    return runs.Surroundings(os.environ, cache_root(os.environ), progress, signals)
