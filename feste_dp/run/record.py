"""The one voice of a run: what is told here reaches screen, log and history, and so trackers and pages.

Before a run has a log and a history, what is told is shown, and written as soon as they are there. Nothing
here raises: a way that fails is told by the others, once, and the training goes on.
"""

from typing import Literal

from feste_dp.run.history import History
from feste_dp.run.log import RunLog
from feste_dp.run.metrics import MetricsRow, with_perplexity
from feste_dp.run.observing import Observing
from feste_dp.run.screen import Progress
from feste_dp.run.step_times import StepTimes

Level = Literal["routine", "message", "warning"]
"""How much people need to see it: not on the screen, there unless it is to be quiet, there in any case."""


class Record:
    """Screen, log and history of one run."""

    def __init__(self, progress: Progress) -> None:
        self.step = 0
        """The last finished step."""
        self._progress = progress
        self._log: RunLog | None = None
        self._history: History | None = None
        self._unlogged: list[tuple[Level, str, str]] = []
        self._unwritten: list[tuple[str, str, dict[str, object]]] = []
        self._observing = Observing(progress.warning, self._log_warning)

    def tell(
        self,
        kind: str,
        text: str,
        level: Level = "message",
        *,
        step: int | None = None,
        trace: str = "",
        **fields: object,
    ) -> None:
        """Something happened after a step, the last finished one where it is not given: its kind in
        events.jsonl, a sentence for people, and fields that JSON can hold. A traceback goes to the log alone.
        """
        if level != "routine":
            with self._observing("the display"):
                (self._progress.warning if level == "warning" else self._progress.message)(text)
        self._write_log(level, text, trace)
        self._write_history(kind, text, fields, step)

    def warn(self, text: str) -> None:
        """A warning that has no kind of its own."""
        self.tell("warning", text, "warning")

    def note(self, text: str, level: Level = "message", *, trace: str = "") -> None:
        """For the log alone: what the history has in figures, or tells in its own way."""
        self._write_log(level, text, trace)

    def times(self, times: StepTimes) -> None:
        """Where the time of the last finished step went."""
        with self._observing("the record of times"):
            if self._history is not None:
                self._history.times(self.step, times)

    def row(self, row: MetricsRow, total_steps: int, is_best: bool) -> None:
        """The figures of the last finished step, its validation and sample among them."""
        with self._observing("the history"):
            if self._history is not None:
                self._history.row(row)
        with self._observing("the display"):
            self._progress.step(row, total_steps, is_best)
            for trouble in self._progress.troubles():
                self._write_log("warning", trouble)
        if row.val_loss is not None:
            best = " (best)" if is_best else ""
            self.note(
                f"step {row.step}: train loss {with_perplexity(row.train_loss)}, "
                f"validation loss {with_perplexity(row.val_loss)}{best}"
            )
        if row.sample:
            with self._observing("the display"):
                self._progress.sample(row.step, row.sample)

    def log_to(self, log: RunLog) -> None:
        """From here on, and what was told before, in this log too."""
        self._log = log
        unlogged, self._unlogged = self._unlogged, []
        for level, text, trace in unlogged:
            self._write_log(level, text, trace)

    def begin(self, history: History, kind: str, text: str, **fields: object) -> None:
        """The run begins, or goes on: the first event of this history, which is open, before all that was
        told already."""
        self._history = history
        self._write_log("message", text)
        self._write_history(kind, text, fields)
        unwritten, self._unwritten = self._unwritten, []
        for earlier in unwritten:
            self._write_history(*earlier)

    def _write_log(self, level: Level, text: str, trace: str = "") -> None:
        if self._log is None:
            self._unlogged.append((level, text, trace))
            return
        with self._observing("the log"):
            (self._log.warning if level == "warning" else self._log.info)(text)
            for line in trace.splitlines():
                self._log.warning(line)

    def _write_history(
        self, kind: str, text: str, fields: dict[str, object], step: int | None = None
    ) -> None:
        if self._history is None:
            self._unwritten.append((kind, text, fields))
            return
        with self._observing("the history"):
            self._history.event(self.step if step is None else step, kind, text, **fields)

    def _log_warning(self, text: str) -> None:
        if self._log is not None:
            self._log.warning(text)
