"""A whole page: one HTML file with its styles and script in it, that asks no network for anything."""

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files

from feste_dp import __version__
from feste_dp.report.chart import render
from feste_dp.report.curves import axes_behind_steps, charts
from feste_dp.report.markup import Markup, section, tag
from feste_dp.report.run_data import RunData
from feste_dp.report.run_nodes import nodes_section
from feste_dp.report.run_sections import (
    config_section,
    events_section,
    heads,
    machine_section,
    samples_section,
    tokenizer_section,
)

REFRESH_MS = 2000

NAVIGATION = {
    "runs": "Runs", "scaling": "Scaling", "curves": "Curves", "samples": "Samples", "events": "Events",
    "config": "Config", "nodes": "Nodes", "machine": "Machine", "tokenizer": "Tokenizer",
}  # fmt: skip


def run_parts(runs: Sequence[RunData]) -> list[Markup]:
    """The sections on runs."""
    if not runs:
        return []
    drawn = [render(chart) for chart in charts(runs)]
    behind = {"class": "charts", "data-axes": axes_behind_steps(runs)}
    nodes = nodes_section(runs)
    return [
        section("runs", "Runs" if len(runs) > 1 else "Run", heads(runs)),
        section("curves", "Curves", _axis_switch(), tag("div", behind, drawn)),
        samples_section(runs),
        events_section(runs),
        config_section(runs),
        *([] if nodes is None else [nodes]),
        machine_section(runs),
        tokenizer_section(runs),
    ]


def page(
    title: str, parts: Sequence[Markup], *, version: str = "", home: str = "", about: Markup | None = None
) -> str:
    """The document. A live one has a version, by which it asks for itself anew every REFRESH_MS; home is
    where its brand leads, `about` what target.py knows the page by."""
    live = bool(version)
    script, style = asset("page.js"), asset("page.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # styles stand in attributes, for where things lie in a chart; scripts only in this one
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:"
    policy += (
        "; connect-src 'self'; form-action 'self'; base-uri 'none'"
        if live
        else "; form-action 'none'; base-uri 'none'"
    )
    there = [key for key in NAVIGATION if any(part.startswith(f'<section id="{key}"') for part in parts)]
    links = [tag("a", {"href": f"#{key}"}, NAVIGATION[key]) for key in there]
    head = tag(
        "head", None,
        tag("meta", {"charset": "utf-8"}),
        tag("meta", {"http-equiv": "Content-Security-Policy", "content": policy}),
        tag("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("meta", {"name": "color-scheme", "content": "light dark"}),
        tag("meta", {"name": "generator", "content": f"feste-dp {__version__}"}),
        about,
        tag("title", None, f"{title} · feste-dp"),
        tag("link", {"rel": "icon", "href": "data:,"}),
        tag("style", None, Markup(style)),
    )  # fmt: skip
    top = tag(
        "header", {"class": "top"},
        tag("a", {"class": "brand", "href": home or "#"}, "feste-dp"),
        tag("nav", {"aria-label": "sections"}, links),
        tag("span", {"id": "live", "role": "status"}, "live") if live else None,
        tag("button", {"id": "theme", "type": "button", "hidden": True}, "auto"),
    )  # fmt: skip
    body = tag(
        "body", None, top,
        tag("main", None, tag("h1", None, title), parts),
        tag("footer", None, _made(live)),
        tag("script", None, Markup(script)),
    )  # fmt: skip
    document = tag(
        "html",
        {"lang": "en", "data-live": REFRESH_MS if live else None, "data-version": version or None},
        head,
        body,
    )
    return f"<!doctype html>\n{document}\n"


def report_title(names: Sequence[str]) -> str:
    """What a page on these runs is called."""
    return names[0] if len(names) == 1 else f"{len(names)} runs side by side"


@cache
def asset(name: str) -> str:
    """A style sheet or script of the page."""
    return files("feste_dp.report").joinpath("assets", name).read_text(encoding="utf-8")


def _made(live: bool) -> str:
    version = f"feste-dp {__version__}"
    if live:
        return f"{version}; read-only: nothing here changes a run."
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    return f"Made by {version} on {when} UTC. One file; needs no network."


def _axis_switch() -> Markup:
    """What lies across all charts; page.js shows it, for without it there are steps alone."""
    buttons = [
        tag("button", {"type": "button", "class": "tool", "data-axis": axis, "aria-pressed": "false"}, axis)
        for axis in ("steps", "tokens", "time")
    ]
    return tag(
        "div",
        {"class": "axis", "role": "group", "aria-label": "curves over", "hidden": True},
        "over ",
        buttons,
    )
