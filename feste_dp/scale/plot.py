"""Draws a study: throughput against workers with the fitted laws, and where a step's time goes.

matplotlib is an extra and imported here alone, when there is something to draw.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from feste_dp.run.step_times import ALL_PHASES, shown_phases
from feste_dp.scale.study import Count, Interval, Study

HOW_TO_INSTALL = "scaling.svg and scaling.png are not drawn: pip install 'feste-dp[plot]' brings matplotlib"
_LAW_COLOURS = {"Amdahl": "tab:orange", "Gustafson": "tab:orange", "USL": "tab:purple"}
_PHASE_COLOURS = dict(
    zip(ALL_PHASES, ("tab:blue", "tab:red", "tab:green", "tab:cyan", "tab:olive", "tab:gray"), strict=True)
)


def can_draw() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def draw(study: Study, stem: Path) -> list[Path]:
    """Write `stem`.svg and `stem`.png; the same files for the same study."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    with matplotlib.rc_context({"svg.hashsalt": "feste-dp", "font.size": 9}):
        figure, (rates, phases) = pyplot.subplots(
            1, 2, figsize=(11, 4.6), layout="constrained", width_ratios=(1.5, 1)
        )
        _draw_rates(rates, study)
        _draw_phases(phases, study)
        figure.suptitle(
            f"{study.config_name}, {study.kind} scaling on {study.machine.cpu}, "
            f"{study.machine.physical_cores} cores"
        )
        paths = [stem.with_suffix(".svg"), stem.with_suffix(".png")]
        figure.savefig(paths[0], metadata={"Date": None})
        figure.savefig(paths[1], dpi=150, metadata={"Software": None})
        pyplot.close(figure)
    return paths


def _draw_rates(axes: Any, study: Study) -> None:
    """Both axes logarithmic, so that perfect scaling is a straight line."""
    for fit in study.fits:
        if not fit.curve:
            continue
        workers = [point.workers for point in fit.curve]
        colour = _LAW_COLOURS[fit.law]
        axes.plot(
            workers, [point.tokens_per_second.value for point in fit.curve], "--", color=colour, lw=1.2,
            label=f"{fit.law}, fitted",
        )  # fmt: skip
        ends = [_ends(point.tokens_per_second) for point in fit.curve]
        axes.fill_between(
            workers, [low for low, _ in ends], [high for _, high in ends], color=colour, alpha=0.15, lw=0
        )
    first = study.counts[0]
    perfect = first.tokens_per_second.value / first.place
    far = max([count.place for count in study.counts] + [p.workers for f in study.fits for p in f.curve])
    axes.plot([1, far], [perfect, perfect * far], ":", color="gray", lw=1, label="perfect")
    for above, face in ((False, "tab:blue"), (True, "white")):
        counts = [count for count in study.counts if count.above_cores == above]
        if counts:
            label = "measured, more workers than cores" if above else "measured (95 %)"
            _draw_measured(axes, counts, face, label)
    for baseline, style in zip(study.baselines, ("-.", (0, (1, 1))), strict=False):
        if baseline.tokens_per_second is not None:
            threads = f", {baseline.threads} threads" if baseline.threads > 1 else ""
            axes.axhline(
                baseline.tokens_per_second.value,
                ls=style,
                color="black",
                lw=0.9,
                label=f"{baseline.name}{threads}",
            )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = [1 << power for power in range(far.bit_length())]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlabel(f"{first.unit}s")
    axes.set_ylabel("tokens per second")
    axes.grid(alpha=0.3, which="major")
    axes.legend(frameon=False)


def _draw_measured(axes: Any, counts: Sequence[Count], face: str, label: str) -> None:
    values = [count.tokens_per_second.value for count in counts]
    ends = [_ends(count.tokens_per_second) for count in counts]
    below = [value - low for value, (low, _) in zip(values, ends, strict=True)]
    over = [high - value for value, (_, high) in zip(values, ends, strict=True)]
    axes.errorbar(
        [count.place for count in counts], values, yerr=[below, over], fmt="o", capsize=3,
        color="tab:blue", markerfacecolor=face, label=label, zorder=5,
    )  # fmt: skip


def _draw_phases(axes: Any, study: Study) -> None:
    places = list(range(len(study.counts)))
    floor = [0.0] * len(places)
    for phase in shown_phases([count.phases_ms for count in study.counts]):
        heights = [count.phases_ms.get(phase, 0.0) for count in study.counts]
        axes.bar(places, heights, bottom=floor, color=_PHASE_COLOURS[phase], width=0.6, label=phase)
        floor = [a + b for a, b in zip(floor, heights, strict=True)]
    axes.set_xticks(places, [str(count.place) for count in study.counts])
    axes.set_xlabel(f"{study.counts[0].unit}s")
    axes.set_ylabel("milliseconds of a step")
    axes.set_ylim(0, 1.25 * max(floor))
    axes.legend(frameon=False, ncols=3)
    axes.spines[["top", "right"]].set_visible(False)


def _ends(figure: Interval) -> tuple[float, float]:
    if figure.low is None or figure.high is None:
        return figure.value, figure.value
    return figure.low, figure.high
