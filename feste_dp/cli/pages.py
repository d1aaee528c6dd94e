"""feste-dp report, feste-dp dashboard and feste-dp watch."""

import sys
from pathlib import Path

import click

from feste_dp.cli.arguments import RUN, FileType, PathType, WholeNumber
from feste_dp.errors import UsageError
from feste_dp.files.writing import write_whole
from feste_dp.report.page import page, report_title, run_parts
from feste_dp.report.run_data import read_runs
from feste_dp.report.study_sections import is_study, read_study_part
from feste_dp.report.target import check_target, page_mark
from feste_dp.report.watch import watch_run


@click.command()
@click.argument("runs", nargs=-1, required=True, type=PathType(), metavar="RUN...")
@click.option("--out", type=FileType(), help="The file to write; default: report.html in the first RUN.")
def report(runs: tuple[Path, ...], out: Path | None) -> int:
    """Write one HTML page on a run, or on several side by side.

    RUN is the directory of a run, or of a scaling study. The page needs no network and no other file.

    \b
    Examples:
      feste-dp report data/runs/tiny-20260131T120000Z
      feste-dp report data/runs/tiny-* --out comparison.html
    """
    studies = [path for path in runs if is_study(path)]
    read = read_runs([path for path in runs if path not in studies])
    parts = run_parts(read)
    for number, study in enumerate(studies):
        part = read_study_part(study, "scaling" if number == 0 else f"scaling-{number + 1}")
        parts.insert(number, part)
    title = report_title([run.name for run in read]) if read else "Scaling study"
    target = out or (runs[0] if runs[0].is_dir() else runs[0].parent) / "report.html"
    mark = page_mark([*(run.name for run in read), *(study.resolve().name for study in studies)])
    check_target(target, None if out is None else mark)
    try:
        write_whole(target, page(title, parts, about=mark).encode())
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror}; choose another --out") from error
    click.echo(f"written: {target}")
    return 0


@click.command()
@click.argument("directory", default="data/runs", type=PathType(), metavar="[DIR]")
@click.option(
    "--port",
    default=8571,
    show_default=True,
    type=WholeNumber(0, 65535),
    metavar="P",
    help="TCP port; 0 takes a free one.",
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, metavar="ADDRESS",
    help="Address to listen at; another one than loopback shows the runs to the network.",
)  # fmt: skip
def dashboard(directory: Path, port: int, host: str) -> int:
    """Show all runs under DIR in a browser, live.

    Read-only: nothing in DIR is changed. Ctrl-C ends it.

    \b
    Examples:
      feste-dp dashboard
      feste-dp dashboard data/runs --port 9000
    """
    from feste_dp.report.server import serve  # here: its library is an extra

    return serve(directory, host, port, click.echo)


@click.command()
@RUN
def watch(run: Path) -> int:
    """Follow a run on the terminal until it ends.

    Exit status: 0 when it finished, 1 when it failed or was lost, 130 when it was stopped.

    \b
    Example:
      feste-dp watch data/runs/tiny-20260131T120000Z
    """
    return watch_run(run, sys.stdout, sys.stdout.isatty())
