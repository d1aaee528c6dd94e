"""feste-dp launch and feste-dp resume."""

import os
import sys
from pathlib import Path

import click
from pydantic import ValidationError

from feste_dp.cache import cache_root
from feste_dp.cli.arguments import OVERRIDES, PIN, RUN, WORKERS, PathType, StepRange, said_as_typed
from feste_dp.config.expectations import expected_value
from feste_dp.config.loading import load_config
from feste_dp.config.schema import RunConfig
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
    "Default: what the config says, else one per usable core.",
)
_TRACE = click.option(
    "--trace",
    type=StepRange(),
    metavar="FIRST:LAST",
    help="Write what every process did in these steps, for ui.perfetto.dev, into the run's directory.",
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
@PIN
@OVERRIDES
@click.option("--name", callback=_check_name, help="First part of the name of the run directory.")
@click.option("--out", type=PathType(), help="Run directory, new or empty, instead of a named one.")
@_TRACE
@_QUIET
def launch(
    config_path: Path,
    workers: int | None,
    pin: str | None,
    overrides: tuple[str, ...],
    name: str | None,
    out: Path | None,
    trace: tuple[int, int] | None,
    quiet: bool,
) -> int:
    """Train a model.

    \b
    Examples:
      feste-dp launch --config configs/tiny.yaml --workers 2
      feste-dp launch --config configs/small.yaml --set train.steps=500 --name short
      feste-dp launch --config configs/tiny.yaml --trace 100:102

    Ctrl-C finishes the step, saves and stops; pressed again, it stops at once. SIGTERM, and SIGHUP when
    the terminal is closed (not under nohup), give up the step, validation or sample under way, save the
    last finished step and stop: within the time of one save. SIGUSR1 saves and goes on. `feste-dp resume`
    goes on with the same bits.
    """
    given = list(overrides)
    if workers is not None:
        given.append(f"run.workers={workers}")
    if pin is not None:
        given.append(f"run.pin={pin}")
    if name is not None:
        given.append(f'run.name="{name}"')
    with said_as_typed(workers, pin), _progress(quiet) as progress, StopSignals() as signals:
        config = load_config(config_path, given)
        return runs.launch(config, out, _surroundings(progress, signals, trace))


@click.command()
@RUN
@_WORKERS
@PIN
@OVERRIDES
@_TRACE
@_QUIET
def resume(
    run: Path,
    workers: int | None,
    pin: str | None,
    overrides: tuple[str, ...],
    trace: tuple[int, int] | None,
    quiet: bool,
) -> int:
    """Continue a run after its newest checkpoint.

    RUN is the directory of a run, such as launch prints.

    \b
    Examples:
      feste-dp resume data/runs/tiny-20260131T120000Z
      feste-dp resume data/runs/tiny-20260131T120000Z --workers 4 --set train.steps=2000
    """
    with said_as_typed(workers, pin), _progress(quiet) as progress, StopSignals() as signals:
        return runs.resume(run, workers, overrides, _surroundings(progress, signals, trace), pin)


def _progress(quiet: bool) -> Progress:
    return make_progress(sys.stdout.isatty(), quiet)


def _surroundings(progress: Progress, signals: StopSignals, trace: tuple[int, int] | None) -> Surroundings:
    return Surroundings(os.environ, cache_root(os.environ), progress, signals, trace)
