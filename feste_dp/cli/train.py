"""feste-dp launch and feste-dp resume."""

import sys
from collections.abc import Callable
from pathlib import Path

import click
from pydantic import ValidationError

from feste_dp.cli.arguments import (
    OVERRIDES,
    PIN,
    RUN,
    WORKERS,
    PathType,
    StepRange,
    as_overrides,
    config_option,
    said_as,
)
from feste_dp.cli.nodes import on_every_node
from feste_dp.config.expectations import expected_value
from feste_dp.config.loading import config_from_text, read_config
from feste_dp.config.schema import RunConfig
from feste_dp.errors import UsageError
from feste_dp.run.directory import is_run
from feste_dp.run.screen import Progress, make_progress
from feste_dp.train import launch as runs
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
@config_option()
@_WORKERS
@PIN
@OVERRIDES
@click.option(
    "--init-from",
    type=PathType(),
    metavar="RUN|DIR",
    help="Start from the weights and the tokenizer of a run, a checkpoint or a Hugging Face directory; "
    "optimizer and schedule are new.",
)
@click.option("--name", callback=_check_name, help="First part of the name of the run directory.")
@click.option("--out", type=PathType(), help="Run directory, new or empty, instead of a named one.")
@click.option(
    "--resume",
    "resume_mode",
    type=click.Choice(["never", "auto"]),
    default="never",
    show_default=True,
    help="auto: go on with the run that is in --out, start it where there is none.",
)
@_TRACE
@_QUIET
def launch(
    config_path: Path,
    workers: int | None,
    pin: str | None,
    overrides: tuple[str, ...],
    init_from: Path | None,
    name: str | None,
    out: Path | None,
    resume_mode: str,
    trace: tuple[int, int] | None,
    quiet: bool,
) -> int:
    """Train a model.

    \b
    Examples:
      feste-dp launch --config tiny --workers 2
      feste-dp launch --config small --set train.steps=500 --name short
      feste-dp launch --config tiny --trace 100:102
      feste-dp launch --config medium --out data/runs/medium --resume auto
      feste-dp launch --config gpt2_124m --init-from gpt2 --set optim.lr=3e-5

    With --resume auto the same command starts a run and restarts it: what is in --out goes on as with
    `feste-dp resume`, with --workers of now; a finished run ends with status 0 and nothing done. The keys
    that --config and --set give count as changes to the run's config: those that a resume keeps must be
    the same, those that change the result are taken from --set alone, the others are simply taken.

    Ctrl-C finishes the step, saves and stops; pressed again, it stops at once. SIGTERM, and SIGHUP when
    the terminal is closed (not under nohup), give up the step, validation or sample under way, save the
    last finished step and stop: within the time of one save. SIGUSR1 saves and goes on. `feste-dp resume`
    goes on with the same bits.
    """
    if resume_mode == "auto" and out is None:
        raise UsageError("auto needs --out, the directory of the run that is to go on", about="resume")

    def on_node(around: Surroundings) -> int:
        text = read_config(config_path)
        goes_on = resume_mode == "auto" and out is not None and is_run(out)
        if around.on_first(goes_on) and out is not None:
            return runs.resume(out, workers, as_overrides(overrides), around, pin, text)
        given = as_overrides(overrides, workers, pin, name, init_from)
        return runs.launch(config_from_text(*text, given), out, around)

    with said_as(_typed(pin, init_from)):
        return _run(on_node, quiet, trace)


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

    def on_node(around: Surroundings) -> int:
        return runs.resume(run, workers, as_overrides(overrides), around, pin)

    with said_as(_typed(pin)):
        return _run(on_node, quiet, trace)


def _run(on_node: Callable[[Surroundings], int], quiet: bool, trace: tuple[int, int] | None) -> int:
    """Train on this machine, or as one of the nodes that a launcher has started."""
    with _progress(quiet) as progress, StopSignals() as signals:
        return on_every_node(on_node, progress, signals, trace)


def _typed(pin: str | None, init_from: Path | None = None) -> dict[str, str]:
    """Options by the keys that they stand for, as far as they were given."""
    given = {"run.pin": ("pin", pin), "model.init": ("init_from", init_from)}
    return {key: option for key, (option, value) in given.items() if value is not None}


def _progress(quiet: bool) -> Progress:
    return make_progress(sys.stdout.isatty(), quiet)
