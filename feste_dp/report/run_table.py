"""All runs as a table, a line each; page.js sorts and filters it."""

import math
from collections.abc import Sequence
from urllib.parse import quote

from feste_dp.report.markup import Child, Markup, tag
from feste_dp.report.run_summary import RunSummary

_STATES = ("training", "finished", "stopped", "failed", "interrupted", "unreadable")
_HEADS = (("run", False), ("state", False), ("step", True), ("of", True), ("best loss", True),
          ("train loss", True), ("tokens/s", True), ("started (UTC)", False))  # fmt: skip


def run_table(runs: Sequence[RunSummary], address: str) -> Markup:
    """In the order given. `address` is what stands in front of a run's name in its link."""
    heads = [
        tag("th", {"scope": "col", "class": "number" if is_number else None},
            tag("button", {"type": "button"}, name))
        for name, is_number in _HEADS
    ]  # fmt: skip
    chosen = tag("th", {"scope": "col", "aria-label": "compare"})
    table = tag(
        "table",
        {"class": "runs"},
        tag("thead", None, tag("tr", None, heads, chosen)),
        tag("tbody", None, [_row(run, address) for run in runs]),
    )
    return Markup(_filter() + tag("div", {"class": "scroll", "tabindex": "0"}, table))


def _filter() -> Markup:
    states = [tag("option", {"value": state}, state) for state in _STATES]
    return tag(
        "div",
        {"class": "filter", "hidden": True},
        tag("input", {"type": "search", "placeholder": "filter by words", "aria-label": "filter by words"}),
        tag("select", {"aria-label": "state"}, tag("option", {"value": ""}, "any state"), states),
        tag("output"),
    )


def _row(run: RunSummary, address: str) -> Markup:
    link = tag("a", {"href": address + quote(run.name, errors="surrogateescape")}, run.name)
    started = "" if run.started is None else f"{run.started:%Y-%m-%d %H:%M}"
    box = tag(
        "input", {"type": "checkbox", "name": "run", "value": run.name, "aria-label": f"compare {run.name}"}
    )
    return tag(
        "tr",
        {"data-state": run.state},
        tag(
            "td",
            {"data-v": run.name},
            link,
            tag("span", {"class": "why"}, run.problem) if run.problem else None,
        ),
        tag("td", None, tag("span", {"class": f"chip {run.state}"}, run.state)),
        _number(run.step, "{:,}"),
        _number(run.steps, "{:,}"),
        _number(run.best_loss, "{:.4f}"),
        _number(run.train_loss, "{:.4f}"),
        _number(run.tokens_per_second, "{:,.0f}"),
        tag("td", {"data-v": started}, started),
        tag("td", None, box if run.state != "unreadable" else None),
    )


def _number(value: float | None, form: str) -> Markup:
    """data-v is what it is sorted by: empty where it is not known."""
    finite = value is not None and math.isfinite(value)
    shown: Child = form.format(value) if value is not None else ""
    return tag("td", {"class": "number", "data-v": repr(value) if finite else ""}, shown)
