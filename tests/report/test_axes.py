"""Axes hold their values, ticks are round and lie on them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feste_dp.report.axes import Axis, exact, exact_axis, make_axis, short, ticks

DEGENERATE = [0.0, -0.0, math.nan, math.inf, -math.inf, 1e308, -1e308, 1.7e308, 5e-324, 1e-310, 1.0, 2.0**53]
sizes = st.floats(1e-12, 1e12)


@given(values=st.lists(st.floats(-1e12, 1e12), min_size=1), from_zero=st.booleans())
def test_every_value_lies_on_its_axis(values: list[float], from_zero: bool) -> None:
    axis = make_axis(values, from_zero=from_zero)
    assert axis.high > axis.low
    assert all(-1e-9 <= axis.share(value) <= 1 + 1e-9 for value in values)
    assert not from_zero or axis.low <= 0 <= axis.high


@given(values=st.lists(sizes, min_size=1))
def test_every_value_lies_on_its_logarithmic_axis(values: list[float]) -> None:
    axis = make_axis(values, is_log=True)
    assert all(-1e-9 <= axis.share(value) <= 1 + 1e-9 for value in values)


@given(values=st.lists(st.sampled_from(DEGENERATE) | st.floats(), max_size=5), is_log=st.booleans())
def test_no_numbers_are_a_fault(values: list[float], is_log: bool) -> None:
    held = [value for value in values if math.isfinite(value) and (value > 0 or not is_log)]
    axes = [make_axis(values, is_log=is_log), make_axis(held, is_log=is_log, from_zero=True)]
    axes += [exact_axis(min(held), max(held), is_log=is_log)] if held else []
    for axis in axes:
        assert math.isfinite(axis.high - axis.low)
        assert len(ticks(axis)) <= 20
        assert all(math.isfinite(axis.share(value)) for value in held)
    for value in values:
        assert short(value) and exact(value)


@given(low=st.floats(-1e6, 1e6), span=st.floats(1, 1e9))
def test_ticks_lie_on_the_axis_and_are_a_few(low: float, span: float) -> None:
    axis = Axis(low, low + span)
    found = ticks(axis)
    assert 2 <= len(found) <= 12
    assert all(-1e-6 <= axis.share(tick) <= 1 + 1e-6 for tick in found)


@given(low=sizes, factor=st.floats(1.2, 1e9))
def test_logarithmic_ticks_lie_on_the_axis_and_are_a_few(low: float, factor: float) -> None:
    axis = Axis(low, low * factor, True)
    found = ticks(axis)
    assert 1 <= len(found) <= 12
    assert all(-1e-6 <= axis.share(tick) <= 1 + 1e-6 for tick in found)


def test_ticks_are_round() -> None:
    assert ticks(Axis(0, 100)) == [0, 20, 40, 60, 80, 100]
    assert ticks(Axis(3.4, 6.3)) == [4, 5, 6]
    assert ticks(Axis(30, 600, True)) == [30, 100, 300]


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf, -math.inf]])
def test_an_axis_without_values_is_still_one(values: list[float]) -> None:
    assert make_axis(values) == Axis(0.0, 1.0)
    assert make_axis(values, is_log=True).low > 0


def test_one_value_is_in_the_middle_of_its_axis() -> None:
    assert exact_axis(5, 5).share(5) == 0.5
    assert make_axis([5.0]).share(5) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1200.0, "1,200"), (50_000.0, "50k"), (1.5e6, "1.5M"), (0.001, "0.001"), (3e-5, "3e-05"),
     (2.5, "2.5"), (-20.0, "-20")],
)  # fmt: skip
def test_an_axis_writes_short_numbers(value: float, text: str) -> None:
    assert short(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (3.0, "3"), (4.08921, "4.0892"), (7538.02, "7,538.0"), (123456.7, "123,457"),
     (math.nan, "NaN"), (math.inf, "∞"), (1e-7, "1e-07"), (200_000, "200,000")],
)  # fmt: skip
def test_a_table_writes_exact_numbers(value: float | None, text: str) -> None:
    assert exact(value) == text
