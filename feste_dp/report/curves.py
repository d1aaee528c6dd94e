"""The charts of one run or of several over each other, from what was read of them. Pure."""

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from feste_dp.json_text import json_text
from feste_dp.report.chart import Chart, Mark, Point, Series, Style
from feste_dp.report.run_data import RunData
from feste_dp.report.thinning import MOST_ROWS, running_medians, smoothing_window, thin
from feste_dp.run.metrics import MetricsRow
from feste_dp.run.step_times import ALL_PHASES, EXCHANGE, shown_phases

COLORS = 8
SHOWN_WORKERS = 8
_LEAST_ROWS = 200
PHASE_COLORS = dict(zip(ALL_PHASES, (1, 2, 3, 6, 4, 5), strict=True))
_NOTABLE = {"resume", "skip", "spike", "early_stop", "fail", "save_failed"}
"""Kinds of events that charts mark, beside all that begin with worker_."""

Figure = Callable[[MetricsRow], float | None]


@dataclass(frozen=True)
class _Curve:
    """What a chart draws of each row: a figure, and perhaps its running median over it."""

    name: str
    figure: Figure
    style: Style = "line"
    smooth: str = ""
    """The name of the running median; empty for none."""


def charts(runs: Sequence[RunData]) -> list[Chart]:
    """All charts over steps, the most asked for first."""
    return [
        loss_chart(runs),
        perplexity_chart(runs),
        throughput_chart(runs),
        *(
            _of_run(number, chart)
            for number, run in enumerate(runs)
            for chart in (
                phases_chart(run, len(runs)),
                *nodes_chart(run, len(runs)),
                workers_chart(run, len(runs)),
            )
        ),
        rate_chart(runs),
        _chart(
            runs,
            "norm",
            "Gradient norm",
            "before clipping, logarithmic",
            [_Curve("each step", lambda row: row.grad_norm, "faint", "median")],
            is_log=True,
        ),
    ]  # fmt: skip


def axes_behind_steps(runs: Sequence[RunData]) -> str:
    """JSON of what page.js turns steps into tokens and time with: of each run the tokens of a step, and some
    steps with the seconds of training until them."""
    axes = []
    for run in runs:
        stride = max(1, -(-len(run.rows) // MOST_ROWS))
        rows = [row for row in [*run.rows[::stride], *run.rows[-1:]] if math.isfinite(row.elapsed_seconds)]
        axes.append(
            {
                "tokens": run.config.tokens_per_step,
                "steps": [row.step for row in rows],
                "seconds": [round(row.elapsed_seconds, 3) for row in rows],
            }
        )
    return json_text(axes)


def _of_run(number: int, chart: Chart) -> Chart:
    return replace(chart, series=[replace(series, run=number) for series in chart.series])


def loss_chart(runs: Sequence[RunData]) -> Chart:
    curves = [
        _Curve("train", lambda row: row.train_loss, "faint", "train, median"),
        _Curve("validation", lambda row: row.val_loss, "line"),
    ]
    return _chart(runs, "loss", "Loss", "nats per token", curves)


def perplexity_chart(runs: Sequence[RunData]) -> Chart:
    curves = [
        _Curve("train", lambda row: row.train_perplexity, "faint", "train, median"),
        _Curve("validation", lambda row: row.val_perplexity, "line"),
    ]
    return _chart(runs, "perplexity", "Perplexity", "exp(loss), logarithmic", curves, is_log=True)


def rate_chart(runs: Sequence[RunData]) -> Chart:
    curve = _Curve("learning rate", lambda row: row.learning_rate)
    return _chart(runs, "rate", "Learning rate", "per update", [curve])


def throughput_chart(runs: Sequence[RunData]) -> Chart:
    curve = _Curve("each step", lambda row: row.tokens_per_second, "faint", "median")
    return _chart(runs, "speed", "Throughput", "tokens per second", [curve], from_zero=True)


def phases_chart(run: RunData, of_runs: int = 1) -> Chart:
    """Milliseconds of a step by phase, one over the other."""
    found = [
        phases if isinstance(phases := event.fields.get("phases_ms"), dict) else {} for event in run.times
    ]
    shown = shown_phases(found)
    columns = {phase: [_number(phases, phase) for phases in found] for phase in shown}
    rows = thin(list(columns.values()))
    series = [Series(phase, _points(run, rows, columns[phase]), PHASE_COLORS[phase]) for phase in shown]
    of_nodes = "; exchange: the sum over nodes, once all are there" if EXCHANGE in shown else ""
    return Chart(
        key=_key("phases", run, of_runs),
        title=_title("Where a step's time goes", run, of_runs),
        x_label="step",
        y_label="milliseconds per step",
        series=series,
        note="compute: mean of the workers; wait: what the slowest took longer; control: messages, wake-ups, "
        f"Python{of_nodes}. Each point is the mean of about a second of steps.",
        rows=_counted(len(rows), len(run.times), "points"),
        stacked="areas",
    )


def nodes_chart(run: RunData, of_runs: int = 1) -> list[Chart]:
    """Milliseconds of a step of each node's slowest worker; none for a run on one machine."""
    each = [_numbers(event.fields.get("node_compute_ms")) for event in run.times]
    if not any(each):
        return []
    columns = _columns("node", each)
    rows = thin(list(columns.values()))
    return [
        Chart(
            key=_key("nodes", run, of_runs),
            title=_title("Each node's compute time", run, of_runs),
            x_label="step",
            y_label="milliseconds per step",
            series=_columns_series(run, columns, rows),
            note="Of the slowest worker of each node; the others wait for it.",
            rows=_counted(len(rows), len(run.times), "points"),
            marks=_marks([run]),
        )
    ]


def workers_chart(run: RunData, of_runs: int = 1) -> Chart:
    """Each worker's own milliseconds in a step; of many workers the quickest, the median and the slowest."""
    each = [_numbers(event.fields.get("worker_compute_ms")) for event in run.times]
    count = max(map(len, each), default=0)
    columns = _columns("worker", each)
    rows = thin(list(columns.values()))
    notes = [] if count <= SHOWN_WORKERS else [f"{count} workers"]
    if any(event.fields.get("node_compute_ms") for event in run.times):
        notes.append("those of the first node")
    return Chart(
        key=_key("workers", run, of_runs),
        title=_title("Each worker's compute time", run, of_runs),
        x_label="step",
        y_label="milliseconds per step",
        series=_columns_series(run, columns, rows),
        note=", ".join(notes),
        rows=_counted(len(rows), len(run.times), "points"),
        marks=_marks([run]),
    )


def _columns(what: str, each: Sequence[list[float]]) -> dict[str, list[float | None]]:
    """The numbers of each worker or node; of many the quickest, the median and the slowest."""
    count = max(map(len, each), default=0)
    if count <= SHOWN_WORKERS:
        return {
            f"{what} {one}": [numbers[one] if one < len(numbers) else None for numbers in each]
            for one in range(count)
        }
    return {
        "slowest": [max(numbers, default=None) for numbers in each],
        "median": [sorted(numbers)[len(numbers) // 2] if numbers else None for numbers in each],
        "quickest": [min(numbers, default=None) for numbers in each],
    }


def _columns_series(
    run: RunData, columns: Mapping[str, Sequence[float | None]], rows: Sequence[int]
) -> list[Series]:
    return [
        Series(name, _points(run, rows, column), number % COLORS + 1)
        for number, (name, column) in enumerate(columns.items())
    ]


def _chart(
    runs: Sequence[RunData],
    key: str,
    title: str,
    y_label: str,
    curves: Sequence[_Curve],
    *,
    is_log: bool = False,
    from_zero: bool = False,
) -> Chart:
    """Figures of the rows of metrics.csv. One run has a colour for each curve, several have one each."""
    series, drawn = [], 0
    most = max(_LEAST_ROWS, MOST_ROWS // len(runs))
    for number, run in enumerate(runs):
        made, rows = _run_series(run, curves, most, len(runs) > 1)
        drawn += rows
        for name, index, points, style in made:
            name = f"{run.name} · {name}" if len(runs) > 1 else name
            color = number if len(runs) > 1 else index
            series.append(Series(name, points, color % COLORS + 1, style, run=number))
    return Chart(
        key=key,
        title=title,
        x_label="step",
        y_label=y_label,
        series=series,
        note=_not_finite(runs, curves),
        rows=_counted(drawn, sum(len(run.rows) for run in runs), "steps"),
        marks=_marks(runs) if len(runs) == 1 else (),
        is_log_y=is_log,
        from_zero=from_zero,
        is_wide=key == "loss",
    )


def _run_series(
    run: RunData, curves: Sequence[_Curve], most: int, several: bool
) -> tuple[list[tuple[str, int, list[Point], Style]], int]:
    """Name, number, points and style of each curve of a run, a median after its curve, and of how many rows
    they were drawn."""
    columns = [[_finite(curve.figure(row)) for row in run.rows] for curve in curves]
    keep = [number for number, row in enumerate(run.rows) if row.val_loss is not None]
    rows = thin(columns, keep, most)
    made: list[tuple[str, int, list[Point], Style]] = []
    window = smoothing_window(len(run.rows))
    for index, (curve, column) in enumerate(zip(curves, columns, strict=True)):
        has_median = bool(curve.smooth) and window > 1
        if not (several and has_median):  # the noise of several runs would hide all of them
            style = curve.style if has_median or curve.style != "faint" else "line"
            style = "dashed" if several and curve.name == "validation" else style
            made.append((curve.name, index, _row_points(run, rows, column), style))
        if has_median:
            made.append(
                (
                    f"{curve.smooth} of {window}",
                    index,
                    _median_points(run, rows, column, window),
                    "line",
                )
            )
    return made, len(rows)


def _median_points(
    run: RunData, rows: Sequence[int], column: Sequence[float | None], window: int
) -> list[Point]:
    """The running median of what is finite, at those of the rows that are."""
    held = [row for row, value in enumerate(column) if value is not None]
    values = [value for value in column if value is not None]
    drawn = [row for row in rows if column[row] is not None]
    medians = running_medians(values, window, [bisect_left(held, row) for row in drawn])
    return [(float(run.rows[row].step), median) for row, median in zip(drawn, medians, strict=True)]


def _row_points(run: RunData, rows: Sequence[int], column: Sequence[float | None]) -> list[Point]:
    return [(float(run.rows[row].step), value) for row in rows if (value := column[row]) is not None]


def _points(run: RunData, rows: Sequence[int], column: Sequence[float | None]) -> list[Point]:
    return [(float(run.times[row].step), value) for row in rows if (value := column[row]) is not None]


def _marks(runs: Sequence[RunData]) -> list[Mark]:
    return [
        Mark(float(event.step), event.kind, f"step {event.step:,}: {event.text}")
        for run in runs
        for event in run.events
        if event.kind in _NOTABLE or event.kind.startswith("worker_")
    ]


def _not_finite(runs: Sequence[RunData], curves: Sequence[_Curve]) -> str:
    """How many figures are not drawn because they are NaN or infinite."""
    figures = [curve.figure(row) for run in runs for row in run.rows for curve in curves]
    count = sum(1 for figure in figures if figure is not None and not math.isfinite(figure))
    return f"{count:,} values are NaN or infinite and not drawn" if count else ""


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _number(mapping: object, key: str) -> float | None:
    """A number out of what a line of events.jsonl holds; None where it is none."""
    value = mapping.get(key) if isinstance(mapping, dict) else None
    return _finite(value) if isinstance(value, int | float) else None


def _numbers(value: object) -> list[float]:
    """As _number, of a list; what is none stands as 0, so that each worker keeps its place."""
    if not isinstance(value, list):
        return []
    return [float(each) if isinstance(each, int | float) and math.isfinite(each) else 0.0 for each in value]


def _key(name: str, run: RunData, of_runs: int) -> str:
    return name if of_runs == 1 else f"{name}-{run.name}"


def _title(title: str, run: RunData, of_runs: int) -> str:
    return title if of_runs == 1 else f"{title} · {run.name}"


def _counted(drawn: int, of: int, what: str) -> str:
    if drawn == of:
        return f"{of:,} {what}"
    return (
        f"{drawn:,} of {of:,} {what}: the run is thinned for drawing, its highest and lowest values are kept"
    )


def loss_sparkline(run: RunData, most: int = 80) -> list[Point]:
    """The course of the training loss in few points."""
    column = [_finite(row.train_loss) for row in run.rows]
    return _median_points(run, thin([column], most=most), column, smoothing_window(len(column)))
