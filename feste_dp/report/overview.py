"""The first page of the dashboard: a table of all runs, cards of the newest, and the studies."""

import contextlib
from collections.abc import Sequence
from urllib.parse import quote

from feste_dp.errors import on_one_line
from feste_dp.report.axes import exact_axis, make_axis
from feste_dp.report.curves import loss_sparkline
from feste_dp.report.markup import Markup, section, tag
from feste_dp.report.run_data import RunData
from feste_dp.report.run_sections import head
from feste_dp.report.run_summary import RunSummary
from feste_dp.report.run_table import run_table

RUN_ADDRESS, STUDY_ADDRESS, COMPARE_ADDRESS = "/runs/", "/studies/", "/compare"


def overview_parts(
    listed: Sequence[RunSummary], runs: Sequence[RunData], studies: Sequence[str], problems: dict[str, str]
) -> list[Markup]:
    """Sections for all runs: a line each, and a card for those of `runs`, those that train now in front;
    problems are runs among these that cannot be read."""
    ordered = sorted(runs, key=_newest_first)
    ordered.sort(key=lambda run: run.status.is_over)
    cards = [_card_in_any_case(run, number % 8 + 1) for number, run in enumerate(ordered)]
    broken = [_problem_card(name, problem) for name, problem in problems.items()]
    form = tag(
        "form",
        {"action": COMPARE_ADDRESS, "method": "get"},
        tag(
            "div",
            {"class": "toolbar"},
            tag("button", {"class": "tool", "type": "submit"}, "compare chosen runs"),
        )
        if len(listed) > 1
        else None,
        run_table(listed, RUN_ADDRESS) if len(listed) > 1 else None,
        tag("div", {"class": "cards"}, cards, broken),
    )
    training = sum(run.state == "training" for run in listed)
    lead = f"{len(listed)} in all, {training} training now"
    if len(listed) > len(cards) + len(broken):
        lead += f"; cards for {len(cards) + len(broken)} of them, the table has all"
    parts = [section("runs", "Runs", form, lead=lead)]
    if not cards and not broken:
        parts = [
            section(
                "runs", "Runs", tag("p", {"class": "empty"}, "none yet; this page shows them as they start")
            )
        ]
    if studies:
        links = [tag("p", None, tag("a", {"href": _address(STUDY_ADDRESS, name)}, name)) for name in studies]
        parts.append(section("studies", "Scaling studies", tag("div", {"class": "panel"}, links)))
    return parts


def _card_in_any_case(run: RunData, color: int) -> Markup:
    """A run from elsewhere may hold what cannot be drawn: that is its own fault, and not the page's."""
    try:
        return _card(run, color)
    except Exception as error:
        return _problem_card(run.name, f"cannot be drawn: {on_one_line(error)}")


def _address(kind: str, name: str) -> str:
    """Also of a name that is not UTF-8."""
    return kind + quote(name, errors="surrogateescape")


def _problem_card(name: str, problem: str) -> Markup:
    return tag("article", {"class": "card", "id": f"run-{name}"}, tag("h3", None, name),
               tag("p", {"class": "problem"}, problem))  # fmt: skip


def _card(run: RunData, color: int) -> Markup:
    title = tag("a", {"href": _address(RUN_ADDRESS, run.name)}, run.name)
    choose = tag(
        "label",
        {"class": "compare"},
        tag("input", {"type": "checkbox", "name": "run", "value": run.name}),
        "compare",
    )
    return head(run, color, title, Markup(_sparkline(run) + choose))


def _sparkline(run: RunData) -> Markup:
    """The course of the training loss, with no axes."""
    points = loss_sparkline(run)
    if len(points) < 2:
        return tag("div", {"class": "spark"})
    across, up = exact_axis(points[0][0], points[-1][0]), make_axis(y for _, y in points)
    places = "L".join(f"{across.share(x) * 300:.1f} {(1 - up.share(y)) * 54:.1f}" for x, y in points)
    drawing = tag(
        "svg",
        {
            "viewBox": "0 0 300 54",
            "preserveAspectRatio": "none",
            "role": "img",
            "aria-label": "training loss",
        },
        tag("path", {"d": f"M{places}"}),
    )
    return tag("div", {"class": "spark"}, drawing)


def _newest_first(run: RunData) -> float:
    if run.events:
        return -run.events[0].time.timestamp()
    with contextlib.suppress(OSError):  # removed while the page is made
        return -run.path.stat().st_mtime
    return 0.0
