"""One chart as HTML: an SVG that stretches, text that does not, a legend, and the table behind it.

The SVG has no size of its own and its strokes do not scale, so that labels stay readable on a phone. What is
read out under the pointer comes from the table's rows: page.js.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from feste_dp.report.axes import Axis, exact, exact_axis, make_axis, short, ticks
from feste_dp.report.markup import Markup, disclosure, join, table, tag

WIDTH, HEIGHT = 1000, 500  # of the drawing's own coordinates

Style = Literal["line", "faint", "dots", "dashed"]
Point = tuple[float, float]
At = Callable[[float, float], str]


@dataclass(frozen=True)
class Series:
    """One curve. Points that are not finite, or not above zero on a logarithmic axis, are left out."""

    name: str
    points: Sequence[Point]
    color: int
    style: Style = "line"
    band: Sequence[tuple[float, float, float]] = ()
    """x, low and high of the interval around the curve, where it has one."""
    run: int = 0
    """Number of the run that it is of: each has tokens and times of its own behind its steps."""


@dataclass(frozen=True)
class Mark:
    """Something that happened at x, shown as a line across the chart."""

    x: float
    kind: str
    text: str


@dataclass(frozen=True)
class Chart:
    key: str
    title: str
    x_label: str
    y_label: str
    """What is drawn and its unit."""
    series: Sequence[Series]
    note: str = ""
    """What must be known to read it."""
    rows: str = ""
    """How many rows the table has, of how many."""
    marks: Sequence[Mark] = ()
    is_log_x: bool = False
    is_log_y: bool = False
    from_zero: bool = False
    stacked: Literal["", "areas", "bars"] = ""
    is_wide: bool = False
    labels: Sequence[str] = ()
    """What stands below the bars, whose x are 0, 1, 2 ..; elsewhere x at which to label the axis."""


def render(chart: Chart) -> Markup:
    """The chart; a line that says so where there is nothing to draw yet."""
    series = [_drawable(each, chart) for each in chart.series]
    xs = sorted({x for each in series for x, _ in each.points})
    heading = tag("figcaption", None, tag("h3", None, chart.title), tag("span", None, chart.y_label))
    if not xs:
        empty = tag("p", {"class": "empty"}, "nothing to draw yet")
        return tag("figure", {"class": "chart", "id": f"chart-{chart.key}"}, heading, empty)
    x_axis = _x_axis(chart, xs)
    y_axis = make_axis(
        _heights(series, chart), is_log=chart.is_log_y, from_zero=chart.from_zero or bool(chart.stacked)
    )
    across = [
        tag("span", {"style": f"left:{_percent(x_axis.share(x))}"}, text)
        for x, text in _x_ticks(chart, x_axis)
    ]
    up = [tag("span", {"style": f"top:{_percent(1 - y_axis.share(y))}"}, short(y)) for y in ticks(y_axis)]
    plot = tag(
        "div",
        {"class": "plot"},
        tag("div", {"class": "ticks-y", "aria-hidden": "true"}, up),
        tag("div", {"class": "area"}, _drawing(chart, series, x_axis, y_axis), _marks(chart, x_axis)),
        tag("div", {"class": "ticks-x", "aria-hidden": "true"}, across),
        tag("div", {"class": "x-label"}, chart.x_label),
    )
    return tag(
        "figure",
        {
            "class": "chart wide" if chart.is_wide else "chart",
            "id": f"chart-{chart.key}",
            "data-y": f"{y_axis.low!r} {y_axis.high!r} {int(y_axis.is_log)}",
            "data-stacked": bool(chart.stacked),
        },
        heading,
        _legend(series),
        plot,
        tag("p", {"class": "note"}, chart.note) if chart.note else None,
        disclosure(f"table-{chart.key}", join(["Table", f" ({chart.rows})" if chart.rows else ""]),
                   _table(chart, series, xs, x_axis)),
    )  # fmt: skip


def _drawable(series: Series, chart: Chart) -> Series:
    def fits(*values: float) -> bool:
        return all(math.isfinite(value) and (value > 0 or not chart.is_log_y) for value in values)

    points = [(x, y) for x, y in series.points if fits(y)]
    band = [(x, low, high) for x, low, high in series.band if fits(low, high)]
    return replace(series, points=points, band=band)


def _x_axis(chart: Chart, xs: Sequence[float]) -> Axis:
    if chart.stacked == "bars":
        return Axis(-0.5, len(chart.labels) - 0.5)
    return exact_axis(xs[0], xs[-1], is_log=chart.is_log_x)


def _x_ticks(chart: Chart, axis: Axis) -> list[tuple[float, str]]:
    if chart.stacked == "bars":
        return list(enumerate(chart.labels))
    if chart.labels:
        return [(float(label), label) for label in chart.labels if axis.low <= float(label) <= axis.high]
    return [(x, short(x)) for x in ticks(axis)]


def _heights(series: Sequence[Series], chart: Chart) -> list[float]:
    if chart.stacked:
        return [0.0, *_tops(series)[-1].values()]
    # an interval that is wider than the curves is cut off
    return [y for each in series for _, y in each.points]


def _tops(series: Sequence[Series]) -> list[dict[float, float]]:
    """Of each layer of a stack, the height of its upper edge by x."""
    tops: list[dict[float, float]] = []
    below: dict[float, float] = {}
    for each in series:
        below = {x: below.get(x, 0.0) + y for x, y in each.points}
        tops.append(below)
    return tops


def _drawing(chart: Chart, series: Sequence[Series], x_axis: Axis, y_axis: Axis) -> Markup:
    def at(x: float, y: float) -> str:
        return f"{x_axis.share(x) * WIDTH:.1f} {(1 - y_axis.share(y)) * HEIGHT:.1f}"

    grid = [
        tag("line", {"x1": 0, "x2": WIDTH, "y1": y, "y2": y})
        for y in (f"{(1 - y_axis.share(tick)) * HEIGHT:.1f}" for tick in ticks(y_axis))
    ]
    names = ", ".join(each.name for each in series)
    label = (
        f"{chart.title}: {names}; {chart.x_label} across, {chart.y_label} up; the table below has the figures"
    )
    shapes = (
        _stack(chart, series, at)
        if chart.stacked
        else [_curve(number, each, at) for number, each in enumerate(series)]
    )
    return tag(
        "svg",
        {
            "viewBox": f"0 0 {WIDTH} {HEIGHT}",
            "preserveAspectRatio": "none",
            "role": "img",
            "aria-label": label,
        },
        tag("g", {"class": "grid"}, grid),
        shapes,
    )


def _curve(number: int, series: Series, at: At) -> Markup:
    parts = []
    if series.band:
        edge = [at(x, high) for x, _, high in series.band] + [
            at(x, low) for x, low, _ in reversed(series.band)
        ]
        parts.append(tag("path", {"class": "band", "d": f"M{'L'.join(edge)}Z"}))
    if series.points:
        places = [at(x, y) for x, y in series.points]
        lines = "" if series.style == "dots" else f"M{'L'.join(places)}"
        if series.style == "dots" or len(places) == 1:
            lines = "".join(f"M{place}h.01" for place in places)
        kind = "dots" if len(places) == 1 else series.style
        parts.append(tag("path", {"class": kind, "d": lines, "data-points": len(places)}))
    return tag("g", {"class": f"c{series.color}", "data-series": number, "data-run": series.run}, parts)


def _stack(chart: Chart, series: Sequence[Series], at: At) -> list[Markup]:
    layers = []
    below: dict[float, float] = {}
    for number, (each, top) in enumerate(zip(series, _tops(series), strict=True)):
        if chart.stacked == "bars":
            outline = "".join(_bar(at, x, below.get(x, 0.0), y) for x, y in top.items())
        else:
            edge = [at(x, y) for x, y in top.items()] + [at(x, below.get(x, 0.0)) for x in reversed(top)]
            outline = f"M{'L'.join(edge)}Z" if len(top) > 1 else ""
        shape = tag("path", {"class": "layer", "d": outline, "data-points": len(top)})
        layers.append(
            tag("g", {"class": f"c{each.color}", "data-series": number, "data-run": each.run}, shape)
        )
        below = top
    return layers


def _bar(at: At, x: float, low: float, high: float) -> str:
    left, right = x - 0.32, x + 0.32
    return f"M{at(left, low)}L{at(left, high)}L{at(right, high)}L{at(right, low)}Z"


def _marks(chart: Chart, axis: Axis) -> list[Markup]:
    return [
        tag(
            "i",
            {
                "class": f"mark {mark.kind}",
                "style": f"left:{_percent(axis.share(mark.x))}",
                "title": mark.text,
            },
        )
        for mark in chart.marks
        if axis.low <= mark.x <= axis.high
    ]


def _legend(series: Sequence[Series]) -> Markup:
    keys = [
        tag(
            "button",
            {"type": "button", "class": f"key c{each.color}", "data-series": number, "aria-pressed": "true"},
            tag("i", {"class": f"swatch {each.style}"}),
            each.name,
        )
        for number, each in enumerate(series)
    ]
    return tag("div", {"class": "legend"}, keys)


def _table(chart: Chart, series: Sequence[Series], xs: Sequence[float], axis: Axis) -> Markup:
    """A row for each x; its place on the axis stands beside it for the read-out."""
    columns = [dict(each.points) for each in series]
    rows = []
    for x in xs:
        label = chart.labels[int(x)] if chart.stacked == "bars" else exact(x, 12)
        cells = [tag("td", None, exact(column.get(x))) for column in columns]
        rows.append(tag("tr", {"data-x": f"{axis.share(x):.5f}"}, tag("th", {"scope": "row"}, label), cells))
    head = [chart.x_label, *(each.name for each in series)]
    drawn = table(head, [], {"class": "data"})
    return Markup(drawn.replace("<tbody></tbody>", f"<tbody>{join(rows)}</tbody>"))


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%"
