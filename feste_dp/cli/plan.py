"""feste-dp plan."""

import os
import sys
from dataclasses import asdict
from pathlib import Path

import click

from feste_dp.cache import cache_root
from feste_dp.cli.arguments import OVERRIDES, WORKERS, as_overrides, config_option
from feste_dp.config.loading import load_config
from feste_dp.json_text import json_text
from feste_dp.machine.limits import measure_limits
from feste_dp.plan.plan import make_plan
from feste_dp.plan.table import plan_table
from feste_dp.run.screen import PlainProgress
from feste_dp.train.signals import StopSignals
from feste_dp.train.start import Surroundings, prepare, settle

DONE, DOES_NOT_FIT = 0, 2


@click.command()
@config_option()
@click.option("--workers", type=WORKERS, metavar="N", help="Worker processes, as launch takes them.")
@OVERRIDES
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def plan(config_path: Path, workers: int | None, overrides: tuple[str, ...], as_json: bool) -> int:
    """Say what a run will take, and whether it fits, before it starts.

    Parameters, arithmetic, memory by kind, disk, and the time of a step and of the run from a measurement of
    about two seconds. Trains nothing. Exit status 2 when the run could not start, with what to change.

    \b
    Examples:
      feste-dp plan --config gpt2_87m --workers 8
      feste-dp plan --config medium --set train.batch_size=64 --json
    """
    given = as_overrides(overrides, workers)
    config, start = settle(load_config(config_path, given))
    with PlainProgress(sys.stderr, sys.stderr) as progress, StopSignals() as signals:
        around = Surroundings(os.environ, cache_root(os.environ), progress, signals)
        made = make_plan(config, measure_limits(Path(config.run.dir)), lambda: prepare(config, around, start))
    if as_json:
        content = asdict(made) | {
            "memory_by_kind": {kind.name: kind.bytes for kind in made.memory.kinds()},
            "memory_bytes": made.memory.total,
            "fits": not made.problems,
        }
        click.echo(json_text(content, indent=2))
    else:
        click.echo(plan_table(made, config.run.name))
    return DOES_NOT_FIT if made.problems else DONE
