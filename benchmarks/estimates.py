"""What `feste-dp plan` foretells and what `feste-dp bench` measures: python -m benchmarks.estimates --help

Each in a process of its own, one after the other, on an otherwise idle machine. Status 1 when a step time
is more than 25 % or a memory more than 10 % off.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

TIME_TOLERANCE, MEMORY_TOLERANCE = 0.25, 0.10
ROOT = Path(__file__).parents[1]

# Timed steps and steps before them, by config.
_STEPS = {"gpt2_87m": (2, 1), "medium": (10, 3)}
_USUAL_STEPS = (200, 20)


def foretold_and_measured(config: Path, workers: int, overrides: tuple[str, ...]) -> dict[str, float]:
    """Ratios of the plan's figures to the measured ones, and both step times in seconds.

    Memory is compared as bench counts it: libraries in every process, and neither staging for saves nor the
    activations for samples, because bench does neither.
    """
    steps, warmup = _STEPS.get(config.stem, _USUAL_STEPS)
    given = ["--config", str(config), "--workers", str(workers)]
    for override in overrides:
        given += ["--set", override]
    plan = _report(["plan", *given])
    bench = _report(["bench", *given, "--steps", str(steps), "--warmup", str(warmup)])
    memory = plan["memory"]
    counted = plan["memory_bytes"] + workers * memory["libraries"] - memory["staging"] - memory["sampling"]
    step = plan["step"]
    foretold = sum(step[phase] for phase in ("compute", "reduce", "update", "control"))
    measured = bench["step_ms"]["median"] / 1e3
    return {
        "foretold_s": foretold,
        "measured_s": measured,
        "time_ratio": foretold / measured,
        "memory_ratio": counted / bench["memory"]["total_bytes"],
        "measured_mib": bench["memory"]["total_bytes"] / 2**20,
    }


def _report(arguments: list[str]) -> Any:
    command = [sys.executable, "-m", "feste_dp", *arguments, "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout)


@click.command()
@click.option(
    "--config", "configs", multiple=True, type=click.Path(path_type=Path), help="Default: all three."
)
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 1024))
@click.option("--set", "overrides", multiple=True)
def main(configs: tuple[Path, ...], workers: int, overrides: tuple[str, ...]) -> None:
    """Compare the plan of each config with a measured run."""
    within = True
    for config in configs or [ROOT / "configs" / f"{name}.yaml" for name in ("tiny", "medium", "gpt2_87m")]:
        found = foretold_and_measured(config, workers, overrides)
        click.echo(
            f"{config.stem:<10} step {1e3 * found['foretold_s']:,.2f} ms foretold, "
            f"{1e3 * found['measured_s']:,.2f} measured: {found['time_ratio'] - 1:+.1%}; memory "
            f"{found['measured_mib']:,.0f} MiB measured: {found['memory_ratio'] - 1:+.1%}"
        )
        within &= abs(found["time_ratio"] - 1) <= TIME_TOLERANCE
        within &= abs(found["memory_ratio"] - 1) <= MEMORY_TOLERANCE
    sys.exit(0 if within else 1)


if __name__ == "__main__":
    main()
