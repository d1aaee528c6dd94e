"""How fast a run goes, and when it will be done: from its rows of metrics.csv alone."""

import statistics
from collections import deque

from feste_dp.run.metrics import MetricsRow

_WINDOW = 31  # steps that a moving median looks back


class Pace:
    """How fast the run goes: moving medians, which a step that also validated cannot disturb. The time of
    validation and samples is counted apart and spread over the steps to come."""

    def __init__(self) -> None:
        self._speeds: deque[float] = deque(maxlen=_WINDOW)
        self._step_s: deque[float] = deque(maxlen=_WINDOW)
        self._paused_s = 0.0
        self._steps = 0
        self._last_elapsed: float | None = None

    def add(self, row: MetricsRow) -> None:
        self._speeds.append(row.tokens_per_second)
        if self._last_elapsed is not None:
            took = row.elapsed_seconds - self._last_elapsed
            self._steps += 1
            if (row.val_loss is not None or row.sample) and self._step_s:
                self._paused_s += took - statistics.median(self._step_s)
            else:
                self._step_s.append(took)
        self._last_elapsed = row.elapsed_seconds

    @property
    def tokens_per_second(self) -> float:
        return statistics.median(self._speeds)

    def eta_seconds(self, steps_left: int) -> float | None:
        """None before two steps have been seen."""
        if not self._step_s:
            return None
        return steps_left * max(0.0, statistics.median(self._step_s) + self._paused_s / self._steps)
