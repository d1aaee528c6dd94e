"""Thinning loses no extreme; medians are medians."""

import statistics
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feste_dp.report.thinning import MOST_ROWS, running_medians, smoothing_window, thin

values = st.floats(-1e6, 1e6)


@given(column=st.lists(values | st.none(), max_size=3000), most=st.integers(10, 200))
def test_the_extremes_and_the_ends_are_kept(column: list[float | None], most: int) -> None:
    rows = thin([column], most=most)
    assert rows == sorted(set(rows))
    assert len(rows) <= most + 2
    kept = [column[row] for row in rows]
    finite = [value for value in column if value is not None]
    if finite:
        assert {min(finite), max(finite)} <= set(kept)
    if column:
        assert rows[0] == 0 and rows[-1] == len(column) - 1


def test_a_short_run_is_drawn_whole() -> None:
    assert thin([[1.0] * MOST_ROWS]) == list(range(MOST_ROWS))


def test_rows_to_keep_are_kept_where_there_is_room() -> None:
    column: list[float | None] = [float(row) for row in range(10_000)]
    keep = range(137, 10_000, 100)
    assert set(keep) <= set(thin([column], keep))


def test_more_rows_to_keep_than_there_is_room_for_are_spread_out() -> None:
    column: list[float | None] = [float(row) for row in range(10_000)]
    rows = thin([column], range(10_000), 100)
    assert len(rows) <= 102
    assert max(b - a for a, b in pairwise(rows)) < 400


def test_each_column_keeps_its_own_extremes() -> None:
    first: list[float | None] = [0.0] * 5000
    second: list[float | None] = [None] * 5000
    first[1234], second[4321], second[17] = 9.0, -5.0, 5.0
    assert {1234, 4321, 17} <= set(thin([first, second]))


@given(column=st.lists(values, max_size=60), half=st.integers(0, 8))
def test_a_running_median_is_the_median_of_its_window(column: list[float], half: int) -> None:
    expected = [
        statistics.median(column[max(0, at - half) : at + half + 1]) for at in range(len(column))
    ]  # fmt: skip
    assert running_medians(column, 2 * half + 1, range(len(column))) == expected
    assert running_medians(column, 2 * half + 1, range(0, len(column), 7)) == expected[::7]


def test_medians_of_a_long_run_cost_what_is_drawn_of_it() -> None:
    class Watched(list[float]):
        looked_at = 0

        def __getitem__(self, key):  # type: ignore[no-untyped-def, override]
            found = super().__getitem__(key)
            self.looked_at += len(found)
            return found

    long = Watched([1.0] * 100_000)
    assert len(running_medians(long, 101, range(0, 100_000, 1000))) == 100
    assert long.looked_at <= 100 * 101


@pytest.mark.parametrize(("rows", "window"), [(0, 1), (49, 1), (100, 3), (1000, 21), (10**6, 101)])
def test_the_window_grows_with_the_run_and_is_odd(rows: int, window: int) -> None:
    assert smoothing_window(rows) == window
