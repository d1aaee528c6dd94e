"""Figures that nobody expects and terminals of any size: a page or a screen that says so, and no fault."""

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import TextIO, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from feste_dp.output import Output
from feste_dp.report.chart import Chart, Mark, Series, render
from feste_dp.report.page import page, run_parts
from feste_dp.report.run_data import read_runs
from feste_dp.report.watch import view, watch_run
from tests.report.conftest import event, history, row, times

MakeRun = Callable[..., Path]
NUMBERS = [0.0, -0.0, 1.0, math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, -1.0, 1e-45]
numbers = st.sampled_from(NUMBERS) | st.floats()


@given(
    lines=st.lists(st.lists(st.tuples(st.integers(0, 2**53), numbers), max_size=6), min_size=1, max_size=3),
    is_log=st.booleans(),
    stacked=st.sampled_from(["", "areas"]),
    from_zero=st.booleans(),
)
@settings(max_examples=200)
def test_any_numbers_make_a_chart(
    lines: list[list[tuple[int, float]]], is_log: bool, stacked: str, from_zero: bool
) -> None:
    series = [Series(str(name), [(float(x), y) for x, y in line], 1) for name, line in enumerate(lines)]
    marks = [Mark(0.0, "skip", ""), Mark(2.0**53, "skip", "")]
    is_log = is_log and not stacked
    drawn = render(
        Chart("c", "t", "x", "y", series, marks=marks, is_log_y=is_log, from_zero=from_zero, stacked=stacked)  # type: ignore[arg-type]
    )
    assert "NaN" not in drawn and "nan" not in drawn and "inf" not in drawn


@pytest.fixture
def degenerate(make_run: MakeRun) -> Path:
    rows = [
        row(step, train_loss=x, grad_norm=x, tokens_per_second=x, elapsed_seconds=x, val_loss=x)
        for step, x in enumerate(NUMBERS, 1)
    ]
    told = [
        *history(0, ""),
        times(3, *NUMBERS),
        event(4, "times", phases_ms=dict.fromkeys(("compute", "wait"), math.inf), worker_compute_ms=NUMBERS),
        event(5, "times", phases_ms=[1], worker_compute_ms={"a": 1}),
        event(10**9, "spike", "later than anything"),
        event(3, "finish", "out of order"),
    ]
    return make_run("run", rows, told)


@pytest.mark.parametrize("width", [1, 2, 5, 20, 80, 10_000])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_screen_of_any_width_shows_any_run(degenerate: Path, width: int, encoding: str) -> None:
    (run,) = read_runs([degenerate])
    out = Output(io.TextIOWrapper(io.BytesIO(), encoding))
    Console(file=cast(TextIO, out), width=width).print(view(run, width))


@pytest.mark.parametrize("is_terminal", [False, True])
@pytest.mark.parametrize("columns", ["0", "1", "20"])
def test_watch_on_a_narrow_terminal_that_knows_ascii_only(
    degenerate: Path, is_terminal: bool, columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    out = io.TextIOWrapper(io.BytesIO(), "ascii")
    assert watch_run(degenerate, out, is_terminal) == 0


def test_a_page_shows_any_run(degenerate: Path, make_run: MakeRun) -> None:
    runs = read_runs([degenerate, make_run("whole")])
    assert "runs" in page("one", run_parts(runs[:1])) and "whole" in page("two", run_parts(runs))
