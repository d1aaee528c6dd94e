"""feste-dp verify."""

import os
from dataclasses import asdict

import click

from feste_dp.cli.arguments import WORKERS
from feste_dp.cli.compiling import compile_with_notice
from feste_dp.errors import UsageError
from feste_dp.json_text import json_text
from feste_dp.kernels import ARITHMETIC
from feste_dp.verify.golden_run import StoppedError
from feste_dp.verify.table import GoldenRun, Table, read_table
from feste_dp.verify.verification import (
    Machine,
    RunResult,
    Verification,
    source_of,
    this_machine,
    verify,
)
from feste_dp.wording import counted

SAME, OTHER = 0, 1


@click.command("verify")
@click.option("--workers", type=WORKERS, metavar="N", help="Worker processes; default: one per usable core.")
@click.option(
    "--run", "names", multiple=True, metavar="NAME", help="Only this config of the table, such as tiny."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def verify_command(workers: int | None, names: tuple[str, ...], as_json: bool) -> int:
    """Check that this machine trains to the same bits as every other.

    Trains a few small models with real workers, in under a minute where the kernels are compiled, and
    compares the SHA-256 of weights, optimizer state and metrics with those that come with the program.
    Exit status 1 where one differs, with the first kernel of a step that does. Leaves nothing behind.

    \b
    Examples:
      feste-dp verify
      feste-dp verify --workers 1 --run tiny --json
    """
    table = read_table()
    runs = _chosen(table, names)
    if not as_json:
        click.echo("\n".join(_machine_lines(this_machine(os.environ))))
    compile_with_notice()
    try:
        found = verify(
            table,
            runs,
            workers,
            os.environ,
            tell=lambda result: None if as_json else click.echo(_line(result)),
            warn=lambda line: click.echo(f"warning: {line}", err=True),
            examine=lambda: click.echo("looking for the kernel: a minute or two", err=True),
        )
    except StoppedError as stopped:
        return stopped.status
    click.echo(json_text(_content(found), indent=2) if as_json else _verdict(found))
    return SAME if found.holds else OTHER


def _chosen(table: Table, names: tuple[str, ...]) -> list[GoldenRun]:
    unknown = [name for name in names if name not in table.configs]
    if unknown:
        raise UsageError(f"--run: no {unknown[0]!r} in the table; it has {', '.join(table.configs)}")
    return [run for run in table.runs if not names or run.config in names]


def _machine_lines(machine: Machine) -> list[str]:
    features = " ".join(machine.features)
    releases = ", ".join(f"{name} {version}" for name, version in machine.releases.items())
    return [
        f"cpu        {machine.cpu}: {features}",
        f"compiled   for {machine.compiled_for}; products of bfloat16 by {machine.bf16}",
        f"releases   {releases}",
    ]


def _line(result: RunResult) -> str:
    what = (
        f"{result.config:<10} {result.precision}  {result.steps} steps, {counted(result.workers, 'worker')}"
    )
    if not result.differs_in:
        return f"{what}: the same, {result.found.state[:16]} ({result.seconds:.1f} s)"
    step = result.first_other_step
    since = "" if step is None else f", metrics from step {step} on"
    return f"{what}: OTHER {' and '.join(result.differs_in)}{since}, {result.found.state[:16]}"


def _verdict(found: Verification) -> str:
    if found.holds:
        return f"the bits of arithmetic {found.arithmetic}, as on every machine"
    if found.arithmetic != ARITHMETIC:
        return f"the program has arithmetic {ARITHMETIC}, its table is of {found.arithmetic}: remake it"
    if not found.other_kernels:
        return (
            "not the bits of other machines, though each kernel alone gives its own: the listings that join "
            "them (feste_dp/model/gpt2.py), or this machine computes wrongly now and then: run it again"
        )
    first, *others = found.other_kernels
    rest = f", then {', '.join(others)}" if others else ""
    return (
        f"not the bits of other machines: the first kernel that differs is {first} ({source_of(first)}){rest}"
    )


def _content(found: Verification) -> dict[str, object]:
    return {
        **asdict(found.machine),
        "arithmetic": found.arithmetic,
        "holds": found.holds,
        "runs": [
            {
                "config": run.config,
                "precision": run.precision,
                "steps": run.steps,
                "workers": run.workers,
                "seconds": run.seconds,
                "same": not run.differs_in,
                "first_other_step": run.first_other_step,
                "state_sha256": run.found.state,
                "metrics_sha256": run.found.metrics,
            }
            for run in found.runs
        ],
        "other_kernels": found.other_kernels,
    }
