"""feste-dp bench."""

import os
import sys
from dataclasses import asdict
from pathlib import Path

import click

from feste_dp.bench.kernel_table import kernel_table
from feste_dp.bench.kernel_timing import time_kernels_in_a_process
from feste_dp.bench.step_bench import bench_steps
from feste_dp.bench.step_table import step_table
from feste_dp.cli.arguments import OVERRIDES, WORKERS, WholeNumber, as_overrides, config_option
from feste_dp.cli.nodes import on_every_node
from feste_dp.config.loading import config_from_text, load_config
from feste_dp.errors import UsageError
from feste_dp.json_text import json_text
from feste_dp.run.screen import PlainProgress
from feste_dp.train.signals import StopSignals
from feste_dp.train.start import Surroundings

_DEFAULT_STEPS, _DEFAULT_WARMUP = 20, 3

# Shapes of `bench --kernels` without a config: GPT-2's width and length.
_GPT2 = """\
model: {vocab_size: 1536, block_size: 1024, n_layer: 12, n_head: 12, n_embd: 768}
train: {batch_size: 4, shards: 4}
"""


@click.command()
@config_option(required=False)
@click.option("--workers", type=WORKERS, metavar="N", help="Worker processes, as launch takes them.")
@click.option(
    "--steps",
    type=WholeNumber(1, 10**6),
    metavar="K",
    help=f"Steps that are timed; default: {_DEFAULT_STEPS}.",
)
@click.option(
    "--warmup",
    type=WholeNumber(0, 10**6),
    metavar="W",
    help=f"Steps before them that are not; default: {_DEFAULT_WARMUP}.",
)
@OVERRIDES
@click.option("--kernels", is_flag=True, help="Time every kernel alone instead, at the config's shapes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def bench(
    config_path: Path | None,
    workers: int | None,
    steps: int | None,
    warmup: int | None,
    overrides: tuple[str, ...],
    kernels: bool,
    as_json: bool,
) -> int:
    """Measure the speed of a training step and where its time goes.

    Takes the steps of a real run, from the initial weights, and writes nothing. With --kernels: how near
    each kernel comes to its own limit, arithmetic or memory. Started by mpirun or srun, it measures the steps
    of all nodes together, with the sum over nodes and the links between them.

    \b
    Examples:
      feste-dp bench --config tiny --workers 2 --steps 200
      feste-dp bench --config medium --set model.dropout=0 --json
      feste-dp bench --kernels
      mpirun -n 2 --bind-to none feste-dp bench --config gpt2_87m
    """
    if kernels and any(given is not None for given in (workers, steps, warmup)):
        raise UsageError("--kernels times single calls: leave out --workers, --steps and --warmup")
    if config_path is None and not kernels:
        raise UsageError("--config: missing; give a name or a YAML file, such as tiny")
    given = as_overrides(overrides, workers)
    with PlainProgress(sys.stderr, sys.stderr) as progress, StopSignals() as signals:
        if kernels:
            config = (
                config_from_text(_GPT2, "the default shapes", given)
                if config_path is None
                else load_config(config_path, given)
            )
            progress.phase("timing the kernels (the first time they are compiled: a minute)")
            kernel_report = time_kernels_in_a_process(config, os.environ)
            content = asdict(kernel_report)
            click.echo(json_text(content, indent=2) if as_json else kernel_table(kernel_report))
            return 0

        def on_node(around: Surroundings) -> int:
            counts = (
                _DEFAULT_STEPS if steps is None else steps,
                _DEFAULT_WARMUP if warmup is None else warmup,
            )
            assert config_path is not None
            report = bench_steps(load_config(config_path, given), *counts, around)
            if report is not None:
                click.echo(json_text(asdict(report), indent=2) if as_json else step_table(report))
            return 0

        return on_every_node(on_node, progress, signals)
