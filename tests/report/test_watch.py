"""A run followed on the terminal and in a pipe, to each of its ends."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from feste_dp.report.run_data import RunReader
from feste_dp.report.watch import view, watch_run
from feste_dp.run.directory import RunDirectory
from feste_dp.run.events import encode_event
from feste_dp.run.lock import RunLock
from feste_dp.run.metrics import MetricsWriter
from tests.report.conftest import HOSTILE, NOON, event, history, history_of_nodes, row, times

MakeRun = Callable[..., Path]


def never(seconds: float) -> None:
    raise AssertionError("a run that is over is not waited for")


@pytest.mark.parametrize(
    ("end", "status", "words"),
    [
        ("finish", 0, "finished: finish after step 40"),
        ("stop", 130, "stopped: stop after step 40"),
        ("fail", 1, "failed: failed after step 40: fail after step 40"),
        ("", 1, "interrupted: its process ended after step 40 without a word"),
    ],
)
@pytest.mark.parametrize("is_terminal", [False, True])
def test_each_end_is_named_and_has_its_exit_status(
    make_run: MakeRun, end: str, status: int, words: str, is_terminal: bool
) -> None:
    out = io.StringIO()
    assert watch_run(make_run(events=history(40, end)), out, is_terminal, never) == status
    shown = " ".join(out.getvalue().split())
    assert words.split(": ")[0] in shown
    if not is_terminal:
        assert words in out.getvalue().splitlines()[-1]


def test_a_pipe_gets_steps_samples_and_what_happened_in_order(make_run: MakeRun) -> None:
    told = history(40)
    told.insert(4, event(15, "worker_lost", "worker 1 was killed"))
    out = io.StringIO()
    watch_run(make_run(events=told), out, False, never)
    lines = out.getvalue().splitlines()
    wanted = [
        "12:00:00  step 0  start: new run, 2 workers",
        "step 10/40 ",
        "12:00:15  step 15  worker_lost: worker 1",
        "step 20/40 ",
        "sample at step 20:",
        "    HAMLET.",
        "step 40/40 ",
        "12:00:40  step 40  finish",
    ]
    places = [next(i for i, line in enumerate(lines) if line.startswith(words)) for words in wanted]
    assert places == sorted(places)
    assert not any("save:" in line for line in lines)


def test_a_run_of_several_nodes_shows_the_exchange_and_the_slowest_node(make_run: MakeRun) -> None:
    console = Console(width=110, file=io.StringIO())
    console.print(view(RunReader(make_run(events=history_of_nodes(40))).read(), 110))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "exchange 0.75 ms" in shown
    assert "nodes, ms of compute  0: 2.50  1: 3.00  slowest: node 1 (<beta>)" in shown


def test_a_training_run_is_followed_to_its_end_without_a_line_twice(make_run: MakeRun) -> None:
    path = make_run(rows=[row(step) for step in range(1, 11)], events=[event(0, "start", "new run")])
    lock = RunLock(RunDirectory(path), NOON)
    looks = iter(range(1, 5))

    def meanwhile(seconds: float) -> None:
        look = next(looks)
        if look == 4:
            with (path / "events.jsonl").open("a") as file:
                file.write(f"{encode_event(event(40, 'finish', 'done'))}\n")
            lock.close()
            return
        with MetricsWriter(path / "metrics.csv") as writer:
            for step in range(10 * look + 1, 10 * look + 11):
                writer.append(row(step))

    out = io.StringIO()
    assert watch_run(path, out, False, meanwhile) == 0
    steps = [line.split()[1] for line in out.getvalue().splitlines() if line.startswith("step")]
    assert steps == [f"{step}/40".rjust(len(f"{step}/40")) for step in range(1, 41)]


def test_steps_done_again_after_a_resume_are_not_shown_twice(make_run: MakeRun) -> None:
    path = make_run(rows=[row(step) for step in range(1, 21)], events=[event(0, "start")])
    lock = RunLock(RunDirectory(path), NOON)
    looks = iter(range(3))

    def meanwhile(seconds: float) -> None:
        look = next(looks)
        if look == 0:
            content = (path / "metrics.csv").read_text().splitlines(keepends=True)
            (path / "other.csv").write_text("".join(content[:11]))
            (path / "other.csv").replace(path / "metrics.csv")
        elif look == 1:
            with MetricsWriter(path / "metrics.csv") as writer:
                for step in range(11, 31):
                    writer.append(row(step, sample=""))
        else:
            lock.close()

    out = io.StringIO()
    assert watch_run(path, out, False, meanwhile) == 1
    steps = [
        int(line.split()[1].split("/")[0]) for line in out.getvalue().splitlines() if line.startswith("step")
    ]
    assert steps == sorted(set(steps)) and steps[-1] == 30


def screen(path: Path, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, markup=False, emoji=False, highlight=False)
    console.print(view(RunReader(path).read(), width))
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_view_has_all_and_fits_the_terminal(make_run: MakeRun, width: int) -> None:
    shown = screen(make_run(), width)
    assert max(map(len, shown.splitlines())) <= width
    for words in ("finished", "step", "compute", "control", "0: 2.00", "sample at step 40"):
        assert words in shown


def test_the_view_shows_hostile_text_as_text(make_run: MakeRun) -> None:
    path = make_run(rows=[row(1, sample=HOSTILE)], events=[event(0, "start", "[bold]\x1b[31m\nx")])
    shown = screen(path, 120)
    assert "\x1b" not in shown and "\u202e" not in shown
    assert "[bold]\\x1b[31m x" in shown and "<script>" in shown


def test_a_run_without_anything_yet_has_a_view(make_run: MakeRun) -> None:
    assert "of 40" in screen(make_run(rows=[], events=[]), 80)


def test_many_workers_are_abridged(make_run: MakeRun) -> None:
    events = [event(0, "start"), times(10, *[1.0] * 40), event(40, "finish")]
    assert "and 24 more" in screen(make_run(events=events), 300)
