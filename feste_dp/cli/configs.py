"""feste-dp configs."""

import shutil
import sys
from dataclasses import asdict

import click

from feste_dp.cli.compiling import compile_with_notice
from feste_dp.errors import RunError
from feste_dp.json_text import json_text
from feste_dp.plan.presets import MEASURED, PresetPlan, PresetPlans, plan_presets
from feste_dp.run.screen import format_duration, printable
from feste_dp.wording import command, counted

_HEAD = ("config", "parameters", "tokens a step", "steps", "memory", "time", "what for")


@click.command()
@click.option("--no-time", is_flag=True, help="Measure nothing, and leave the times out.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def configs(no_time: bool, as_json: bool) -> int:
    """List the configs that come with feste-dp.

    Parameters, tokens a step, steps, the memory of a run, and about how long it would train on this machine:
    all times are from one measurement of half a second, of the medium config. Where the kernels are not
    compiled yet they are now, which takes about a minute.

    \b
    Examples:
      feste-dp configs
      feste-dp launch --config tiny
    """
    try:
        plans = plan_presets(not no_time, compile_with_notice)
    except RunError as error:  # the list is true all the same
        click.echo(printable(f"warning: no times: {error}"), err=True)
        plans = plan_presets(False, compile_with_notice)
    if as_json:
        click.echo(json_text(asdict(plans), indent=2))
    else:
        for line in _table(plans):
            click.echo(line)
    return 0


def _table(plans: PresetPlans) -> list[str]:
    rows = [_HEAD, *map(_cells, plans.presets)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD) - 1)]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    lines = []
    for row in rows:
        figures = [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *figures, row[-1]])[:room].rstrip())
    if not all(plan.memory_suffices for plan in plans.presets):
        lines.append(f"*: more than the {_gib(plans.memory_available)} that are available here")
    if plans.speed is not None:
        cores, rate = counted(plans.speed.cores, "core"), plans.speed.flops_per_second / 1e9
        lines.append(
            f"time: of the whole run on {cores} at {rate:,.0f} GFLOP/s each, as measured of {MEASURED}; "
            f"{command('plan', '--config', 'NAME')} measures the shapes of a config"
        )
    return lines


def _cells(plan: PresetPlan) -> tuple[str, ...]:
    return (
        plan.name,
        f"{plan.parameters:,}",
        f"{plan.tokens_per_step:,}",
        f"{plan.steps:,}",
        f"{_gib(plan.memory_bytes)}{' ' if plan.memory_suffices else '*'}",
        "-" if plan.run_seconds is None else format_duration(plan.run_seconds),
        plan.purpose,
    )


def _gib(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB"
