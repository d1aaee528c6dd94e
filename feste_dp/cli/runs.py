"""feste-dp runs."""

from datetime import UTC, datetime
from pathlib import Path

import click

from feste_dp.cli.arguments import PathType
from feste_dp.json_text import json_text
from feste_dp.report.discovery import find
from feste_dp.report.run_summary import RunSummary, summaries
from feste_dp.run.screen import format_duration, printable
from feste_dp.wording import counted

_COLORS = {"training": "cyan", "finished": "green", "stopped": "yellow"}
_HEAD = ("state", "step", "best loss", "tokens/s", "age", "run")


@click.command()
@click.argument("directory", default="data/runs", type=PathType(), metavar="[DIR]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
def runs(directory: Path, as_json: bool) -> int:
    """List the runs under DIR, the newest first.

    A run is training, finished, stopped (by a signal, after saving), failed (it said why) or interrupted (it
    ended without a word). Best loss is the lowest validation loss; age counts from the run's start.

    \b
    Examples:
      feste-dp runs
      feste-dp runs data/runs --json
    """
    found = summaries(find(directory).runs)
    if as_json:
        click.echo(json_text([run.as_json() for run in found], indent=2))
        return 0
    if not found:
        click.echo(f"no runs in {printable(str(directory))}")
        return 0
    now = datetime.now(UTC)
    rows = [_cells(run, now) for run in found]
    widths = [max(len(row[column]) for row in [_HEAD, *rows]) for column in range(5)]
    for number, row in enumerate([_HEAD, *rows]):
        state = row[0].ljust(widths[0])
        if number:
            state = click.style(state, fg=_COLORS.get(row[0], "red"))
        figures = [cell.rjust(width) for cell, width in zip(row[1:5], widths[1:], strict=True)]
        click.echo("  ".join([state, *figures, row[5]]))
    training = sum(run.state == "training" for run in found)
    click.echo(f"{counted(len(found), 'run')}, {training} training now")
    return 0


def _cells(run: RunSummary, now: datetime) -> tuple[str, ...]:
    known = run.step is not None and run.steps is not None
    name = printable(run.name).replace("\n", "\\n").replace("\t", "\\t")
    if run.problem:
        name += f"  ({printable(run.problem)})"
    return (
        run.state,
        f"{run.step:,}/{run.steps:,}" if known else "-",
        "-" if run.best_loss is None else f"{run.best_loss:.4f}",
        "-" if run.tokens_per_second is None else f"{run.tokens_per_second:,.0f}",
        "-" if run.started is None else format_duration((now - run.started).total_seconds()),
        name,
    )
