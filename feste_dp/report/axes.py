"""Axes of a chart: where values lie on them, round ticks, and how numbers are written. Pure."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

LARGEST, SMALLEST = 8e307, 1e-290
"""Ends of what is drawn to scale: the length of an axis, and a hundredth of it, must be floats as well."""
_SMALLEST_POWER = 1e-270
_FAR = 100.0


@dataclass(frozen=True)
class Axis:
    """From low to high, evenly or in powers."""

    low: float
    high: float
    is_log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies: 0 at the low end, 1 at the high end; what lies far outside, not much more."""
        if self.is_log and value <= 0:
            return -_FAR
        low, high, value = (map(math.log, (self.low, self.high, value)) if self.is_log else
                            (self.low, self.high, value))  # fmt: skip
        share = (value - low) / (high - low) if high > low else 0.5
        return min(max(share, -_FAR), _FAR)


def make_axis(values: Iterable[float], *, is_log: bool = False, from_zero: bool = False) -> Axis:
    """An axis that holds all finite values (all above zero, where it is logarithmic) with a little room."""
    held = [value for value in values if math.isfinite(value) and (value > 0 or not is_log)]
    if not held:
        return Axis(1.0, 10.0, True) if is_log else Axis(0.0, 1.0)
    low, high = (_drawn(end, is_log) for end in (min(held), max(held)))
    if is_log:
        room = math.exp(0.04 * (math.log(high) - math.log(low))) if high > low else 1.5
        return Axis(low / room, high * room, True)
    if from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low <= SMALLEST:
        room = max(abs(high), abs(low)) * 0.1
        room = room if room > SMALLEST else 1.0
        return Axis(low if from_zero and low == 0 else low - room, high + room)
    room = (high - low) * 0.05
    return Axis(low if from_zero and low == 0 else low - room, high + room)


def exact_axis(low: float, high: float, *, is_log: bool = False) -> Axis:
    """An axis that ends where the values end."""
    low, high = _drawn(low, is_log), _drawn(high, is_log)
    if high > low and (is_log or high - low > SMALLEST):
        return Axis(low, high, is_log)
    room = max(0.5, abs(low) * 1e-12)
    return Axis(low / 1.5, high * 1.5, True) if is_log else Axis(low - room, high + room)


def _drawn(end: float, is_log: bool) -> float:
    """An end of an axis, within what can be drawn to scale."""
    return min(max(end, _SMALLEST_POWER), 1 / _SMALLEST_POWER) if is_log else min(max(end, -LARGEST), LARGEST)


def ticks(axis: Axis, wanted: int = 5) -> list[float]:
    """Round values on the axis, about as many as wanted."""
    if axis.is_log:
        return _log_ticks(axis, wanted)
    span = axis.high - axis.low
    raw = span / wanted
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * nice for nice in (1, 2, 2.5, 5, 10) if unit * nice >= raw * 0.999)
    first, last = math.ceil(axis.low / step - 1e-9), math.floor(axis.high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _log_ticks(axis: Axis, wanted: int) -> list[float]:
    decades = range(math.floor(math.log10(axis.low)), min(math.ceil(math.log10(axis.high)), 307) + 1)
    for leads in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        found = [lead * 10.0**power for power in decades for lead in leads]
        found = [value for value in found if axis.low <= value <= axis.high]
        if len(found) >= min(3, wanted):
            stride = -(-len(found) // (wanted + 2))
            return found[::stride]
    return ticks(Axis(axis.low, axis.high), wanted) if axis.high / axis.low < 3 else found


def short(value: float) -> str:
    """A number as an axis writes it: 1,200 50k 1.2M 0.001 3e-05."""
    size = abs(value)
    if value == 0:
        return "0"
    if size >= 1e6:
        for power, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
            if size >= power:
                return f"{value / power:.4g}{letter}" if size < 1e15 else f"{value:.2g}"
    if size >= 1e4:
        return f"{value / 1000:.4g}k"
    if size >= 1000:
        return f"{value:,.0f}"
    if size < 1e-3:
        return f"{value:.3g}"
    return f"{value:.4g}"


def exact(value: float | None, digits: int = 5) -> str:
    """A number as a table writes it; empty for None."""
    if value is None:
        return ""
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: "-∞"}.get(value, "NaN")
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if 1000 <= abs(value) < 1e15:
        return f"{value:,.{max(0, digits - len(str(int(abs(value)))))}f}"
    return f"{value:.{digits}g}"
