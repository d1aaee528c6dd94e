"""feste-dp workers."""

from pathlib import Path

import click

from feste_dp.cli.arguments import RUN, WORKERS
from feste_dp.run.screen import printable
from feste_dp.run.worker_request import request_workers
from feste_dp.wording import counted


@click.command()
@RUN
@click.argument("number", type=WORKERS, metavar="N")
def workers(run: Path, number: int) -> int:
    """Give a run that is training another number of workers, from its next step on.

    Nothing else changes: any number gives the same result.

    \b
    Example:
      feste-dp workers data/runs/tiny-20260131T120000Z 4
    """
    warning = request_workers(run, number)
    if warning is not None:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"{printable(str(run))} goes on with {counted(number, 'worker')}")
    return 0
