"""Draws the loss curve of a run, and writes the points that it draws as CSV.

    python docs/curves/plot.py RUN docs/curves/medium

writes docs/curves/medium.csv (tokens, training loss as the mean since the row before, validation loss) and
docs/curves/medium.svg. Needs matplotlib: pip install 'feste-dp[plot]'.
"""

import csv
import statistics
import sys
from pathlib import Path

import matplotlib

from feste_dp.config.loading import load_config
from feste_dp.run.directory import open_run_directory
from feste_dp.run.metrics import read_metrics

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "feste-dp"  # the same file for the same run
from matplotlib import pyplot as plt  # noqa: E402

STEPS_PER_POINT = 20

# The program that feste-dp grew out of, a model of the same size: millions of tokens, training loss.
REFERENCE = ((0.0, 7.75), (0.5, 4.65), (1.0, 4.19), (2.0, 3.47), (4.1, 3.02))
REFERENCE_VALIDATION_PERPLEXITY = 41

Point = tuple[int, float, float | None]


def points(run: Path) -> list[Point]:
    """(tokens seen, mean training loss since the last point, validation loss if measured)."""
    directory = open_run_directory(run)
    tokens_per_step = load_config(directory.config).tokens_per_step
    found: list[Point] = []
    losses: list[float] = []
    for row in read_metrics(directory.metrics):
        losses.append(row.train_loss)
        if row.step == 1 or row.step % STEPS_PER_POINT == 0:
            found.append((row.step * tokens_per_step, statistics.fmean(losses), row.val_loss))
            losses = []
    return found


def write_csv(curve: list[Point], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["tokens", "train_loss", "val_loss"])
        for tokens, train, val in curve:
            writer.writerow([tokens, f"{train:.4f}", "" if val is None else f"{val:.4f}"])


def draw(curve: list[Point], path: Path, with_reference: bool) -> None:
    figure, axes = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
    axes.plot([tokens / 1e6 for tokens, _, _ in curve], [train for _, train, _ in curve], label="training")
    validated = [(tokens / 1e6, val) for tokens, _, val in curve if val is not None]
    axes.plot(*zip(*validated, strict=True), marker=".", label="validation")
    if with_reference:
        axes.plot(*zip(*REFERENCE, strict=True), "k--", marker="x", linewidth=1, label="reference, training")
    axes.set_xlabel("training tokens (millions)")
    axes.set_ylabel("loss (nats per token)")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    run, stem = Path(sys.argv[1]), Path(sys.argv[2])
    curve = points(run)
    write_csv(curve, stem.with_suffix(".csv"))
    draw(curve, stem.with_suffix(".svg"), with_reference="--reference" in sys.argv)


if __name__ == "__main__":
    main()
