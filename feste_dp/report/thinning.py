"""Which rows of a long run are drawn, and curves that show its course through noise. Pure."""

import statistics
from collections.abc import Collection, Sequence

MOST_ROWS = 600
"""Rows that a chart draws of each run: more than a screen of that width can show apart."""


def thin(
    columns: Sequence[Sequence[float | None]], keep: Collection[int] = (), most: int = MOST_ROWS
) -> list[int]:
    """Numbers of the rows to draw, in order: all where there are at most `most`; else the first, the last, in
    each of many equal parts those with the lowest and the highest value of each column, and as many of
    `keep` as there is room for besides. No extreme of a column is lost."""
    rows = max((len(column) for column in columns), default=0)
    if rows <= most:
        return list(range(rows))
    chosen = {0, rows - 1}
    parts = max(1, most // (2 * max(1, len(columns)) + 1))
    for column in columns:
        for part in range(parts):
            first, stop = rows * part // parts, rows * (part + 1) // parts
            held = [(value, row) for row in range(first, stop) if (value := column[row]) is not None]
            if held:
                chosen |= {min(held)[1], max(held)[1]}
    wanted = sorted(set(keep) - chosen)
    room = max(2, most - len(chosen))
    if len(wanted) > room:
        wanted = [wanted[(len(wanted) - 1) * index // (room - 1)] for index in range(room)]
    return sorted(chosen | set(wanted))


def smoothing_window(rows: int) -> int:
    """An odd number of rows, about a fiftieth of them, at most 101."""
    return min(100, rows // 50) | 1


def running_medians(values: Sequence[float], window: int, places: Sequence[int]) -> list[float]:
    """The median of the window around each of these places; at the ends of what there is of it.

    Of a long run few places are drawn: its other values are not looked at.
    """
    reach = window // 2
    return [statistics.median(values[max(0, place - reach) : place + reach + 1]) for place in places]
