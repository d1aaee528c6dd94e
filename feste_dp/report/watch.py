"""feste-dp watch: a run on the terminal until it ends. The same data as the pages; reads only."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO, cast

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from feste_dp.output import Output
from feste_dp.report.axes import exact_axis
from feste_dp.report.curves import loss_sparkline
from feste_dp.report.run_data import RunData, RunReader
from feste_dp.report.run_nodes import nodes_of, slowest
from feste_dp.report.run_sections import ROUTINE, figures
from feste_dp.run.events import Event
from feste_dp.run.metrics import MetricsRow
from feste_dp.run.screen import PlainProgress, printable
from feste_dp.run.step_times import ALL_PHASES, shown_phases

LOOK_EVERY_S = 1.0
EXIT_STATUS = {"finished": 0, "training": 0, "stopped": 130, "failed": 1, "interrupted": 1}
_BLOCKS = "▁▂▃▄▅▆▇█"
_STATE_STYLES = {
    "training": "cyan",
    "finished": "green",
    "stopped": "yellow",
    "failed": "red",
    "interrupted": "red",
}
_PHASE_STYLES = dict(zip(ALL_PHASES, ("blue", "red", "green", "cyan", "yellow", "magenta"), strict=True))
_SHOWN_EVENTS, _SHOWN_WORKERS, _SHOWN_NODES, _SAMPLE_LINES = 6, 16, 8, 8
_LEAST_SPARKLINE = 8
_MOST_MS = 1e12


def watch_run(path: Path, out: TextIO, is_terminal: bool, sleep: Callable[[float], None] = time.sleep) -> int:
    """Show the run until it ends; returns the exit status. Raises UsageError where there is no run."""
    reader = RunReader(path)
    if is_terminal:
        output = Output(out)  # what its encoding lacks is escaped: rich would raise
        console = Console(
            file=cast(TextIO, output), force_terminal=True, markup=False, emoji=False, highlight=False
        )
        try:
            return _watch_live(reader, console, sleep)
        finally:
            output.drain()
    return _watch_plainly(reader, out, sleep)


def _watch_live(reader: RunReader, console: Console, sleep: Callable[[float], None]) -> int:
    run = reader.read()
    with Live(view(run, console.width), console=console, auto_refresh=False) as live:
        while not run.status.is_over:
            sleep(LOOK_EVERY_S)
            run = reader.read()
            live.update(view(run, console.width), refresh=True)
        live.update(view(run, console.width), refresh=True)
    # once more below the picture, which cuts and folds: a command in it is there to be copied
    console.print(Text(printable(f"{run.status.state}: {run.status.text}")), soft_wrap=True)
    return EXIT_STATUS[run.status.state]


def _watch_plainly(reader: RunReader, out: TextIO, sleep: Callable[[float], None]) -> int:
    """Lines as launch prints them, and one for each event that is not routine."""
    shown_events = last_step = 0
    with PlainProgress(out, out) as progress:
        while True:
            run = reader.read()
            told = [event for event in run.events[shown_events:] if event.kind not in ROUTINE]
            rows = [row for row in run.rows if row.step > last_step]
            news: list[Event | MetricsRow] = [*rows, *told]
            for each in sorted(news, key=lambda each: each.step):
                if isinstance(each, Event):
                    progress.message(_event_line(each))
                else:
                    progress.step(each, run.config.train.steps)
                    if each.sample:
                        progress.sample(each.step, each.sample)
            shown_events, last_step = len(run.events), max(last_step, run.last_step)
            if run.status.is_over:
                progress.finish(f"{run.status.state}: {run.status.text}")
                return EXIT_STATUS[run.status.state]
            sleep(LOOK_EVERY_S)


def view(run: RunData, width: int = 100) -> RenderableType:
    """All of a run that fits a screen."""
    state = Text.assemble(
        (run.status.state, f"bold {_STATE_STYLES[run.status.state]}"), "  ", printable(run.status.text)
    )
    parts: list[RenderableType] = [state, _bar(run, width - 4), _figures(run)]
    if curve := _sparkline(run, min(width - 20, 100)):
        parts.append(Text.assemble(("loss  ", "dim"), (curve, "cyan")))
    if run.times:
        parts += [_phases(run.times[-1], width - 4), _workers(run.times[-1])]
        if nodes := _nodes(run):
            parts.append(nodes)
    if events := run.events[-_SHOWN_EVENTS:]:
        parts.append(
            Text("\n".join(_event_line(event) for event in events), style="dim", overflow="ellipsis")
        )
    if sample := next((row for row in reversed(run.rows) if row.sample), None):
        lines = printable(sample.sample).expandtabs(4).split("\n")[:_SAMPLE_LINES]
        parts.append(Panel(Text("\n".join(lines)), title=f"sample at step {sample.step}", title_align="left"))
    return Panel(Group(*parts), title=Text(printable(run.name)), title_align="left")


def _bar(run: RunData, width: int) -> Text:
    width = max(width, 0)
    full = round(width * min(1.0, run.last_step / run.config.train.steps))
    return Text.assemble(("━" * full, "cyan"), ("─" * (width - full), "dim"))


def _figures(run: RunData) -> Table:
    grid = Table.grid(padding=(0, 3))
    shown = list(figures(run).items())
    for _ in range(4):
        grid.add_column()
    for first in range(0, len(shown), 4):
        cells = [Text.assemble((f"{name} ", "dim"), value) for name, value in shown[first : first + 4]]
        grid.add_row(*cells)
    return grid


def _sparkline(run: RunData, width: int) -> str:
    if width < _LEAST_SPARKLINE:
        return ""
    values = [y for _, y in loss_sparkline(run, width)]
    if len(values) < 2:
        return ""
    values = [values[index * len(values) // width] for index in range(min(width, len(values)))]
    axis = exact_axis(min(values), max(values))
    return "".join(_BLOCKS[round(min(max(axis.share(value), 0.0), 1.0) * 7)] for value in values)


def _phases(times: Event, width: int) -> Text:
    """One bar of a step's time, and what its parts are."""
    phases = times.fields.get("phases_ms")
    numbers = {}
    if isinstance(phases, dict):
        numbers = {phase: _number(phases.get(phase)) for phase in shown_phases([phases])}
    total = sum(numbers.values())
    if total <= 0:
        return Text("")
    width, line = max(width, 0), Text()
    passed = 0.0
    for phase, number in numbers.items():
        first, passed = round(width * passed / total), passed + number
        line.append("█" * (round(width * passed / total) - first), _PHASE_STYLES[phase])
    line.append("\n")
    for phase, number in numbers.items():
        line.append(f"{phase} {number:.2f} ms  ", _PHASE_STYLES[phase])
    return line


def _workers(times: Event) -> Text:
    each = times.fields.get("worker_compute_ms")
    numbers = [_number(value) for value in each] if isinstance(each, list) else []
    shown = "  ".join(f"{worker}: {number:.2f}" for worker, number in enumerate(numbers[:_SHOWN_WORKERS]))
    more = f"  and {len(numbers) - _SHOWN_WORKERS} more" if len(numbers) > _SHOWN_WORKERS else ""
    return Text.assemble(("workers, ms of compute  ", "dim"), shown + more)


def _nodes(run: RunData) -> Text | None:
    """Each node's compute time and who is the slowest, where there are several."""
    nodes = nodes_of(run)
    last = slowest(nodes)
    if last is None:
        return None
    shown = "  ".join(f"{at}: {_number(node.compute_ms):.2f}" for at, node in enumerate(nodes[:_SHOWN_NODES]))
    more = f"  and {len(nodes) - _SHOWN_NODES} more" if len(nodes) > _SHOWN_NODES else ""
    slow = printable(f"  slowest: {last.name}")
    return Text.assemble(("nodes, ms of compute  ", "dim"), shown + more, (slow, "dim"))


def _event_line(event: Event) -> str:
    return printable(f"{event.time:%H:%M:%S}  step {event.step}  {event.kind}: {event.text}").replace(
        "\n", " "
    )


def _number(value: object) -> float:
    """Milliseconds out of what a line of events.jsonl holds; 0 for what cannot be any."""
    is_time = isinstance(value, int | float) and 0 <= value <= _MOST_MS
    return float(value) if is_time else 0.0  # type: ignore[arg-type]
