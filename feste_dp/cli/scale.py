"""feste-dp scale."""

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import click

from feste_dp.cache import cache_root
from feste_dp.cli.arguments import OVERRIDES, WORKERS, PathType, WholeNumber, as_overrides, config_option
from feste_dp.config.loading import load_config
from feste_dp.errors import UsageError
from feste_dp.nodes.world import world_size
from feste_dp.run.screen import PlainProgress, Progress
from feste_dp.scale.assembly import machine_warnings, make_study
from feste_dp.scale.files import output_directory, write_study
from feste_dp.scale.launching import find_launcher
from feste_dp.scale.machine import read_machine
from feste_dp.scale.measuring import Plan, check_plan, measure, quietly
from feste_dp.scale.node_study import NodePlan, check_node_plan, make_node_study, measure_nodes
from feste_dp.scale.study import Study, study_to_json
from feste_dp.scale.table import study_table
from feste_dp.train.signals import StopSignals
from feste_dp.train.start import Surroundings

DONE, FAILED = 0, 1


class _Counts(click.ParamType[list[int]]):
    """Different worker counts in ascending order, from a list such as 1,2,4."""

    name = "counts"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        if isinstance(value, list):
            return value
        counts = [WORKERS.convert(part.strip(), param, ctx) for part in str(value).split(",")]
        if len(set(counts)) != len(counts):
            self.fail(f"a count is there twice in {value!r}", param, ctx)
        return sorted(counts)


@click.command()
@config_option()
@click.option("--workers", "counts", type=_Counts(), metavar="N,N,...", help="Worker counts.")
@click.option(
    "--nodes",
    "node_counts",
    type=_Counts(),
    metavar="N,N,...",
    help="Node counts instead; --workers is then those of each node, one number.",
)
@click.option(
    "--launcher",
    metavar="COMMAND",
    help="What starts {nodes} processes, one a node; default: 'mpirun --bind-to none -n {nodes}'.",
)
@click.option("--weak", is_flag=True, help="Let the batch grow with the count instead of keeping it.")
@click.option(
    "--steps",
    type=WholeNumber(1, 10**6),
    default=20,
    show_default=True,
    metavar="K",
    help="Timed steps of each count in each round.",
)
@click.option(
    "--repeats",
    type=WholeNumber(1, 1000),
    default=5,
    show_default=True,
    metavar="R",
    help="Rounds over all counts in turn.",
)
@click.option(
    "--warmup",
    type=WholeNumber(0, 10**6),
    default=3,
    show_default=True,
    metavar="W",
    help="Steps before them that are not timed.",
)
@OVERRIDES
@click.option(
    "--out",
    type=PathType(),
    help="New or empty directory for scaling.csv, .json, .svg and .png; default: one in data/scaling.",
)
@click.option("--no-baselines", is_flag=True, help="Leave out the one process and PyTorch.")
@click.option("--json", "as_json", is_flag=True, help="Print scaling.json instead of the table.")
def scale(
    config_path: Path,
    counts: list[int] | None,
    node_counts: list[int] | None,
    launcher: str | None,
    weak: bool,
    steps: int,
    repeats: int,
    warmup: int,
    overrides: tuple[str, ...],
    out: Path | None,
    no_baselines: bool,
    as_json: bool,
) -> int:
    """Measure how training scales with cores on this machine, and why it stops.

    Takes steps of real runs, at each worker count in turn, several rounds over; beside them the same step in
    one process without workers and, where it is installed, in PyTorch. Fits Amdahl's law and the Universal
    Scalability Law, names what limits the largest count, and checks that all counts gave the same losses,
    bit for bit: exit status 1 if not.

    With --nodes it starts `feste-dp bench` on so many machines in turn, by mpirun, and shows what the sum
    over nodes takes. Each of them finds the config as for launch.

    \b
    Examples:
      feste-dp scale --config medium --workers 1,2,4
      feste-dp scale --config tiny --workers 1,2 --weak --steps 200 --repeats 7 --out tiny-weak
      feste-dp scale --config gpt2_87m --nodes 1,2,4
      feste-dp scale --config gpt2_87m --nodes 1,2,4 --launcher 'srun --mpi=pmix -N {nodes} -n {nodes}'
    """
    if node_counts is not None:
        given = _NodeOptions(node_counts, counts, launcher, overrides)
        return _scale_over_nodes(config_path, given, _Rounds(weak, steps, repeats, warmup), out, as_json)
    if counts is None:
        raise UsageError("missing; give worker counts, such as 1,2,4, or --nodes", about="workers")
    if launcher is not None:
        raise UsageError("goes with --nodes", about="launcher")
    config = load_config(config_path, as_overrides(overrides))
    now = datetime.now(UTC)
    plan = Plan("weak" if weak else "strong", config, counts, steps, warmup, repeats, not no_baselines)
    directory = output_directory(out, config.run.name, now)
    with PlainProgress(sys.stderr, sys.stderr) as progress, StopSignals() as signals:
        around = Surroundings(os.environ, cache_root(os.environ), progress, signals)
        quiet = quietly(plan, around)
        check_plan(plan, quiet)
        machine = read_machine(config.run.pin, max(counts))
        for line in machine_warnings(machine, counts):
            progress.warning(line)
        study = make_study(plan, config.run.name, machine, measure(plan, around, quiet), now)
        return _write(study, directory, progress, as_json)


class _NodeOptions(NamedTuple):
    counts: list[int]
    workers: list[int] | None
    launcher: str | None
    overrides: tuple[str, ...]


class _Rounds(NamedTuple):
    weak: bool
    steps: int
    repeats: int
    warmup: int


def _scale_over_nodes(
    config_path: Path, given: _NodeOptions, rounds: _Rounds, out: Path | None, as_json: bool
) -> int:
    if given.workers is not None and len(given.workers) != 1:
        raise UsageError("one number, of each node, where node counts are compared", about="workers")
    if world_size(os.environ) > 1:
        raise UsageError("starts its nodes itself: leave mpirun out", about="nodes")
    workers = None if given.workers is None else given.workers[0]
    config = load_config(config_path, as_overrides(given.overrides, workers))
    now = datetime.now(UTC)
    arguments = ["--config", str(config_path), *(f"--set={each}" for each in given.overrides)]
    plan = NodePlan(
        "weak" if rounds.weak else "strong",
        config,
        given.counts,
        rounds.steps,
        rounds.warmup,
        rounds.repeats,
        find_launcher(given.launcher),
        [*arguments, *([] if workers is None else ["--workers", str(workers)])],
    )
    check_node_plan(plan)
    directory = output_directory(out, config.run.name, now)
    with PlainProgress(sys.stderr, sys.stderr) as progress, StopSignals() as signals:
        around = Surroundings(os.environ, cache_root(os.environ), progress, signals)
        machine = read_machine("none", max(given.counts))
        for line in machine_warnings(machine, []):
            progress.warning(line)
        found, busy = measure_nodes(plan, around)
        study = make_node_study(plan, config.run.name, machine, found, busy, now)
        return _write(study, directory, progress, as_json)


def _write(study: Study, directory: Path, progress: Progress, as_json: bool) -> int:
    written, missing = write_study(study, directory)
    if missing is not None:
        progress.message(missing)
    progress.message(f"written: {', '.join(map(str, written))}")
    click.echo(study_to_json(study) if as_json else study_table(study), nl=not as_json)
    return DONE if study.same_bits.agree else FAILED
