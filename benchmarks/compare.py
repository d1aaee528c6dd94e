"""feste-dp and PyTorch on the same step, by turns: python -m benchmarks.compare --help

Each contender runs once a round, in a process of its own, so that drift of the machine meets all alike.
"""

import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

import click

from benchmarks.comparison import OURS, Contender, as_json, table
from benchmarks.contenders import PEERS, ROOT, ContenderError, Task, missing, run_round
from benchmarks.mkl_on_amd import NOTE, build_override, is_amd
from feste_dp.config.loading import load_config
from feste_dp.errors import UsageError
from feste_dp.machine.cpus import cpu_name, usable_cpus

# Global batch, sequences a micro-batch (0: all of a shard), warm-up and timed steps, by config.
_TASKS = {"gpt2_87m": (4, 1, 1, 3), "medium": (16, 1, 3, 10), "tiny": (8, 0, 20, 100)}


def make_task(
    config: Path,
    precision: str,
    workers: int,
    shards: int,
    dropout: float,
    steps: int | None,
) -> Task:
    """The task of a config: the batch of the published figures, or the config's own. Raises UsageError."""
    own = load_config(config).train
    batch, micro, warmup, timed = _TASKS.get(config.stem, (own.batch_size, own.micro_batch, 3, 20))
    return Task(
        config=config.absolute(),
        precision=precision,
        workers=workers,
        batch_size=batch,
        shards=shards,
        micro_batch=micro or batch // shards,
        dropout=dropout,
        steps=steps or timed,
        warmup=warmup,
    )


def compare(
    task: Task, names: list[str], rounds: int, override: Path | None, folder: Path
) -> list[Contender]:
    """Run all contenders in turn, `rounds` times; one that cannot run, or fails, is said so and left out."""
    contenders = [Contender(name, skipped=missing(name, task, override)) for name in names]
    for number in range(1, rounds + 1):
        for contender in contenders:
            if contender.skipped is not None:
                continue
            click.echo(f"round {number}: {contender.name}", err=True)
            try:
                result = run_round(contender.name, task, override, folder)
            except ContenderError as error:
                contender.skipped = str(error)
                continue
            tokens = task.batch_size * load_config(task.config).model.block_size
            contender.tokens_per_second.append(tokens / statistics.median(result.step_seconds))
            contender.peak_memory_bytes = max(contender.peak_memory_bytes, result.peak_memory_bytes)
    return contenders


def chosen_peers(peers: str | None, compiled: bool) -> list[str]:
    """The names in a comma-separated list, all of them without one. Raises click.BadParameter."""
    names = list(PEERS) if peers is None else [name for name in peers.split(",") if name]
    for name in names:
        if name not in PEERS:
            raise click.BadParameter(f"unknown peer {name!r}; there are {', '.join(PEERS)}")
    return [name for name in names if compiled or not name.endswith("compiled")]


@click.command()
@click.option(
    "--config", "configs", multiple=True, type=click.Path(path_type=Path), help="Default: all three."
)
@click.option("--precision", "precisions", multiple=True, type=click.Choice(["fp32", "bf16"]))
@click.option("--peers", help=f"Comma-separated, of {', '.join(PEERS)}; default: all.")
@click.option("--no-compile", is_flag=True, help="Leave out torch.compile, which takes a minute to compile.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1, 1000))
@click.option("--steps", type=click.IntRange(1, 10**6), help="Timed steps of a run; default: by config.")
@click.option("--workers", type=click.IntRange(1, 1024), help="Cores to use; default: all usable ones.")
@click.option(
    "--shards", default=2, show_default=True, type=click.IntRange(1, 256), help="feste-dp's shards."
)
@click.option("--dropout", default=0.0, show_default=True, type=click.FloatRange(0, 1, max_open=True))
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the result here too.")
def main(
    configs: tuple[Path, ...],
    precisions: tuple[str, ...],
    peers: str | None,
    no_compile: bool,
    rounds: int,
    steps: int | None,
    workers: int | None,
    shards: int,
    dropout: float,
    json_file: Path | None,
) -> None:
    """Compare feste-dp with PyTorch on the same training step and the same cores, by turns."""
    workers = workers or usable_cpus()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:workers])  # inherited by all contenders
    names = [OURS, *chosen_peers(peers, not no_compile)]
    results = []
    click.echo(f"{cpu_name()}, {workers} cores")
    with tempfile.TemporaryDirectory(prefix="feste-dp-compare-") as place:
        folder = Path(place)
        override = build_override(folder) if is_amd() else None
        if is_amd():
            click.echo(NOTE)
        for config in configs or [
            ROOT / "configs" / f"{name}.yaml" for name in ("tiny", "medium", "gpt2_87m")
        ]:
            for precision in precisions or ("fp32", "bf16"):
                try:
                    task = make_task(config, precision, workers, shards, dropout, steps)
                except UsageError as error:
                    raise click.UsageError(str(error)) from None
                title = (
                    f"{config.stem}, {precision}, {task.batch_size} sequences a step, dropout {dropout:g}, "
                    f"feste-dp in {shards} shards"
                )
                # MKL multiplies float32 only: bfloat16 goes to oneDNN, which asks no vendor
                fitting = [name for name in names if precision == "fp32" or "tuned" not in name]
                contenders = compare(task, fitting, rounds, override, folder)
                click.echo("\n" + table(title, contenders))
                results.append(as_json(title, contenders))
    if json_file is not None:
        json_file.write_text(json.dumps({"cpu": cpu_name(), "cores": workers, "results": results}, indent=2))


if __name__ == "__main__":
    sys.exit(main())
