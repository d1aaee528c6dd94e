"""Notices when the training loss jumps. Pure: depends on the losses alone, and changes nothing.

A loss is a spike when it lies above the median of the losses before it by more than SPREADS times their
spread. The spread is 1.4826 times the median distance from the median, which for normal losses is their
standard deviation, and which a few outliers do not move; it counts as at least MIN_SPREAD of the median, and
as LEAST_SPREAD where the losses are next to nothing.
"""

import math
import statistics
from collections import deque

WINDOW = 50
"""Losses that the median and the spread look back over."""
MIN_LOSSES = 20
"""Losses without which nothing is called a spike."""
SPREADS = 6.0
MIN_SPREAD = 0.01
LEAST_SPREAD = 1e-4
"""Nats a token: a text that is learnt by heart has losses of 0, and no spread to divide by."""


class SpikeWatch:
    """Feed it the loss of every step. What it says depends on the last WINDOW + 1 finite losses alone, so a
    resumed run that feeds it those of the steps before says what an uninterrupted one would."""

    def __init__(self) -> None:
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._above = False

    def add(self, step: int, loss: float) -> str | None:
        """A line where this loss is a spike and the one before was none. NaN and infinity are not looked at:
        such a step has a line of its own."""
        if not math.isfinite(loss):
            return None
        was_above, self._above = self._above, False
        line = None
        if len(self._losses) >= MIN_LOSSES:
            median = statistics.median(self._losses)
            distance = statistics.median(abs(each - median) for each in self._losses)
            spread = max(1.4826 * distance, MIN_SPREAD * abs(median), LEAST_SPREAD)
            self._above = loss - median > SPREADS * spread
            if self._above and not was_above:
                line = (
                    f"loss spike at step {step}: {loss:.4f} is {loss - median:.4f} above the median of the "
                    f"last {len(self._losses)} steps, {median:.4f}, or {(loss - median) / spread:.0f} times "
                    "their spread"
                )
        self._losses.append(loss)
        return line
