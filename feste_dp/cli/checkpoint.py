"""feste-dp checkpoint list and feste-dp checkpoint verify."""

from pathlib import Path

import click

from feste_dp.checkpoint.listing import CheckpointInfo, list_checkpoints
from feste_dp.cli.arguments import RUN
from feste_dp.json_text import json_text
from feste_dp.run.directory import open_run_directory
from feste_dp.run.screen import printable

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")


@click.group()
def checkpoint() -> None:
    """See which checkpoints a run has, and whether they are whole.

    \b
    Example:
      feste-dp checkpoint verify data/runs/tiny-20260131T120000Z
    """


@checkpoint.command("list")
@RUN
@_JSON
def list_command(run: Path, as_json: bool) -> int:
    """List the checkpoints of a run, oldest first.

    \b
    Example:
      feste-dp checkpoint list data/runs/tiny-20260131T120000Z
    """
    _print(list_checkpoints(open_run_directory(run).checkpoints), as_json)
    return 0


@checkpoint.command("verify")
@RUN
@_JSON
def verify_command(run: Path, as_json: bool) -> int:
    """Read every byte of every checkpoint against its hashes. Exit status 1 when one is damaged.

    \b
    Example:
      feste-dp checkpoint verify data/runs/tiny-20260131T120000Z
    """
    infos = list_checkpoints(open_run_directory(run).checkpoints, verify=True)
    _print(infos, as_json)
    return 1 if any(info.problems for info in infos) else 0


def _print(infos: list[CheckpointInfo], as_json: bool) -> None:
    if as_json:
        click.echo(json_text([_as_dict(info) for info in infos], indent=2))
        return
    if not infos:
        click.echo("the run has no checkpoint yet")
    for info in infos:
        marks = [name for name, holds in (("best", info.is_best), ("latest", info.is_latest)) if holds]
        state = "" if info.whole is None else ("whole  " if info.whole else "DAMAGED  ")
        click.echo(
            f"step {info.step:>8}  {info.size_bytes / 2**20:9.1f} MiB  {state}{' '.join(marks)}".rstrip()
        )
        for problem in info.problems or ():
            click.echo(f"    {printable(problem)}")


def _as_dict(info: CheckpointInfo) -> dict[str, object]:
    return {
        "step": info.step,
        "path": str(info.path),
        "bytes": info.size_bytes,
        "best": info.is_best,
        "latest": info.is_latest,
        "whole": info.whole,
        "problems": None if info.problems is None else list(info.problems),
    }
