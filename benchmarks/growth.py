"""What an item costs among a thousand, a hundred thousand and a million: it must stay the same.

    python -m benchmarks.growth [--most 1000000]

Prints microseconds of processor time an item for each structure and reader that a large batch, a long
evaluation or a long run makes grow, and of one more look at a run that has so many rows already.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from feste_dp.checkpoint.format import step_directory_name
from feste_dp.checkpoint.listing import list_checkpoints
from feste_dp.report.chronicle import Chronicle
from feste_dp.report.following import Following
from feste_dp.report.thinning import running_medians, smoothing_window, thin
from feste_dp.run.events import Event, encode_event
from feste_dp.run.metrics import (
    MetricsRow,
    MetricsWriter,
    encode_row,
    read_metrics,
    read_rows,
    truncate_after,
)
from feste_dp.runtime import messages as m
from feste_dp.runtime.crew import Crew, Said
from feste_dp.runtime.gathering import Gathering, Task
from feste_dp.runtime.ledger import Ledger
from feste_dp.runtime.results import tree_sum
from feste_dp.train.spikes import SpikeWatch
from feste_dp.train.stragglers import Stragglers

SIZES = (1_000, 100_000, 1_000_000)
WORKERS = (2, 16, 256)
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def timed(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


class PromptCrew:
    """Workers that have done at once what they are told; their reports are heard one by one."""

    def __init__(self, workers: int) -> None:
        self.members = {worker: SimpleNamespace(heard_at=time.monotonic() + 1e6) for worker in range(workers)}
        self._reports: list[Said] = []

    def ready(self) -> list[int]:
        return sorted(self.members)

    def starting(self) -> list[int]:
        return []

    def send(self, worker: int, order: m.Message) -> None:
        assert isinstance(order, m.Compute)
        self._reports += [
            Said(worker, m.ShardsDone(1, shard, (0.5,), 0.5)) for shard in range(order.first, order.last)
        ]

    def wait(self, deadline: float) -> Said:
        return self._reports.pop()


def gather(items: int, workers: int) -> None:
    crew = cast(Crew, PromptCrew(workers))
    task = Task("compute", 1, "shard", m.ShardsDone, lambda first, last: m.Compute(1, first, last, 1))
    Gathering(crew, workers, 600.0, print).gather(Ledger(items), task)


def row(step: int) -> MetricsRow:
    return MetricsRow(step, step / 8, 1e-3, 2 + 1 / step, 1.0, 1e5, 2.5 if step % 50 == 0 else None)


def event(step: int) -> str:
    if step == 1:
        return encode_event(Event(NOON, 0, "start", "12 workers"))
    kind = "best" if step % 50 == 0 else "times"
    return encode_event(Event(NOON, step, kind, "", {"steps": 1, "phases_ms": {"compute": 1.5}}))


def measures(items: int, folder: Path) -> dict[str, float]:
    """Seconds an item."""
    found: dict[str, float] = {}

    def per_item(name: str, call: Callable[[], object]) -> None:
        found[name] = timed(call) / items

    per_item("gather, a report each", lambda: gather(items, 2))
    per_item("sum of losses", lambda: tree_sum([0.5] * items))
    metrics, events = folder / "metrics.csv", folder / "events.jsonl"
    metrics.unlink(missing_ok=True)
    MetricsWriter(metrics).close()
    header = metrics.read_bytes()
    metrics.write_bytes(header + b"".join(encode_row(row(step)) for step in range(1, items + 1)))
    events.write_text("".join(event(step) + "\n" for step in range(1, items + 1)))
    per_item("metrics.csv, read", lambda: read_metrics(metrics))
    following, history = Following(metrics, read_rows), Chronicle(events)
    per_item("metrics.csv, followed", following.update)
    per_item("events.jsonl, followed", history.update)
    with metrics.open("ab") as file:
        file.write(encode_row(row(items + 1)))
    with events.open("a") as lines:
        lines.write(event(items + 1) + "\n")
    found["one more look at both files"] = timed(lambda: (following.update(), history.update()))
    per_item("metrics.csv, cut", lambda: truncate_after(metrics, items // 2))
    losses = [each.train_loss for each in following.rows]
    per_item("a chart's rows chosen", lambda: thin([losses]))
    places = range(0, items, max(1, items // 600))
    per_item("medians of a chart", lambda: running_medians(losses, smoothing_window(items), places))
    spikes = SpikeWatch()
    per_item("watch for loss spikes", lambda: [spikes.add(step, 2.0) for step in range(items)])
    return found


def by_workers(workers: int) -> dict[str, float]:
    """Seconds a report of 100 steps in which each worker does one shard; and a worker of a step."""

    def steps() -> None:
        for _ in range(100):
            gather(workers, workers)

    stragglers, seconds, shards = Stragglers(), [1.0] * workers, [1] * workers
    return {
        "gather, a report each": timed(steps) / (100 * workers),
        "watch for slow workers": timed(lambda: [stragglers.add(seconds, shards) for _ in range(100)])
        / (100 * workers),
    }


def listing(count: int, folder: Path) -> float:
    """Seconds a checkpoint."""
    for step in range(1, count + 1):
        path = folder / step_directory_name(step)
        path.mkdir(parents=True)
        (path / "manifest.json").touch()
    return timed(lambda: list_checkpoints(folder)) / count


def table(title: str, columns: dict[str, dict[str, float]]) -> str:
    names = list(next(iter(columns.values())))
    lines = [f"{title:34}" + "".join(f"{column:>14}" for column in columns)]
    for name in names:
        lines.append(f"{name:34}" + "".join(f"{1e6 * found[name]:14.2f}" for found in columns.values()))
    return "\n".join(lines)


def main() -> None:
    arguments: Any = argparse.ArgumentParser()
    arguments.add_argument("--most", type=int, default=SIZES[-1])
    most = arguments.parse_args().most
    with tempfile.TemporaryDirectory() as folder:
        sizes = [size for size in SIZES if size <= most]
        by_size = {f"{size:,}": measures(size, Path(folder)) for size in sizes}
        print(table("microseconds an item, among", by_size), end="\n\n")
        print(
            table("microseconds, with so many workers", {str(each): by_workers(each) for each in WORKERS}),
            end="\n\n",
        )
        checkpoints = {
            f"{count:,}": {"listed": listing(count, Path(folder) / str(count))} for count in (10, 1_000)
        }
        print(table("microseconds a checkpoint, among", checkpoints))


if __name__ == "__main__":
    main()
