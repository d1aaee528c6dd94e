"""All that watches a run, called together: screen, log, history, and the watches for spikes and slow workers.

Decides nothing: whatever fails here is a warning, and the training goes on.
"""

from collections.abc import Iterable

from feste_dp.run.history import History
from feste_dp.run.log import RunLog
from feste_dp.run.metrics import MetricsRow, with_perplexity
from feste_dp.run.screen import Progress
from feste_dp.run.step_times import StepTimes
from feste_dp.train.observing import Observing
from feste_dp.train.spikes import SpikeWatch
from feste_dp.train.step import StepResult
from feste_dp.train.stragglers import Stragglers


class Observers:
    """No method raises."""

    def __init__(self, progress: Progress, log: RunLog, history: History, stragglers: Stragglers) -> None:
        self._progress, self._log, self._history = progress, log, history
        self._stragglers, self._spikes = stragglers, SpikeWatch()
        self._observing = Observing(progress.warning, log.warning)

    def remember(self, step: int, losses: Iterable[float]) -> None:
        """The losses before a resume, up to that of `step`; nothing is told of them."""
        with self._observing("the watch for loss spikes"):
            for loss in losses:
                self._spikes.add(step, loss)

    def step(self, step: int, result: StepResult) -> None:
        """A step's update is done."""
        with self._observing("the record of times"):
            self._history.times(step, result.times)
        with self._observing("the watch for slow workers"):
            self._watch_workers(step, result.times)
        with self._observing("the watch for loss spikes"):
            if spike := self._spikes.add(step, result.train_loss):
                self.tell(spike)
                self.event(step, "spike", spike)

    def row(self, row: MetricsRow, total_steps: int, is_best: bool) -> None:
        """A step is finished, with its validation and sample."""
        with self._observing("the history"):
            self._history.row(row)
        with self._observing("the display"):
            self._progress.step(row, total_steps, is_best)
            for trouble in self._progress.troubles():
                self._log.warning(trouble)
        if row.val_loss is not None:
            best = " (best)" if is_best else ""
            self.note(
                f"step {row.step}: train loss {with_perplexity(row.train_loss)}, "
                f"validation loss {with_perplexity(row.val_loss)}{best}"
            )
        if row.sample:
            with self._observing("the display"):
                self._progress.sample(row.step, row.sample)

    def event(self, step: int, kind: str, text: str = "", **fields: object) -> None:
        """Something happened after `step` steps: for the history."""
        with self._observing("the history"):
            self._history.event(step, kind, text, **fields)

    def note(self, line: str) -> None:
        """For the log alone."""
        with self._observing("the log"):
            self._log.info(line)

    def tell(self, line: str) -> None:
        with self._observing("the display"):
            self._progress.message(line)
        self.note(line)

    def warn(self, line: str) -> None:
        with self._observing("the display"):
            self._progress.warning(line)
        with self._observing("the log"):
            self._log.warning(line)

    def _watch_workers(self, step: int, times: StepTimes) -> None:
        """Name workers that are slow for a while, and log every worker's times now and then."""
        for verdict in self._stragglers.add(times.worker_compute, times.worker_shards):
            (self.warn if verdict.slow else self.tell)(verdict.line)
            self.event(step, "worker_slow" if verdict.slow else "worker_back", verdict.line)
        report = self._stragglers.report()
        if report is not None:
            self.note(report)
